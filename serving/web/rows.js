// The rows of the home page: posters that stay where they are while rows change around them.
import { el } from "/web/dom.js";
import { label } from "/web/domain.js";
import { icon } from "/web/icons.js";
import { art } from "/web/posters.js";

const STEPS = { ArrowLeft: -1, ArrowRight: 1 };
const LEAPS = { ArrowUp: -1, ArrowDown: 1 };
const LONG = 44; // letters of a title from which on it is set smaller
const VERY_LONG = 90;

export class Rows {
  /**
   * @param {HTMLElement} place where they stand
   * @param {import("/web/domain.js").Domain} domain
   * @param {{act: (type: string, item: object, row: object, card: HTMLElement) => void,
   *          why: (item: object, row: object) => void, shown: (card: HTMLElement) => void}} told
   */
  constructor(place, domain, told) {
    this.place = place;
    this.domain = domain;
    this.told = told;
    this.sections = new Map(); // key of a row → its section
    place.addEventListener("keydown", (event) => this.#move(event));
    place.addEventListener("focusin", (event) => this.#stop(event.target.closest(".slot")));
  }

  /**
   * Show these rows; what was not in its row before is marked as new, if anything was.
   * @param {object[]} rows
   * @param {boolean} still what is marked stays so: this is the rest of the same change
   * @returns {number} how many are marked
   */
  show(rows, still) {
    const first = this.sections.size === 0;
    const hold = this.#anchor();
    const sections = rows.map((row) => this.#section(row));
    rows.forEach((row, at) =>
      this.#fill(sections[at], row, (slot, isNew) => !first && (isNew || (still && isMarked(slot)))),
    );
    const keys = new Set(rows.map((row) => row.key));
    for (const key of this.sections.keys()) if (!keys.has(key)) this.sections.delete(key);
    place(this.place, sections);
    hold();
    return this.place.querySelectorAll(".fresh").length;
  }

  clear() {
    this.sections.clear();
    this.place.replaceChildren();
  }

  // --- what stands where ---

  #section(row) {
    const found = this.sections.get(row.key);
    if (found) return found;
    const id = `row-${crypto.getRandomValues(new Uint32Array(1))[0]}`;
    const reel = el("ul", { class: "reel", role: "list" });
    const turn = (text, by) =>
      el(
        "button",
        {
          class: `turn ${by < 0 ? "back" : "on"}`,
          type: "button",
          tabindex: "-1",
          "aria-hidden": "true",
          onclick: () => reel.scrollBy({ left: by * reel.clientWidth * 0.85, behavior: "smooth" }),
        },
        text,
      );
    const head = el("div", { class: "row-head" }, el("h2", { id }), el("span", { class: "tier quiet small" }));
    const section = el(
      "section",
      { class: "row", "aria-labelledby": id },
      head,
      el("div", { class: "window" }, turn("‹", -1), reel, turn("›", 1)),
    );
    this.sections.set(row.key, section);
    return section;
  }

  #fill(section, row, marks) {
    section.querySelector("h2").textContent = row.title;
    section.querySelector(".tier").textContent = row.said;
    const reel = section.querySelector("ul");
    const there = new Map([...reel.querySelectorAll(".slot")].map((slot) => [slot.item.item_id, slot]));
    const focused = reel.contains(document.activeElement) ? document.activeElement.closest(".slot") : null;
    const at = focused ? [...reel.children].indexOf(focused) : -1;
    const slots = row.items.map((item) => {
      const slot = there.get(item.item_id) ?? this.#slot(item);
      const marked = marks(slot, !there.has(item.item_id));
      slot.classList.toggle("fresh", marked);
      slot.querySelector(".new").hidden = !marked;
      return Object.assign(slot, { item, row });
    });
    place(reel, slots.length ? slots : [emptyRow()]);
    this.#keepOneStop(reel, at);
    slots.forEach((slot) => this.told.shown(slot));
  }

  #slot(item) {
    const { domain } = this;
    const name = domain.nameOf(item);
    const kinds = domain.categoriesOf(item);
    const size = name.length > VERY_LONG ? "tiny" : name.length > LONG ? "smaller" : "";
    const slot = el("li", { class: "slot" });
    const act = (type) => () => this.told.act(type, slot.item, slot.row, slot);
    const poster = el(
      "button",
      { class: "poster", type: "button", onclick: act(domain.main) },
      art(name, kinds),
      el("span", { class: "unseen" }, `${label(domain.main)} `),
      el(
        "span",
        { class: "plate" },
        el("span", { class: `name ${size}` }, name),
        el("span", { class: "kinds" }, kinds.slice(0, 2).join(" · ")),
      ),
      el("span", { class: "go", "aria-hidden": "true" }, icon(domain.main) ?? label(domain.main)),
      el("span", { class: "new", hidden: true }, "New"),
    );
    const small = (type, said, what) =>
      el(
        "button",
        {
          class: "small-act",
          type: "button",
          "aria-label": `${said}: ${name}`,
          title: said,
          dataset: { act: type },
          onclick: what,
        },
        icon(type) ?? said,
      );
    const acts = domain.others.map((type) => small(type, label(type), act(type)));
    const why = small("why", "Why am I seeing this", () => this.told.why(slot.item, slot.row));
    slot.append(poster, el("div", { class: "acts" }, acts, why));
    return slot;
  }

