// The few drawings on buttons. An act without one is written out.
import { svg } from "/web/dom.js";

const PATHS = {
  play: "M8 5v14l11-7z",
  complete: "M9 16.2 4.8 12l-1.4 1.4L9 19 21 7l-1.4-1.4z",
  thumbs_up:
    "M2 21h4V9H2zM23 10a2 2 0 0 0-2-2h-6.3l1-4.6v-.3c0-.4-.2-.8-.5-1.1L14.200 1 7.600 7.600C7.200 8 7 8.500 7 9v10a2 2 0 0 0 2 2h9c.8 0 1.500-.5 1.800-1.200l3-7.100c.1-.2.2-.5.2-.7z",
  thumbs_down:
    "M22 3h-4v12h4zM1 14a2 2 0 0 0 2 2h6.300l-1 4.600v.3c0 .4.2.8.5 1.100l1 1 6.600-6.600c.4-.4.6-.9.6-1.400V5a2 2 0 0 0-2-2H6c-.8 0-1.500.5-1.800 1.200l-3 7.100c-.1.2-.2.5-.2.700z",
  why: "M11 18h2v-2h-2zm1-16a10 10 0 1 0 0 20 10 10 0 0 0 0-20zm0 18a8 8 0 1 1 0-16 8 8 0 0 1 0 16zm0-14a4 4 0 0 0-4 4h2c0-1.100.9-2 2-2s2 .9 2 2c0 2-3 1.750-3 5h2c0-2.250 3-2.500 3-5a4 4 0 0 0-4-4z",
};

/** The drawing of this name, for eyes only; null: there is none. */
export function icon(name) {
  const path = PATHS[name];
  return path
    ? svg("svg", { viewBox: "0 0 24 24", "aria-hidden": "true", class: "icon" }, svg("path", { d: path }))
    : null;
}
