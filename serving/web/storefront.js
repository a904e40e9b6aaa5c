// The home page: who is watching, what they allow, and rows that follow what they do.
import { event, sendEvents, Showings } from "/web/acts.js";
import { Problem } from "/web/api.js";
import { faces } from "/web/chooser.js";
import { agreesToTurn, purposes, refusedByBrowser, turn } from "/web/consent.js";
import { label, loadDomain } from "/web/domain.js";
import { loadPage, nothingYet, shape } from "/web/home.js";
import { Rows } from "/web/rows.js";
import { canSignIn, signIn, signOut, viewer } from "/web/session.js";
import { quiet, say } from "/web/toast.js";
import { explain } from "/web/why.js";

const CHANGE_MS = 2000; // so long rows may take to follow an act; they take some hundredths of that
const ASK_EVERY_MS = 120;
const SETTLE_MS = 600; // a person's list may come a little after the history that it is made from
const LOOK_AGAIN_MS = 4000; // while something is out of order

const NO_LOGIN =
  "This platform has no login for demonstrations: docs/storefront.md says how a product puts in its own.";
const STORE_SILENT =
  "The platform's memory of people does not answer. Here is what most people pick meanwhile. " +
  "This page looks again by itself.";
const CONSENT_UNKNOWN = "What you allow cannot be looked up now, so nothing is sent. This page looks again by itself.";
const TURNED_ON = "Personalization is on. Pick something, and watch the rows.";
const TURNED_OFF = "Withdrawn. What was collected is being deleted.";
const NOT_ALLOWED =
  "Not counted: nothing is taken without your consent, or while your browser refuses (Global Privacy Control).";

const $ = (id) => document.getElementById(id);
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

const here = {
  domain: null,
  rows: null,
  showings: null,
  page: null,
  consented: null,
  underWay: new Set(),
  again: null,
};

/** What was done in this tab without consent: it goes along with requests, and ends with the tab. */
const visit = {
  key: () => `visit ${viewer()}`,
  acts: () => JSON.parse(sessionStorage.getItem(visit.key()) ?? "[]"),
  add: (act) => sessionStorage.setItem(visit.key(), JSON.stringify([...visit.acts(), act].slice(-1000))),
  end: () => sessionStorage.removeItem(visit.key()),
};

// --- who is watching ---

function choose() {
  clearTimeout(here.again);
  $("home").hidden = $("who").hidden = true;
  $("chooser").hidden = false;
  banner(canSignIn ? null : NO_LOGIN);
  $("recent").replaceChildren(...faces(become));
  document.title = "Who is watching? · Marquee";
}

async function become(id) {
  try {
    await signIn(id);
  } catch (problem) {
    say(problem.status === 422 ? "That is no id: it takes 1 to 128 bytes that can be printed." : inWords(problem));
    return;
  }
  history.pushState({}, "", addressOf(id));
  await enter();
}

const addressOf = (id) => `/?viewer=${encodeURIComponent(id)}`;

/** Show the page of who is named in the address, or signed in. */
async function enter() {
  const named = new URLSearchParams(location.search).get("viewer");
  quiet();
  try {
    if (named && named !== viewer()) await signIn(named);
  } catch (problem) {
    if (!(problem instanceof Problem)) throw problem;
    signOut();
    say(inWords(problem));
  }
  if (!viewer()) return choose();
  if (named === null) history.replaceState({}, "", addressOf(viewer()));
  $("chooser").hidden = true;
  $("home").hidden = $("who").hidden = false;
  $("who-id").textContent = viewer();
  document.title = `${viewer()} · Marquee`;
  here.rows?.clear();
  here.showings?.reset();
  here.page = here.consented = null;
  await open();
}

// --- loading, and what to do where that fails ---

async function open() {
  clearTimeout(here.again);
  const who = viewer();
  try {
    here.domain ??= await loadDomain();
    here.showings ??= new Showings(here.domain.showing, () => here.consented === true);
    here.rows ??= new Rows($("rows"), here.domain, { act, why, shown: (slot) => here.showings.watch(slot) });
    await askConsent();
    const page = await load();
    if (who === viewer()) show(page);
  } catch (problem) {
    if (!(problem instanceof Problem)) throw problem;
    if (who !== viewer()) return; // somebody else sits here now
    banner(inWords(problem), true);
    if (problem.outage) lookAgain();
  }
}

const load = () => loadPage(here.domain, here.consented === true ? null : visit.acts());

async function askConsent() {
  here.consented = await purposes().then(
    (allowed) => allowed.includes("personalization"),
    (problem) => {
      if (!problem.outage) throw problem;
      return null; // nobody knows: nothing is sent, and the rows are shown all the same
    },
  );
  showConsent();
}

function lookAgain() {
  clearTimeout(here.again);
  here.again = setTimeout(open, LOOK_AGAIN_MS);
}

/** Show a page; `still`: it is the rest of the change before. Returns how many titles are marked as new. */
function show(page, still = false) {
  const fresh = page.rows.length ? here.rows.show(page.rows, still) : 0;
  here.page = page;
  if (!page.rows.length) showEmpty();
  const outage = page.answers ? here.consented === null && CONSENT_UNKNOWN : STORE_SILENT;
  banner(outage || null);
  if (outage || !page.rows.length) lookAgain();
  return fresh;
}

