// What the page asks again and again, each at its own pace; it stops while nobody looks, and never stops for an outage.

import { call } from "/web/api.js";

const PATIENCE_MS = 5_000;
const MORE_PATIENCE_MS = 20_000; // For what is asked rarely: the registry takes its time to open.

/** One GET, repeated. After each turn `changed(feed)` is called, whether or not there was an answer. */
export class Feed {
  /**
   * @param {"operator"|"ingest"} edge which API
   * @param {string} path from /v1 on
   * @param {number} everyMs pause between an answer and the next question
   * @param {(feed: Feed) => void} changed
   */
  constructor(edge, path, everyMs, changed) {
    Object.assign(this, { edge, path, everyMs, changed });
    this.answer = null; // The last one: an outage does not take it away.
    this.answeredAt = null; // By this machine's clock, as is silentSince.
    this.silentSince = null;
    this.problem = null;
    document.addEventListener("visibilitychange", () => this.now());
  }

  start(credential) {
    this.credential = credential;
    this.now();
  }

  /** Ask at once. Where a question is under way, another one follows it: that one may be too old to know. */
  async now() {
    this.again = true;
    if (this.asking) return;
    this.asking = true;
    clearTimeout(this.timer);
    try {
      while (this.again && this.credential && !document.hidden) {
        this.again = false;
        await this.#ask();
      }
    } finally {
      this.asking = false;
      if (this.credential && !document.hidden) this.timer = setTimeout(() => this.now(), this.everyMs);
    }
  }

  async #ask() {
    try {
      this.answer = await call(this.edge, this.path, {
        credential: this.credential,
        patience: this.everyMs > PATIENCE_MS ? MORE_PATIENCE_MS : PATIENCE_MS,
      });
      this.answeredAt = Date.now();
      this.silentSince = this.problem = null;
    } catch (problem) {
      this.silentSince ??= this.answeredAt ?? Date.now();
      this.problem = problem;
    }
    this.changed(this);
  }
}
