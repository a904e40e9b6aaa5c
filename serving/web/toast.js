// The page's one voice: a line at the foot of the page that screen readers read out.
import { el } from "/web/dom.js";

const LASTS_MS = 8000;
let timer;

/** Say something; `action`: what can be done about it, as [text, function]. That stays until it is done or replaced. */
export function say(text, action) {
  const place = document.getElementById("live");
  clearTimeout(timer);
  const button =
    action &&
    el(
      "button",
      {
        type: "button",
        onclick: () => {
          quiet();
          action[1]();
        },
      },
      action[0],
    );
  place.replaceChildren(el("span", {}, text), ...(button ? [button] : []));
  if (!button) timer = setTimeout(quiet, LASTS_MS);
}

export function quiet() {
  clearTimeout(timer);
  document.getElementById("live").replaceChildren();
}
