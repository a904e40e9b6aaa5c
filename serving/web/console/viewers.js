// One viewer's list beside what another version would give.

import { compare, inWords, summary } from "./moves.js";
import { write } from "./words.js";
import { call } from "/web/api.js";
import { announce, el } from "/web/dom.js";

const byId = (id) => document.getElementById(id);
const SIGNS = { new: "+", gone: "−", same: "=", up: "↑", down: "↓" };

const NEWEST = 5;
let naming = null; // The attribute that names an item, in this domain.

/** Ask the domain what names its items. A key that may not ask leaves their ids. */
export async function learnNames(credential) {
  naming = await call("serving", "/v1/domain", { credential }).then(
    (domain) => domain.items.name,
    () => null,
  );
}

/** Make the form ask. */
export function install(credential) {
  for (const select of [byId("before"), byId("after")]) {
    select.addEventListener("change", () => (select.dataset.chosen = "yes"));
  }
  byId("viewer-form").addEventListener("submit", async (event) => {
    event.preventDefault();
    const [viewer, before, after] = ["viewer", "before", "after"].map((id) => byId(id).value);
    const path = `/v1/users/${encodeURIComponent(viewer.trim())}/lists?version=${before}&version=${after}&k=10`;
    try {
      show(await call("operator", path, { credential: credential() }));
    } catch (problem) {
      byId("viewer-lists").replaceChildren();
      write(byId("viewer-said"), `No lists: ${problem.message}`);
    }
  });
}

/** Offer versions to choose from: what is served beside the newest other one, until somebody chooses. */
export function offer({ served, models }) {
  const versions = models.filter((each) => !each.purged).map((each) => String(each.version));
  const first = String(served ?? versions[0] ?? "");
  choices(byId("before"), versions, first, served);
  choices(byId("after"), versions, versions.find((each) => each !== first) ?? first, served);
  byId("viewer-button").disabled = versions.length === 0;
}

function choices(select, versions, first, served) {
  const told = versions.map((version) => (version === String(served) ? `${version} (served)` : version));
  if (told.join() === select.dataset.told) return;
  const chosen = select.dataset.chosen && versions.includes(select.value) ? select.value : first;
  select.replaceChildren(
    ...versions.map((version, place) => el("option", { value: version, selected: version === chosen }, told[place])),
  );
  select.dataset.told = told.join();
}

function show({ history, lists: [left, right = left] }) {
  const compared = compare(left.items, right.items);
  write(byId("viewer-said"), `${inShort(history)} ${summary(compared)}`);
  byId("viewer-lists").replaceChildren(column(left, compared.before), column(right, compared.after));
  announce(summary(compared));
}

function inShort(history) {
  if (!history.length) return "No history is known of this viewer.";
  const more = history.length > NEWEST ? ` and ${history.length - NEWEST} more` : "";
  return `Watched last: ${history.slice(0, NEWEST).map(nameOf).join(", ")}${more}.`;
}

function column({ version, served }, entries) {
  const rows = entries.map(({ item, move }) =>
    el("li", { class: move?.kind }, el("span", {}, nameOf(item)), move && mark(move)),
  );
  const title = el("h3", {}, `Version ${version} `, served && el("span", { class: "chip good" }, "● served now"));
  return el(
    "div",
    { class: "column" },
    title,
    rows.length ? el("ol", {}, ...rows) : el("p", { class: "quiet" }, "This version has no list for this viewer."),
  );
}

function mark(move) {
  return el("span", { class: "move" }, `${SIGNS[move.kind]} ${inWords(move)}`);
}

const nameOf = (item) => (naming && item[naming]) || item.item_id;
