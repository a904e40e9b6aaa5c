// "What you hold about me": all that the platform has of who sits here, and the ways to end that.
import { Problem } from "/web/api.js";
import { POLICY, agreed, allow, refusedByBrowser } from "/web/consent.js";
import { el, moment } from "/web/dom.js";
import { label, loadDomain } from "/web/domain.js";
import { follow } from "/web/erasure.js";
import { ask, askRaw, forgetHere, mine, viewer } from "/web/session.js";
import { say } from "/web/toast.js";

const PURPOSES = {
  personalization: "What you do is collected, your rows follow it, and models are trained on it.",
  analytics: "Recorded for the day when figures are made of it. Nothing of this platform collects for it today.",
  research: "Recorded for the day when somebody does research on it. Nothing of this platform collects for it today.",
};
const SETTLE_MS = 1500; // so long a withdrawal takes to reach the lake, usually

const WITHDRAW = {
  title: "Withdraw everything?",
  points: [
    "Nothing of you is collected from then on.",
    "Your history and lists are deleted at once, your rows in the lake after them.",
    "The receipts stay: they prove what you said.",
  ],
  yes: "Withdraw everything",
  no: "Cancel",
};
const FORGET = {
  title: "Forget you, everywhere?",
  points: [
    "All events, lists and histories of you are removed from every store, and the next model is trained without you. " +
      "Where a log removes no single records, you see until when they remain.",
    "This cannot be taken back. Download what you want to keep first.",
    "The receipts stay, under a pseudonym: they prove that you were forgotten. You see each store sign.",
  ],
  yes: "Forget me",
  no: "Cancel",
};

const $ = (id) => document.getElementById(id);
const erasureKey = () => `erasure ${viewer()}`;
const here = { domain: null, names: new Map(), allowed: [], known: false };

// --- showing ---

async function open() {
  if (!viewer()) {
    $("lead").replaceChildren("Nobody is signed in: ", el("a", { href: "/" }, "say who is watching"), " first.");
    return;
  }
  $("who").hidden = $("you").hidden = false;
  $("who-id").textContent = viewer();
  $("lead").textContent = `All that this platform has of ${viewer()}, as it is stored.`;
  await guarded(async () => {
    here.domain ??= await loadDomain();
    await showAll();
    await followErasure();
  });
}

async function showAll() {
  await showConsent();
  await showData();
}

/** Do something, and say what went wrong where it did. */
async function guarded(work) {
  try {
    await work();
    banner(null);
  } catch (problem) {
    if (!(problem instanceof Problem)) throw problem;
    banner(
      problem.code === "opted_out"
        ? refusedByBrowser
        : `${problem.message}${problem.outage ? " Try again in a moment." : ""}`,
    );
  }
}

function banner(text) {
  $("banner").textContent = text ?? "";
  $("banner").hidden = !text;
}

async function showConsent() {
  const { purposes, receipts } = await ask("ingest", mine("/consent"));
  here.allowed = purposes;
  $("allowed").replaceChildren(
    ...Object.entries(PURPOSES).map(([name, text]) => purpose(name, text, purposes.includes(name))),
  );
  $("receipts").replaceChildren(...receipts.map(receiptRow));
  if (!receipts.length) $("receipts").append(nothing(6, "You have never said anything."));
  $("withdraw").disabled = !purposes.length;
  here.known = receipts.length > 0;
}

const purpose = (name, text, on) =>
  el(
    "div",
    { class: "purpose" },
    el(
      "label",
      { class: "switch" },
      el("input", {
        type: "checkbox",
        role: "switch",
        checked: on,
        name,
        "aria-describedby": `about-${name}`,
        onchange: (event) => turn(name, event.target),
      }),
      el("strong", {}, label(name)),
    ),
    el("p", { class: "small quiet", id: `about-${name}` }, text),
  );

const receiptRow = ({ number, at, action, purposes, source, policy_version: policy, hash }) =>
  el(
    "tr",
    {},
    el("td", { class: "number" }, String(number)),
    el("td", {}, moment(at)),
    el(
      "td",
      {},
      el(
        "span",
        { class: `chip ${action === "grant" ? "good" : "bad"}` },
        { grant: "allowed", withdraw: "withdrawn", erase: "forget me" }[action],
      ),
    ),
    el("td", {}, purposes.join(", ") || "none"),
    el("td", {}, `${source} (${policy})`),
    el("td", {}, el("code", { title: hash }, `${hash.slice(0, 12)}…`)),
  );