function showEmpty() {
  if (document.querySelector(".empty")) return; // said already
  here.rows.clear();
  $("rows").append(nothingYet());
}

function banner(text, bad = false) {
  const place = $("banner");
  if (place.textContent !== (text ?? "")) place.textContent = text ?? ""; // said once, not with each look
  place.classList.toggle("bad", bad);
  place.hidden = !text;
}

function inWords(problem) {
  if (!navigator.onLine) return "You are offline.";
  if (problem.status === 429)
    return `That was more than one person may send. Try again in ${problem.retryAfter ?? 1} s.`;
  if (problem.code === "opted_out") return refusedByBrowser;
  return problem.outage ? `The platform does not answer as it should: ${problem.message}` : problem.message;
}

// --- acts ---

async function act(type, item, row, slot) {
  const once = `${type} ${item.item_id}`;
  if (here.underWay.has(once)) return; // pushed twice
  here.underWay.add(once);
  slot.classList.add("busy");
  try {
    if (here.consented === true) await send(event(type, item, row), item);
    else await keepHere(type, item);
  } finally {
    here.underWay.delete(once);
    slot.classList.remove("busy");
  }
}

async function send(sent, item) {
  const name = here.domain.nameOf(item);
  try {
    await sendEvents([sent]);
  } catch (problem) {
    if (!(problem instanceof Problem)) throw problem;
    await notCounted(problem, sent, item);
    return;
  }
  say(`${label(sent.type)}: ${name}. Your rows follow …`);
  await follow(`${label(sent.type)}: ${name}.`, sent.user_id);
}

/** Ask for the rows until they have changed, and show them. */
async function follow(what, who) {
  const before = shape(here.page);
  let page = null;
  for (const until = Date.now() + CHANGE_MS; Date.now() < until; await pause(ASK_EVERY_MS)) {
    page = await load().catch(() => null);
    if (viewer() !== who) return; // somebody else sits here now
    if (page && shape(page) !== before) break;
  }
  if (!page) return;
  tell(what, show(page), shape(page) !== before);
  if (shape(page) !== before) settle(what, page);
}

/** Look once more whether that was all; what is new by now stays marked. */
async function settle(what, page) {
  await pause(SETTLE_MS);
  const settled = here.page === page && (await load().catch(() => null));
  if (settled && here.page === page && shape(settled) !== shape(page)) tell(what, show(settled, true), true);
}

async function notCounted(problem, sent, item) {
  const verdict = problem.document.verdicts?.[0];
  if (verdict?.code === "consent_missing") {
    say(NOT_ALLOWED);
    await askConsent();
    return;
  }
  // With the same id: had it been taken after all, it still counts once.
  say(`Not counted. ${verdict ? `${label(verdict.code)}.` : inWords(problem)}`, ["Try again", () => send(sent, item)]);
}

/** Without consent: the act stays in this tab, and goes along when a list is asked for. */
async function keepHere(type, item) {
  visit.add({ item_id: item.item_id, type, occurred_at: new Date().toISOString() });
  try {
    const before = shape(here.page);
    const page = await load();
    tell(`${label(type)}: ${here.domain.nameOf(item)}. Kept in this tab only.`, show(page), shape(page) !== before);
  } catch (problem) {
    if (!(problem instanceof Problem)) throw problem;
    say(inWords(problem));
  }
}

function tell(what, fresh, changed) {
  const titles = fresh === 1 ? "1 title is new" : `${fresh} titles are new`;
  say(changed ? `${what} Your rows changed: ${titles}.` : `${what} Your rows stay as they are.`);
}

const why = (item, row) => explain(item, row, here.domain);

// --- consent ---

function showConsent() {
  $("consent-switch").checked = here.consented === true;
  $("consent-switch").disabled = here.consented === null;
  $("consent-text").textContent = {
    true: "On. What you do here is kept, and your rows follow it. Take it back whenever you like.",
    false: "Off. Your rows follow what you do in this tab only; nothing of it is sent as an event or kept.",
    null: "Not known at the moment, so nothing is sent.",
  }[here.consented];
}

async function turnConsent() {
  const was = here.consented;
  $("consent-switch").checked = was; // until it is done
  if (!(await agreesToTurn(was))) return;
  here.consented = false; // from here on nothing is sent, showings included
  try {
    here.consented = await turn(was);
    visit.end();
    say(here.consented ? TURNED_ON : TURNED_OFF);
    show(await load());
  } catch (problem) {
    if (!(problem instanceof Problem)) throw problem;
    say(`Nothing was changed. ${inWords(problem)}`);
    await askConsent();
  }
  showConsent();
}

// --- begin ---

$("sign-in").addEventListener("submit", (submitted) => {
  submitted.preventDefault();
  become($("id").value);
});
$("leave").addEventListener("click", () => {
  signOut();
  history.pushState({}, "", "/");
  choose();
});
$("consent-switch").addEventListener("change", turnConsent);
addEventListener("popstate", () => {
  if (location.search === "") signOut(); // back to the question who is watching
  enter();
});
addEventListener("pageshow", (shown) => shown.persisted && enter()); // back from elsewhere: the rows may have moved on
addEventListener("online", enter);
addEventListener("offline", () => banner("You are offline. The rows stay as they are until you are back.", true));
enter();
