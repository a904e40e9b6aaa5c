// Who is watching: those who were here last, and somebody new.
import { el } from "/web/dom.js";
import { art } from "/web/posters.js";
import { recent } from "/web/session.js";

/** A face for each, to be pushed; `become` is told the id. */
export function faces(become) {
  const plus = el("span", { class: "plus", "aria-hidden": "true" }, "+");
  return [
    ...recent().map((id) => face(id, art(id, [id]), () => become(id))),
    face("Someone new", plus, () => become(newId())),
  ];
}

const newId = () => `guest-${crypto.getRandomValues(new Uint32Array(1))[0].toString(36)}`;

const face = (name, picture, onclick) =>
  el(
    "li",
    {},
    el("button", { class: "face", type: "button", onclick }, picture, el("span", { class: "face-name" }, name)),
  );
