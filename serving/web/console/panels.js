// The figures of a platform at work: one panel each, with a chart and the same in words.

import { TimeChart, swatch } from "./charts.js";
import { bytes, clock, count, duration, number, write } from "./words.js";
import { el } from "/web/dom.js";

const PANELS = [
  {
    id: "events",
    title: "Events a second",
    hint: "by verdict",
    keys: ["accepted", "consent_missing"],
    of: (point) => point.events,
    format: number,
  },
  {
    id: "lag",
    title: "Log lag",
    hint: "records a group has not read",
    keys: ["lander", "nearline", "trainer"],
    of: (point) => point.lag,
    format: number,
  },
  {
    id: "landed",
    title: "Rows landed a second",
    hint: "by table of the lake",
    keys: ["events", "items"],
    of: (point) => point.landed,
    format: number,
    aside: (reading) => `${count(reading.landedRows)} events in the lake`,
  },
  {
    id: "freshness",
    title: "Freshness",
    hint: "from event to changed list",
    keys: ["p50", "p99"],
    of: (point) => point.freshness,
    format: duration,
  },
  {
    id: "lists",
    title: "Lists a second",
    hint: "by tier",
    keys: ["live", "personal", "popular", "static"],
    of: (point) => point.lists,
    format: number,
  },
  {
    id: "answering",
    title: "Time of an answer",
    hint: "inside serving",
    keys: ["p50", "p99"],
    of: (point) => point.answering,
    format: duration,
  },
  {
    id: "redis",
    title: "Redis, bytes a person",
    hint: "of a sample",
    keys: ["list", "live", "history"],
    of: (point) => point.redis?.bytes_a_person,
    format: bytes,
    stacked: true,
    aside: memory,
  },
];

/** All panels, before the element `next`. */
export class Panels {
  constructor(next) {
    this.panels = PANELS.map((spec) => new Panel(spec, next));
  }

  /**
   * @param points bounded, the oldest first
   * @param reading the last one
   * @param now milliseconds, by the platform's clock
   * @param silent whether nobody tells how it is now
   */
  show(points, reading, now, silent) {
    for (const panel of this.panels) panel.show(points, reading, now, silent);
  }
}

class Panel {
  constructor(spec, next) {
    this.spec = spec;
    this.keys = spec.keys;
    this.values = new Map();
    this.hint = el("span", { class: "quiet small hint" }, spec.hint);
    this.aside = el("p", { class: "quiet small aside" });
    this.legend = el("ul", { class: "legend" });
    this.canvas = el("canvas", { role: "img", "aria-label": `${spec.title}: nothing measured yet` });
    const title = el("h3", { id: `${spec.id}-title` }, spec.title, " ", this.hint);
    const chart = el("div", { class: "chart" }, this.canvas);
    this.section = el(
      "section",
      { class: "card panel", id: spec.id, "aria-labelledby": `${spec.id}-title` },
      title,
      chart,
      this.legend,
      this.aside,
    );
    next.before(this.section);
    this.chart = new TimeChart(this.canvas, spec.format, spec);
    this.#legend();
  }

  show(points, reading, now, silent) {
    const { of, aside } = this.spec;
    this.#meet(points.at(-1));
    this.chart.show(
      points.map((point) => ({ at: point.at, values: of(point) })),
      this.keys,
      now,
    );
    const known = points.findLast((point) => of(point));
    const old = known !== undefined && (silent || known !== points.at(-1));
    for (const element of [this.section, this.hint]) element.classList.toggle("is-old", old);
    write(this.hint, old ? `old: figures of ${clock(known.at)}` : this.spec.hint); // Where the hint was: nothing moves.
    for (const key of this.keys) write(this.values.get(key), this.#inFigures(known && of(known)[key], known));
    if (reading && aside) write(this.aside, aside(reading));
    this.canvas.setAttribute("aria-label", this.#inWords(points, old));
  }

  /** A counter that has counted nothing is not there yet: that is 0. Null is not: nobody knows, or nothing was seen. */
  #inFigures(value, known) {
    return this.spec.format(known && value === undefined ? 0 : value);
  }

  /** Take a label in that is met for the first time. */
  #meet(point) {
    const met = Object.keys((point && this.spec.of(point)) ?? {}).filter(
      (key) => !this.keys.includes(key) && key !== "total",
    );
    if (!met.length) return;
    this.keys = [...this.keys, ...met];
    this.#legend();
  }

  #legend() {
    this.values.clear();
    this.legend.replaceChildren(...this.keys.map((key, index) => this.#entry(key, index)));
  }

  #entry(key, index) {
    const value = el("span", { class: "value" }, "–");
    this.values.set(key, value);
    return el("li", {}, swatch(index), `${key.replaceAll("_", " ")} `, value);
  }

  #inWords(points, old) {
    const { title, of, format } = this.spec;
    const each = this.keys.map((key) => {
      const values = points.map((point) => of(point)?.[key]).filter((value) => value != null);
      return values.length
        ? `${key} ${format(values.at(-1))}, at most ${format(Math.max(...values))}`
        : `${key} nothing`;
    });
    return `${title}, last 15 minutes${old ? ", old" : ""}: ${each.join("; ")}`;
  }
}

function memory({ redis }) {
  if (!redis) return "Redis does not answer";
  return `${bytes(redis.bytes_a_person?.total)} a person in all, ${count(redis.people)} people; ${bytes(redis.used_bytes)} used`;
}
