// A training run: asked for, followed phase by phase, and what came of it.

import { clock, dayAndTime, duration, write } from "./words.js";
import { call } from "/web/api.js";
import { announce, el } from "/web/dom.js";

const byId = (id) => document.getElementById(id);
const STATES = {
  idle: "No run is under way.",
  asked: "A run is asked for; the schedule starts it in a moment.",
  running: "A run is under way.",
};

const WORDS = {
  published: "published",
  refused: "the gate refused it",
  data_refused: "the data was not fit to train on",
  failed: "failed",
};
const NO_SCHEDULE = " No schedule is running that would start one: see marquee train --schedule.";

/** Make the button ask for a run; `feed` is asked at once what came of it. */
export function install(credential, feed) {
  const button = byId("train");
  button.addEventListener("click", async () => {
    button.disabled = true;
    write(byId("training-said"), "");
    try {
      await call("operator", "/v1/training", { method: "POST", credential: credential() });
      announce("A training run is asked for.");
    } catch (problem) {
      write(byId("training-said"), `Not started: ${problem.message}`);
    }
    await feed.now();
  });
}

/** Show an answer of GET /v1/training. */
export function show(training, old, now) {
  byId("train").disabled = old || training.state !== "idle" || !training.schedule;
  write(byId("training-state"), STATES[training.state] + (training.schedule ? "" : NO_SCHEDULE));
  showRun(training.run, now);
  showLast(training.last);
}

function showRun(run, now) {
  byId("run").hidden = !run;
  if (!run) return;
  const seconds = Math.max(0, Math.round((now - Date.parse(run.started_at)) / 1000));
  write(byId("run-since"), `Since ${clock(run.started_at)}, ${duration(seconds)} so far`);
  const steps = [...run.phases.map(({ name, seconds }) => [name, duration(seconds), "done"])];
  if (run.phase) steps.push([run.phase, run.detail ?? "…", "now"]);
  const list = byId("phases");
  while (list.children.length > steps.length) list.lastChild.remove();
  for (const [place, [name, said, state]] of steps.entries()) {
    if (!list.children[place])
      list.append(el("li", {}, el("span", { class: "name" }), " ", el("span", { class: "said" })));
    const item = list.children[place];
    item.className = state;
    if (state === "now") item.setAttribute("aria-current", "step");
    else item.removeAttribute("aria-current");
    write(item.querySelector(".name"), name.replaceAll("_", " "));
    write(item.querySelector(".said"), said);
  }
}

function showLast(last) {
  const line = byId("last-run");
  if (!last) {
    write(line, "No run has ended yet.");
    return;
  }
  const version = last.version ? `, version ${last.version}` : "";
  write(line, `Last run, ended ${dayAndTime(last.finished_at)}: ${WORDS[last.result] ?? last.result}${version}.`);
  const reasons = byId("last-reasons");
  if (reasons.dataset.of === last.reason) return;
  reasons.dataset.of = last.reason;
  reasons.replaceChildren(...last.reason.split("; ").map((reason) => el("li", {}, reason)));
}
