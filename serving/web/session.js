// Who sits before the page, and the token that speaks for them. A fork replaces `signIn` by its own login: nothing else
// here knows how a token is come by. It all lives in this tab; only the ids of who was here stay, for the chooser.
import { call, send, Problem } from "/web/api.js";
import platform from "/web/platform.js";

const EARLY_MS = 60_000; // a token is exchanged before it ends, not after
const MOST_RECENT = 5;

export const canSignIn = platform.demo_login;

let signed = JSON.parse(sessionStorage.getItem("signed") ?? "null");

/** The viewer's id; null: nobody is signed in. */
export const viewer = () => signed?.id ?? null;

/** Become somebody. @throws {Problem} */
export async function signIn(id) {
  if (!canSignIn) throw new Problem(0, { code: "no_login", detail: "This platform has no login for demonstrations." });
  const { token, seconds } = await call("serving", "/login", { method: "POST", body: { user_id: id } });
  keep({ id, token, until: Date.now() + seconds * 1000 });
  localStorage.setItem(
    "recent",
    JSON.stringify([id, ...recent().filter((other) => other !== id)].slice(0, MOST_RECENT)),
  );
}

export function signOut() {
  keep(null);
}

/** Who was signed in on this device, the last one first. */
export const recent = () => JSON.parse(localStorage.getItem("recent") ?? "[]");

/** Leave nothing of a person on this device. */
export function forgetHere(id) {
  localStorage.setItem("recent", JSON.stringify(recent().filter((other) => other !== id)));
}

/** A path of the API about the viewer: `mine("/home?k=20")`. */
export const mine = (rest) => `/v1/users/${encodeURIComponent(viewer() ?? "")}${rest}`;

/** A call with the viewer's own token; see `call`. */
export const ask = (edge, path, options) => withToken(call, edge, path, options);

/** The same, for an answer that is no JSON. */
export const askRaw = (edge, path, options) => withToken(send, edge, path, options);

async function withToken(how, edge, path, options = {}) {
  if (!signed) throw new Problem(401, { code: "signed_out", detail: "Nobody is signed in." });
  if (Date.now() > signed.until - EARLY_MS) await signIn(signed.id);
  return how(edge, path, { ...options, credential: signed.token });
}

function keep(next) {
  signed = next;
  if (next) sessionStorage.setItem("signed", JSON.stringify(next));
  else sessionStorage.removeItem("signed");
}