  // --- nothing jumps ---

  /** Remembers where the row is that is being used; returns what puts it back there, on the screen. */
  #anchor() {
    const used = document.activeElement?.closest?.(".row");
    const key = [...this.sections].find(([, section]) => section === used)?.[0];
    const before = used?.getBoundingClientRect().top;
    return () => {
      const after = key === undefined ? undefined : this.sections.get(key)?.getBoundingClientRect().top;
      if (after !== undefined) scrollBy({ top: after - before, behavior: "instant" });
    };
  }

  // --- the keyboard: Tab stops once a row, arrows go along it ---

  #keepOneStop(reel, lostAt) {
    const slots = [...reel.querySelectorAll(".slot")];
    const had = slots.find((slot) => slot.classList.contains("stop"));
    const stop = had ?? slots[Math.max(0, Math.min(lostAt, slots.length - 1))];
    for (const slot of slots) setStop(slot, slot === stop);
    if (lostAt >= 0 && !reel.contains(document.activeElement))
      stop?.querySelector(".poster").focus({ preventScroll: true });
  }

  #stop(slot) {
    if (!slot) return;
    for (const other of slot.parentElement.children) setStop(other, other === slot);
  }

  #move(event) {
    const slot = event.target.closest(".slot");
    if (!slot || event.altKey || event.ctrlKey || event.metaKey) return;
    const next = this.#next(slot, event.key);
    if (!next) return;
    event.preventDefault();
    next.querySelector(".poster").focus({ preventScroll: true });
    next.scrollIntoView({ block: "nearest", inline: "nearest" });
  }

  #next(slot, key) {
    const along = [...slot.parentElement.children];
    if (key in STEPS) return along[along.indexOf(slot) + STEPS[key]];
    if (key === "Home") return along[0];
    if (key === "End") return along.at(-1);
    if (!(key in LEAPS)) return undefined;
    const stops = [...this.place.querySelectorAll(".slot.stop")]; // one a row, and none where nothing stands
    const here = stops.findIndex((stop) => stop.closest(".row") === slot.closest(".row"));
    return stops[here + LEAPS[key]];
  }
}

/** Leave these children and no others, in this order, and touch those only that move: what has the focus keeps it. */
function place(parent, children) {
  children.forEach((child, at) => {
    if (parent.children[at] !== child) parent.insertBefore(child, parent.children[at] ?? null);
  });
  for (const left of [...parent.children].slice(children.length)) left.remove();
}

const isMarked = (slot) => slot.classList.contains("fresh");

function emptyRow() {
  const ghosts = Array.from({ length: 12 }, () => el("span", { class: "ghost", "aria-hidden": "true" }));
  return el(
    "li",
    { class: "slot-note" },
    ghosts,
    el("span", { class: "said" }, "Pick something: this row will follow it."),
  );
}

function setStop(slot, is) {
  slot.classList.toggle("stop", is);
  for (const button of slot.querySelectorAll("button")) button.tabIndex = is ? 0 : -1;
}
