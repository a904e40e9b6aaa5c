// The consent switch: what is on, what changes when it is turned, and that turning it either way takes as much.
import { el } from "/web/dom.js";
import { ask, mine } from "/web/session.js";

const PERSONALIZATION = "personalization";
/** The text that is agreed to here; a fork that changes it counts up. */
export const POLICY = { policy_version: "storefront-1", source: "storefront" };

const ON = {
  title: "Let this page learn from what you do?",
  points: [
    "What you pick, rate and are shown here is kept, under your id, with the number of a receipt.",
    "Your rows follow it within a second, and everybody's next model is trained on it too.",
    "You see, take along and delete all of it under “What you hold about me”, at any time.",
  ],
  yes: "Allow",
  no: "Not now",
};
const OFF = {
  title: "Stop, and delete what was collected?",
  points: [
    "From the moment you confirm nothing is taken any more.",
    "Your history and your lists are deleted, and your rows in the lake after them.",
    "The page goes on with what you do in this tab, which is kept nowhere.",
  ],
  yes: "Withdraw",
  no: "Keep it on",
};

/** Which purposes the viewer allows now. @throws {Problem} */
export const purposes = async () => (await ask("ingest", mine("/consent"))).purposes;

/** Allow exactly these; none: withdraw. Resolves to the receipt. @throws {Problem} */
export function allow(wanted) {
  if (wanted.length) return ask("ingest", mine("/consent"), { method: "PUT", body: { purposes: wanted, ...POLICY } });
  return ask("ingest", mine(`/consent?${new URLSearchParams(POLICY)}`), { method: "DELETE" });
}

/** Ask whether personalization is to be turned, on or off, and say what that changes. */
export const agreesToTurn = (isOn) => agreed(isOn ? OFF : ON);

/** Turn it; resolves to whether it is on then. @throws {Problem} */
export async function turn(isOn) {
  const others = (await purposes()).filter((purpose) => purpose !== PERSONALIZATION);
  await allow(isOn ? others : [...others, PERSONALIZATION]);
  return !isOn;
}

/** What to say of a refusal of the browser's, which goes before what its viewer clicks. */
export const refusedByBrowser =
  "Your browser says no for you (Global Privacy Control), so nothing was recorded. " +
  "Turn the signal off for this site to allow it.";

/** Ask something that is answered by one of two buttons; resolves to whether it was the first. */
export function agreed({ title, points, yes, no }) {
  const dialog = document.getElementById("consent");
  dialog.returnValue = "";
  dialog.replaceChildren(
    el("h2", { id: "consent-title" }, title),
    el(
      "ul",
      { class: "points" },
      points.map((point) => el("li", {}, point)),
    ),
    el(
      "form",
      { method: "dialog", class: "cluster" },
      el("button", { class: "primary", value: "yes" }, yes),
      el("button", { value: "no" }, no),
    ),
  );
  dialog.showModal();
  return new Promise((resolve) =>
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true }),
  );
}
