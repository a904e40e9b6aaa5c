// Being forgotten, as the erasure's receipt tells it: which stage has signed, and what remains until when.
import { el, moment } from "/web/dom.js";
import { icon } from "/web/icons.js";
import { ask } from "/web/session.js";

const ASK_EVERY_MS = 500;

/**
 * Show how an erasure goes on, until it is complete.
 * @param {string} id of the erasure
 * @param {HTMLElement} place
 * @param {(erasure: object) => void} changed told of each step
 * @throws {Problem}
 */
export async function follow(id, place, changed) {
  let said = -1;
  for (;;) {
    const erasure = await ask("ingest", `/v1/erasures/${encodeURIComponent(id)}`);
    if (erasure.steps.length !== said || erasure.status === "complete") {
      said = erasure.steps.length;
      place.hidden = false;
      place.replaceChildren(...told(erasure));
      changed(erasure);
    }
    if (erasure.status === "complete") return erasure;
    await new Promise((resolve) => setTimeout(resolve, ASK_EVERY_MS));
  }
}

function told({ erasure_id: id, status, opened_at: opened, completed_at: completed, steps, remains }) {
  const done = status === "complete";
  const signed = new Set(steps.map(({ stage }) => stage));
  const open = remains.filter(({ stage }) => !signed.has(stage));
  const left = remains.filter(({ stage }) => signed.has(stage));
  const rows = [
    ...steps.map((step) => line(true, step.what, `${amount(step.removed)}, ${moment(step.at)}`)),
    ...open.map((each) => line(false, each.what, "not yet")),
  ];
  return [
    el("h2", { id: "erasure-title" }, done ? "You are forgotten" : "You are being forgotten"),
    el(
      "p",
      {},
      done
        ? `Asked for ${moment(opened)}, complete ${moment(completed)}.`
        : `Asked for ${moment(opened)}. Each store signs when nothing of you is left in it.`,
    ),
    el("ol", { class: "steps" }, rows),
    ...(left.length
      ? [el("h3", {}, "What remains, and until when"), el("ul", { class: "points" }, left.map(remaining))]
      : []),
    el("p", { class: "small quiet" }, "Erasure ", el("code", {}, id)),
  ];
}

const amount = (removed) => (removed === null ? "ends by itself" : `${removed.toLocaleString()} removed`);

const line = (done, what, detail) =>
  el(
    "li",
    { class: done ? "done" : "" },
    el(
      "span",
      { class: "mark" },
      done ? icon("complete") : "",
      el("span", { class: "unseen" }, done ? "done: " : "open: "),
    ),
    el("span", {}, what),
    el("span", { class: "small quiet" }, detail),
  );

const remaining = ({ what, until, why }) =>
  el("li", {}, `${what}: ${until ? `gone by ${moment(until)}` : "without a date"}; ${why}.`);
