// What stands on the home page: the rows of `/home` and, without consent, a list of this visit's own among them.
import { el } from "/web/dom.js";
import { send } from "/web/api.js";
import { ask, mine } from "/web/session.js";

const ROW_LENGTH = 20;
const ROWS = 8;

const TITLES = {
  continue: () => "Continue",
  top_picks: (row) => (row.tier === "live" || row.tier === "personal" ? "Top picks for you" : "What most people pick"),
  because_you_watched: (row, domain) => `More like ${domain.nameOf(row.because_of)}`,
  trending: () => "Trending now",
  category: (row) => row.category,
  session: () => "For this visit",
};

export const TIERS = {
  live: "from what you did last",
  personal: "from the last training",
  popular: "the same for everybody",
  static: "kept for outages",
};

/**
 * The page: `{version, rows, answers}`; answers: whether the platform's memory of people does.
 * @param {import("/web/domain.js").Domain} domain
 * @param {{item_id: string, type: string}[] | null} visit what was done in this tab; null: the viewer has consented
 * @throws {Problem}
 */
export async function loadPage(domain, visit) {
  const wanted = new URLSearchParams({ k: ROW_LENGTH, rows: ROWS });
  const done = (visit ?? []).slice(-100).map((act) => act.item_id); // no more than `exclude` takes
  for (const id of new Set(done)) wanted.append("exclude", id);
  const [home, session, answers] = await Promise.all([
    ask("serving", mine(`/home?${wanted}`)),
    visit && sessionRow(visit),
    storeAnswers(),
  ]);
  return { version: home.version, rows: named(session, home.rows, domain), answers };
}

/** What a page shows, to be compared: two pages that show the same are the same. */
export const shape = (page) => JSON.stringify(page.rows.map((row) => [row.key, row.items.map((item) => item.item_id)]));

async function sessionRow(visit) {
  if (!visit.length) return { row: "session", items: [] }; // its place is kept, so that nothing moves when it fills
  const body = { history: visit, k: ROW_LENGTH, explain: true };
  return { row: "session", ...(await ask("serving", "/v1/recommendations", { method: "POST", body })) };
}

function named(session, rows, domain) {
  const taken = new Set(session?.items.map((item) => item.item_id));
  const others = rows.map((row) => ({ ...row, items: row.items.filter((item) => !taken.has(item.item_id)) }));
  const [first, ...rest] = others;
  // Second: then what the viewer uses stands still, and what follows it changes right below.
  return [first, first && session, ...rest]
    .filter((row) => row?.items.length || row?.row === "session")
    .map((row) => ({
      ...row,
      key: [row.row, row.because_of?.item_id ?? row.category ?? ""].join(":"),
      title: TITLES[row.row](row, domain),
      said: row.row === "session" ? "from what you do in this tab; kept nowhere" : TIERS[row.tier],
    }));
}

/** What stands there instead while the platform has nothing to show. */
export const nothingYet = () =>
  el(
    "div",
    { class: "card stack empty" },
    el("h2", {}, "Nothing to show yet"),
    el(
      "p",
      {},
      "This platform knows no items, or has trained no model. To fill it with invented viewers and train, type:",
    ),
    el("pre", { tabindex: "0" }, ".venv/bin/marquee audience\n.venv/bin/marquee train"),
    el("p", { class: "quiet" }, "The rows come by themselves when a model is served."),
  );

/** Whether the online store answers; serving itself does without it, so lists alone do not tell. */
async function storeAnswers() {
  const ready = await send("serving", "/readyz").then((answer) => answer.json());
  return ready.online_store === "answers";
}
