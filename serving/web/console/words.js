// Numbers and times as people read them. A null is a dash: nothing is known, which is not zero.

const DASH = "–";
const three = new Intl.NumberFormat("en", { maximumSignificantDigits: 3 });
const short = new Intl.NumberFormat("en", { maximumSignificantDigits: 3, notation: "compact" });
const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const DAY = { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" };
const UNITS = ["B", "KB", "MB", "GB", "TB"];

const known = (value) => value !== null && value !== undefined && !Number.isNaN(value);

/** To three figures; from ten thousand on with K, M. */
export function number(value) {
  if (!known(value)) return DASH;
  return Math.abs(value) < 10_000 ? three.format(value) : short.format(value);
}

/** All of it: 161,187. */
export const count = (value) => (known(value) ? whole.format(value) : DASH);

export function bytes(value) {
  if (!known(value)) return DASH;
  const power = Math.min(Math.floor(Math.log(Math.max(value, 1)) / Math.log(1000)), UNITS.length - 1);
  return `${three.format(value / 1000 ** power)} ${UNITS[power]}`;
}

/** Seconds, the small ones as milliseconds. */
export function duration(seconds) {
  if (!known(seconds)) return DASH;
  if (seconds < 1) return `${three.format(seconds * 1000)} ms`;
  return seconds < 60 ? `${three.format(seconds)} s` : `${Math.floor(seconds / 60)} min ${Math.round(seconds % 60)} s`;
}

/** The time of day, with seconds. */
export const clock = (at) => new Date(at).toLocaleTimeString("en-GB");

/** Day and time. */
export const dayAndTime = (at) => new Date(at).toLocaleString("en-GB", DAY);

/** Change a text only when it is another one: what has not changed is left alone, by eyes and screen readers. */
export function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}
