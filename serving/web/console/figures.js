// What two polls say: rates, quantiles, and a bounded memory of them. Nothing here knows a page or a clock.

export const POLL_MS = 2_000;
export const WINDOW_MS = 15 * 60_000;
export const MOST_POINTS = WINDOW_MS / POLL_MS + 1;
export const GAP_MS = 5 * POLL_MS;

// name of the figure → [process, metric, label]
const COUNTERS = {
  events: ["ingest", "marquee_events_total", "verdict"],
  landed: ["lander", "marquee_landed_rows_total", "table"],
  landerFailures: ["lander", "marquee_lander_failures_total", "cause"],
  nearlineWaits: ["nearline", "marquee_nearline_waits_total", "error"],
  lists: ["serving", "marquee_recommendations_total", "tier"],
  refused: ["serving", "marquee_recommendations_refused_total", "status"],
  readErrors: ["serving", "marquee_list_read_errors_total", "error"],
};
const HISTOGRAMS = {
  freshness: ["nearline", "marquee_freshness_seconds"],
  answering: ["serving", "marquee_recommendation_seconds"],
};

/** What a counter grew by. Lower than before: its process began again at 0, and all of it is new. */
export function growth(before, after) {
  return after < before ? after : after - before;
}

/** Growth a second, by label. A label that was not there before was 0: counters appear with their first count. */
export function rates(before, after, seconds) {
  const rate = ([label, value]) => [label, growth(before[label] ?? 0, value) / seconds];
  return Object.fromEntries(Object.entries(after).map(rate));
}

/** Cumulative buckets, [upper bound, count], of what was observed between two polls. */
export function bucketsBetween(before, after) {
  const earlier = new Map(before);
  const restarted = after.some(([bound, count]) => count < (earlier.get(bound) ?? 0));
  return restarted ? after : after.map(([bound, count]) => [bound, count - (earlier.get(bound) ?? 0)]);
}

/** A quantile as Prometheus estimates it: linear within a bucket; beyond the last bound, that bound. Null: nothing seen. */
export function quantile(buckets, q) {
  const total = buckets.at(-1)?.[1] ?? 0;
  if (total <= 0) return null;
  const rank = q * total;
  const at = buckets.findIndex(([, count]) => count >= rank);
  const [low, under] = at > 0 ? buckets[at - 1] : [0, 0];
  const [high, upTo] = buckets[at];
  return Number.isFinite(high) ? low + ((high - low) * (rank - under)) / (upTo - under) : low;
}

/** What one answer of GET /v1/operations holds, by figure. Null: its process did not answer. */
export function read(operations) {
  const answers = new Set(operations.processes.filter((each) => each.answers).map((each) => each.name));
  const reading = { at: Date.parse(operations.at), lag: operations.lag, redis: operations.redis };
  reading.landedRows = operations.landed_rows;
  reading.silent = operations.processes.filter((each) => !each.answers).map((each) => each.name);
  for (const [figure, [process, metric, label]] of Object.entries(COUNTERS)) {
    reading[figure] = answers.has(process) ? byLabel(operations.samples, metric, label) : null;
  }
  for (const [figure, [process, metric]] of Object.entries(HISTOGRAMS)) {
    reading[figure] = answers.has(process) ? asBuckets(byLabel(operations.samples, `${metric}_bucket`, "le")) : null;
  }
  reading.serves =
    byLabel(
      operations.samples.filter((each) => each.process === "serving"),
      "marquee_version",
      "",
    )[""] ?? null;
  return reading;
}

function byLabel(samples, metric, label) {
  const sums = {};
  for (const { name, labels, value } of samples) {
    if (name === metric) sums[labels[label] ?? ""] = (sums[labels[label] ?? ""] ?? 0) + value;
  }
  return sums;
}

function asBuckets(counts) {
  const bound = (le) => (le === "+Inf" ? Infinity : Number(le));
  return Object.entries(counts)
    .map(([le, count]) => [bound(le), count])
    .sort(([a], [b]) => a - b);
}

/** The point that two readings give. Rates are null where a process was silent at either, or too long lies between. */
export function pointBetween(before, after) {
  const elapsed = before ? after.at - before.at : Infinity;
  const point = { at: after.at, lag: after.lag, redis: after.redis, serves: after.serves };
  const both = (figure, make) =>
    elapsed <= GAP_MS && before[figure] && after[figure] ? make(before[figure], after[figure]) : null;
  for (const figure of Object.keys(COUNTERS)) {
    point[figure] = both(figure, (earlier, later) => rates(earlier, later, elapsed / 1000));
  }
  for (const figure of Object.keys(HISTOGRAMS)) point[figure] = both(figure, quantilesBetween);
  return point;
}

function quantilesBetween(before, after) {
  const buckets = bucketsBetween(before, after);
  return { p50: quantile(buckets, 0.5), p99: quantile(buckets, 0.99) };
}

/** Add a point, and forget what is older than the window: however long the page is open, it holds no more than that. */
export function remember(points, point) {
  points.push(point);
  const first = points.findIndex((each) => each.at > point.at - WINDOW_MS);
  points.splice(0, Math.max(first, points.length - MOST_POINTS));
}

/** The sum over all labels of a point's figure; null where it has none. */
export function total(byLabel) {
  return byLabel && Object.values(byLabel).reduce((sum, value) => sum + value, 0);
}
