// What is wrong now, and what to do: rules over what was read. docs/console.md lists them. Nothing here knows a page.

import { total } from "./figures.js";

const RECENT_MS = 30_000;
const FAILING_MS = 15_000; // Longer than a pause between two tries.
const BEHIND_RECORDS = 1_000;
const FRESH_SECONDS = 1; // The service level of freshness_p99_ms.
const OLD_VERSION_POINTS = 5;
const FAILED_READS = 0.05; // Of lists.

const SILENT = {
  ingest: "No event and no consent is taken.",
  lander: "Accepted events wait in the log; none is lost.",
  nearline: "Lists do not learn, and live lists and histories of people who withdraw stay until it is back.",
  trainer: "Nothing is retrained, and published lists of people who withdraw stay until it is back.",
  serving: "Viewers get no lists.",
};
const RESTARTS = "`marquee up` starts it again by itself; its lines in that terminal say why it ended.";

const NO_REDIS = bad(
  "redis",
  "Redis does not answer",
  "Ingest refuses with 503; viewers get the popular list from memory. Nothing that was accepted is lost.",
);
const DEAD_LETTERS = warn(
  "dead-letters",
  "Records could not be landed, in the last 15 minutes",
  "`marquee dead-letters list` shows them; they can be put right and replayed.",
);
const FAILING = [
  bad("landerFailures", "The lander puts batches off", "Accepted events wait in the log; none is lost."),
  warn("nearlineWaits", "Nearline waits for a store", "Lists do not learn from new events until it answers."),
  bad("readErrors", "Serving cannot read lists", "Viewers get the popular list from memory."),
];
const TURNED_AWAY = bad(
  "turned-away",
  "Serving turns requests away",
  "More came than one process answers (503). Run more of them, or find who asks so much.",
);

/** Findings, the worst first: {id, level ("bad" or "warn"), what, help}. An id stays the same while a finding lasts. */
export function findings({ reading, points, training, models }) {
  // What an outage of Redis takes with it is not said again.
  const alone = reading !== null && !reading.redis;
  const found = [
    ...silentProcesses(reading),
    ...(alone ? [NO_REDIS] : [...failing(points), ...behind(points), ...slow(points), ...oldVersion(points, models)]),
    ...(points.some((point) => point.landed?.dead_letters > 0) ? [DEAD_LETTERS] : []),
    ...lastTraining(training),
  ];
  return found.sort((a, b) => (a.level === b.level ? 0 : a.level === "bad" ? -1 : 1));
}

function silentProcesses(reading) {
  return (reading?.silent ?? []).map((name) =>
    bad(`silent-${name}`, `${name} does not answer`, `${SILENT[name] ?? ""} ${RESTARTS}`),
  );
}

function failing(points) {
  const recent = lately(points, FAILING_MS);
  const sum = (figure) => recent.reduce((all, point) => all + (total(point[figure]) ?? 0), 0);
  // A read that fails now and then is what the ladder of tiers is for.
  const least = (figure) => (figure === "readErrors" ? FAILED_READS * sum("lists") : 0);
  const named = (figure) => {
    const grown = recent.flatMap((point) => Object.entries(point[figure] ?? {}).filter(([, rate]) => rate > 0));
    return [...new Set(grown.map(([label]) => label))].join(", ");
  };
  const found = FAILING.filter(({ id }) => sum(id) > least(id));
  const turnedAway = recent.some((point) => point.refused?.["503"] > 0);
  return [
    ...found.map((each) => ({ ...each, help: `${each.help} It names ${named(each.id)}.` })),
    ...(turnedAway ? [TURNED_AWAY] : []),
  ];
}

function behind(points) {
  const recent = lately(points);
  const [first, last] = [recent[0], recent.at(-1)];
  // A burst is no trouble as long as what waits gets less.
  if (!last || last.at - first.at < RECENT_MS / 2) return [];
  return Object.entries(last.lag ?? {})
    .filter(([group, records]) => records > BEHIND_RECORDS && records >= (first.lag?.[group] ?? 0))
    .map(([group]) =>
      warn(
        `behind-${group}`,
        `The ${group} is behind, and not catching up`,
        `More than ${BEHIND_RECORDS} records of the log wait for it. It may be slow, or come back from a stop.`,
      ),
    );
}

function slow(points) {
  const measured = lately(points)
    .map((point) => point.freshness?.p99)
    .filter((p99) => p99 != null);
  const over = measured.filter((p99) => p99 > FRESH_SECONDS);
  if (measured.length < 3 || over.length * 2 <= measured.length) return [];
  return [
    warn(
      "slow",
      "Lists learn late from events",
      "The slowest hundredth waits longer than 1 s, the service level. Look at the log lag of nearline.",
    ),
  ];
}

function oldVersion(points, models) {
  const last = points.slice(-OLD_VERSION_POINTS);
  const other = last.filter((point) => point.serves !== null && point.serves !== models?.served);
  if (!models?.served || other.length < OLD_VERSION_POINTS) return [];
  const help = "It takes a version over within a second or two; its log lines say why it does not.";
  return [bad("old-version", `Serving does not serve version ${models.served}`, help)];
}

function lastTraining(training) {
  if (training?.last?.result !== "failed") return [];
  return [warn("training", "The last training run failed", training.last.reason ?? "The trainer's log lines say why.")];
}

/** The points of the last so many milliseconds. */
function lately(points, span = RECENT_MS) {
  const now = points.at(-1)?.at ?? 0;
  return points.filter((point) => point.at > now - span);
}

function bad(id, what, help) {
  return { id, level: "bad", what, help };
}

function warn(id, what, help) {
  return { id, level: "warn", what, help };
}
