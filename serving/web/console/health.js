// First what is wrong: findings, the worst first, each with what to do; then which processes answer.

import { clock, write } from "./words.js";
import { announce, el } from "/web/dom.js";

const byId = (id) => document.getElementById(id);
const shown = new Map(); // id of a finding → its element
const chips = new Map();

/** Show findings. Elements stay while a finding lasts; what is new is said once to who listens. */
export function showFindings(found) {
  byId("all-well").hidden = found.length > 0;
  const ids = new Set(found.map((each) => each.id));
  for (const [id, element] of shown) {
    if (ids.has(id)) continue;
    element.remove();
    shown.delete(id);
  }
  const fresh = found.filter((each) => !shown.has(each.id));
  for (const each of fresh) shown.set(each.id, finding(each));
  const list = byId("findings");
  for (const [place, each] of found.entries()) {
    const element = shown.get(each.id);
    write(element.querySelector("strong"), each.what);
    say(element.querySelector("p"), each.help);
    if (list.children[place] !== element) list.insertBefore(element, list.children[place] ?? null);
  }
  if (fresh.length) announce(fresh.map((each) => each.what).join(". "));
  document.title = found.length ? `(${found.length}) Console · Marquee` : "Console · Marquee";
}

function finding({ level }) {
  const word = level === "bad" ? "Wrong" : "Look";
  return el(
    "li",
    { class: `banner ${level}` },
    el("span", { class: `chip ${level}` }, word),
    el("div", {}, el("strong"), el("p", { class: "small" })),
  );
}

/** A text in which commands stand between backticks. */
function say(element, text) {
  if (element.textContent === text.replaceAll("`", "")) return;
  element.replaceChildren(...text.split("`").map((part, place) => (place % 2 ? el("code", {}, part) : part)));
}

/** Which processes answer, as chips that stay where they are. `silent`: nobody tells. */
export function showProcesses(processes, silent) {
  for (const { name, answers } of processes) {
    if (!chips.has(name)) {
      chips.set(name, el("li", { class: "chip" }));
      byId("processes").append(chips.get(name));
    }
    const chip = chips.get(name);
    const [word, sign, kind] = silent ? [" not known", "?", ""] : answers ? ["", "✓", "good"] : [" silent", "✗", "bad"];
    chip.className = `chip ${kind}`;
    write(chip, `${sign} ${name}${word}`);
  }
}

/** Of when the figures are. */
export function showAge(feed) {
  const line = byId("age");
  line.classList.toggle("is-old", Boolean(feed.silentSince));
  if (!feed.silentSince) write(line, `Figures of ${clock(feed.answeredAt)}, every 2 s`);
  else
    write(
      line,
      feed.answeredAt
        ? `Old: figures of ${clock(feed.answeredAt)}. Asked again every 2 s`
        : "No answer yet. Asked again every 2 s",
    );
}

/** Say of a section that it is old, where its feed gets no answer. Its hint makes room: nothing moves. */
export function markOld(id, feed) {
  const section = byId(id);
  const hint = section.querySelector(".hint");
  hint.dataset.hint ??= hint.textContent;
  const old = Boolean(feed.problem && feed.answeredAt);
  for (const element of [section, hint]) element.classList.toggle("is-old", old);
  write(hint, old ? `old: as of ${clock(feed.answeredAt)}` : hint.dataset.hint);
}

/** What a feed that gets no answer means, as a finding; none where it does. */
export function silentFeed(feed, id, who, help) {
  if (!feed.silentSince) return [];
  const told = feed.problem.status ? `${who} answers with an error: ${feed.problem.message}` : `${who} does not answer`;
  return [{ id, level: "bad", what: `${told}, since ${clock(feed.silentSince)}`, help }];
}
