// What a viewer does, sent as events: acts one by one, showings in small batches. Nothing is sent without consent.
import { ask, viewer } from "/web/session.js";

const SEEN_MS = 600; // so long at least half of a poster has to be in view
const EVERY_MS = 4000;
const MOST_AT_ONCE = 20; // acts and showings share the quota of a person's token

const randomId = () =>
  [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");

/** An event about an item, as it is sent; sent again it keeps its id and counts once. */
export function event(type, item, row) {
  return {
    event_id: randomId(),
    type,
    user_id: viewer(),
    item_id: item.item_id,
    occurred_at: new Date().toISOString(),
    recommendation_id: row.recommendation_id,
  };
}

/** Send events. @throws {Problem} what was not taken; `no_event_accepted` has the verdicts. */
export const sendEvents = (events, options) =>
  ask("ingest", "/v1/events", { method: "POST", body: { events }, ...options });

/** Notes which posters were really seen, and sends that while `allowed`. */
export class Showings {
  #waiting = [];
  #noted = new Set();
  #timers = new Map();

  /** @param {string|undefined} type of event; undefined: the domain has none. @param {() => boolean} allowed */
  constructor(type, allowed) {
    this.type = type;
    this.allowed = allowed;
    this.observer = new IntersectionObserver((entries) => entries.forEach((entry) => this.#look(entry)), {
      threshold: 0.5,
    });
    if (!type) return;
    setInterval(() => this.flush(), EVERY_MS);
    document.addEventListener(
      "visibilitychange",
      () => document.visibilityState === "hidden" && this.flush({ keepalive: true }),
    );
  }

  watch(slot) {
    this.observer.observe(slot);
  }

  /** Somebody else sits here now. */
  reset() {
    this.#waiting = [];
    this.#noted.clear();
  }

  #look({ target, isIntersecting }) {
    clearTimeout(this.#timers.get(target));
    this.#timers.delete(target);
    if (isIntersecting)
      this.#timers.set(
        target,
        setTimeout(() => this.#note(target), SEEN_MS),
      );
  }

  /** A poster counts as shown once a visit and row, however often the row is loaded again. */
  #note({ item, row }) {
    const key = `${row.key} ${item.item_id}`;
    if (!this.type || !this.allowed() || this.#noted.has(key)) return;
    this.#noted.add(key);
    this.#waiting.push(event(this.type, item, row));
  }

  async flush(options = {}) {
    if (!this.allowed()) this.#waiting = []; // consent ended: what was noted under it goes
    const batch = this.#waiting.splice(0, MOST_AT_ONCE);
    if (!batch.length) return;
    await sendEvents(batch, options).catch((problem) => {
      if (problem.outage || problem.status === 429) this.#waiting.unshift(...batch); // later; they keep their ids
    });
  }
}
