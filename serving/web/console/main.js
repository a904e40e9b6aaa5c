// The operator's page: signs in, asks the operator's API and ingest every few seconds, and shows what they say.

import { recolour } from "./charts.js";
import { Feed } from "./feeds.js";
import { POLL_MS, pointBetween, read, remember } from "./figures.js";
import { findings } from "./findings.js";
import { markOld, showAge, showFindings, showProcesses, silentFeed } from "./health.js";
import { Models } from "./models.js";
import { Panels } from "./panels.js";
import * as people from "./people.js";
import * as training from "./training.js";
import * as viewers from "./viewers.js";
import { write } from "./words.js";
import { ORIGINS, call } from "/web/api.js";

const SLOWLY_MS = 10_000;
const KEY = "operator-key";
const WHY = "why-signed-out";
const byId = (id) => document.getElementById(id);

const points = [];
let reading = null;
let ahead = 0; // Milliseconds by which the platform's clock is ahead of this one.

const credential = () => sessionStorage.getItem(KEY);
const operations = new Feed("operator", "/v1/operations", POLL_MS, takeOperations);
const runs = new Feed("operator", "/v1/training", POLL_MS, takeTraining);
const versions = new Feed("operator", "/v1/models?limit=20", SLOWLY_MS, takeModels);
const counts = new Feed("ingest", "/v1/counts", SLOWLY_MS, takeCounts);
const FEEDS = [operations, runs, versions, counts];

const panels = new Panels(byId("people"));
const models = new Models(credential, versions);
training.install(credential, runs);
viewers.install(credential);

// --- sign in and out -----------------------------------------------------------------------------------------------

byId("sign-in").addEventListener("submit", async (event) => {
  event.preventDefault();
  const key = byId("key").value.trim();
  write(byId("sign-in-said"), "Asking …");
  try {
    await call("operator", "/v1/operations", { credential: key }); // It answers in every outage.
    sessionStorage.setItem(KEY, key);
    byId("key").value = "";
    open();
  } catch (problem) {
    write(byId("sign-in-said"), whyNot(problem));
  }
});
byId("sign-out").addEventListener("click", () => close(""));

function whyNot(problem) {
  if (problem.status === 401) return "Nobody has this key, or it has ended.";
  if (problem.status === 403) return "This key may do other things, but not operate: it needs the scope operate.";
  if (problem.status === 0) {
    return `Nobody answers at ${ORIGINS.operator}, or it does not let this page ask (MARQUEE_ALLOWED_ORIGINS).`;
  }
  return problem.message;
}

function open() {
  byId("door").hidden = true;
  byId("desk").hidden = byId("sign-out").hidden = false;
  byId("main").focus();
  for (const feed of FEEDS) feed.start(credential());
  viewers.learnNames(credential());
}

/** Forget the key, and with the page all that it opened. */
function close(why) {
  sessionStorage.removeItem(KEY);
  if (why) sessionStorage.setItem(WHY, why);
  location.reload();
}

function askForKey() {
  write(byId("sign-in-said"), sessionStorage.getItem(WHY) ?? "");
  sessionStorage.removeItem(WHY);
  byId("door").hidden = false;
  byId("key").focus();
}

// --- answers -------------------------------------------------------------------------------------------------------

function takeOperations(feed) {
  const before = reading;
  if (!feed.problem) {
    reading = read(feed.answer);
    ahead = reading.at - Date.now();
  }
  if (reading && reading.at !== before?.at) remember(points, pointBetween(before, reading));
  if (reading) {
    showProcesses(feed.answer.processes, feed.problem !== null);
    panels.show(points, reading, Date.now() + ahead, feed.problem !== null);
    if (reading.serves && versions.answer && reading.serves !== versions.answer.served) versions.now();
  }
  for (const slow of [versions, counts]) if (slow.problem && !feed.problem) slow.now(); // It may be over.
  showAge(feed);
  judge(feed);
}

function takeTraining(feed) {
  const before = byId("last-run").dataset.of;
  if (feed.answer) training.show(feed.answer, feed.problem !== null, Date.now() + ahead);
  markOld("training", feed);
  const last = feed.answer?.last?.finished_at ?? "";
  byId("last-run").dataset.of = last;
  if (before !== undefined && before !== last) versions.now(); // It may have left a version.
  judge(feed);
}

function takeModels(feed) {
  if (feed.answer) {
    models.show(feed.answer);
    viewers.offer(feed.answer);
  }
  markOld("models", feed);
  judge(feed);
}

function takeCounts(feed) {
  if (feed.answer) people.show(feed.answer);
  markOld("people", feed);
  judge(feed);
}

function judge(feed) {
  if (feed.edge === "operator" && [401, 403].includes(feed.problem?.status)) {
    close(whyNot(feed.problem));
    return;
  }
  if (!reading && !operations.problem) return; // Nothing is known yet: not that all is well either.
  const telling = operations.problem ? null : reading; // Who does not answer now is not known from an old answer.
  const told = { reading: telling, points: telling ? points : [], training: runs.answer, models: versions.answer };
  showFindings([...silences(), ...findings(told)]);
}

/** Feeds without an answer. What has a cause that is said already is not said again. */
function silences() {
  const goesOn = "What is shown is old. The page goes on by itself when it answers again.";
  if (operations.problem) return silentFeed(operations, "operator-silent", "The operator's API", goesOn);
  const byRedis = reading?.redis === null;
  const byIngest = reading?.silent.includes("ingest");
  return [
    ...(byRedis ? [] : silentFeed(versions, "models-silent", "GET /v1/models", "It needs the registry and Redis.")),
    ...(byRedis ? [] : silentFeed(runs, "training-silent", "GET /v1/training", "It needs Redis.")),
    ...(byIngest ? [] : silentFeed(counts, "counts-silent", "GET /v1/counts of ingest", "It needs the ledger.")),
  ];
}

addEventListener("themechange", recolour);
matchMedia("(prefers-color-scheme: light)").addEventListener("change", recolour);
if (credential()) open();
else askForKey();