const nothing = (columns, text) => el("tr", {}, el("td", { colspan: columns, class: "quiet" }, text));

async function showData() {
  const lines = await stored();
  const of = (kind) => lines.filter((line) => line.kind === kind);
  await learnNames();
  const counts = [
    ["Events in the lake", eventsByType(of("event"))],
    ["Acts in your history", of("history").length.toLocaleString()],
    ["Receipts", of("receipt").length.toLocaleString()],
    ["Records that could not be read", of("dead_letter").length.toLocaleString()],
  ];
  $("held").replaceChildren(...counts.flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]));
  $("export").disabled = !lines.length;
  const acts = of("history").sort((one, other) => other.at_ms - one.at_ms);
  $("history").replaceChildren(...acts.map(historyRow));
  if (!acts.length) $("history").append(nothing(3, "Nothing."));
}

/** The export, as objects. Of whom there is no receipt nothing is stored, and there is nothing to ask for. */
async function stored() {
  if (!here.known) return [];
  const text = await (await askRaw("ingest", mine("/data"))).text();
  return text
    .split("\n")
    .filter(Boolean)
    .map((line) => JSON.parse(line));
}

function eventsByType(events) {
  const counts = Map.groupBy(events, (event) => event.type);
  const parts = [...counts].map(([type, each]) => `${each.length.toLocaleString()} × ${label(type).toLowerCase()}`);
  return parts.length ? parts.join(", ") : "0";
}

function historyRow({ at_ms: at, weight, item_id: id }) {
  const type = [...here.domain.weights].find(([, weighs]) => weighs === weight)?.[0];
  return el(
    "tr",
    {},
    el("td", { class: "long" }, here.names.get(id) ?? id),
    el("td", {}, type ? label(type) : `weight ${weight}`),
    el("td", {}, moment(at)),
  );
}

/** What items are called, as far as today's rows name them: no route names one by its id. */
async function learnNames() {
  const home = await ask("serving", mine("/home?k=40")).catch(() => ({ rows: [] }));
  for (const row of home.rows) {
    for (const item of [...row.items, row.because_of].filter(Boolean))
      here.names.set(item.item_id, here.domain.nameOf(item));
  }
}

// --- doing ---

async function turn(name, input) {
  const wanted = here.allowed.filter((purpose) => purpose !== name).concat(input.checked ? [name] : []);
  input.disabled = true;
  await guarded(async () => {
    const receipt = await allow(wanted);
    say(`Receipt ${receipt.number}: ${wanted.length ? `you allow ${wanted.join(", ")}` : "you allow nothing"}.`);
  });
  await showConsent().catch(() => (input.checked = !input.checked));
  input.disabled = false;
  document.querySelector(`#allowed input[name="${name}"]`)?.focus();
}

async function withdraw() {
  if (!(await agreed(WITHDRAW))) return;
  await guarded(async () => {
    const receipt = await allow([]);
    say(`Receipt ${receipt.number}: withdrawn. What was collected is being deleted.`);
    await showConsent();
    await new Promise((resolve) => setTimeout(resolve, SETTLE_MS));
    await showData();
  });
}

async function forget() {
  if (!(await agreed(FORGET))) return;
  await guarded(async () => {
    const erasure = await ask("ingest", mine(`?${new URLSearchParams(POLICY)}`), { method: "DELETE" });
    sessionStorage.setItem(erasureKey(), erasure.erasure_id);
    sessionStorage.removeItem(`visit ${viewer()}`);
    forgetHere(viewer());
    await showConsent();
    await followErasure();
  });
}

async function followErasure() {
  const id = sessionStorage.getItem(erasureKey());
  if (!id) return;
  const done = await follow(
    id,
    $("erasure"),
    ({ steps }) => steps.length && say(`${steps.length} of the stores have forgotten you.`),
  );
  say(`You are forgotten: ${done.steps.length} stores have signed.`);
  await showAll();
}

async function save() {
  await guarded(async () => {
    const content = await (await askRaw("ingest", mine("/data"))).blob();
    const address = URL.createObjectURL(content);
    el("a", { href: address, download: `${viewer()}.ndjson` }).click();
    URL.revokeObjectURL(address);
    say("Downloaded: one JSON object a line. “marquee load export” takes it into another platform.");
  });
}

$("export").addEventListener("click", save);
$("withdraw").addEventListener("click", withdraw);
$("forget").addEventListener("click", forget);
addEventListener("pageshow", (shown) => shown.persisted && open());
open();
