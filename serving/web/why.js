// "Why am I seeing this": the reason, the model behind it, and the data that it rests on.
import { el, moment } from "/web/dom.js";
import { TIERS } from "/web/home.js";
import { ask, mine } from "/web/session.js";

const LONGEST = 100; // the longest list there is: the item is somewhere on it, or it is on no list

const OF_ROW = {
  continue: () => "You began it, and have not finished it since.",
  because_you_watched: (row, domain) =>
    `It is like ${domain.nameOf(row.because_of)}, which is among the last things you picked.`,
  trending: () => "More people pick it now than usually.",
  category: (row) =>
    `It is among the ${row.category} that ${row.tier === "popular" ? "most people pick" : "suits you best"}.`,
  top_picks: (row) => (row.tier === "popular" ? "Most people pick it." : "It is among what suits you best."),
  session: () => "It goes with what you did in this tab. That came with the request and was kept nowhere.",
};

const OF_REASON = {
  history: "These speak for it most, as the model itself accounts for it:",
  popular: "Nothing that is known of you speaks for it. It is popular.",
  trending: "Nothing that is known of you speaks for it. It is trending.",
};

/** Open the dialog for an item of a row. */
export async function explain(item, row, domain) {
  const dialog = document.getElementById("why");
  const reason = el("div", { class: "stack" }, el("p", {}, OF_ROW[row.row](row, domain)));
  const rests = el("div", { class: "stack" }, el("p", { class: "quiet" }, "Asking …"));
  dialog.replaceChildren(
    el("h2", { id: "why-title" }, domain.nameOf(item)),
    el(
      "p",
      { class: "quiet small" },
      [...domain.categoriesOf(item), ...domain.factsOf(item).map((fact) => fact.join(" "))].join(" · "),
    ),
    el("h3", {}, "Why you see it"),
    reason,
    el("h3", {}, "What that rests on"),
    rests,
    el("form", { method: "dialog" }, el("button", { class: "primary" }, "Close")),
  );
  dialog.showModal();
  const [because, lineage] = await Promise.allSettled([becauseOf(item, row), lineageOf(row)]);
  reason.append(...(because.value ? told(because.value, domain) : []));
  rests.replaceChildren(
    lineage.value ? facts(lineage.value) : el("p", {}, `Not to be had now: ${lineage.reason.message}`),
  );
}

const lineageOf = (row) => ask("serving", `/v1/recommendations/${encodeURIComponent(row.recommendation_id)}`);

async function becauseOf(item, row) {
  if (item.because) return item.because;
  const list = await ask("serving", mine(`/recommendations?k=${LONGEST}&explain=true`));
  return list.items.find((other) => other.item_id === item.item_id)?.because;
}

function told({ reason, items }, domain) {
  if (reason === "history" && !items.length) return [];
  const shares = items.map((each) =>
    el(
      "li",
      {},
      el("span", { class: "share-name" }, domain.nameOf(each)),
      el("meter", { min: 0, max: 1, value: each.share, "aria-label": `Share of ${domain.nameOf(each)}` }),
      el("span", { class: "share" }, `${Math.round(each.share * 100)} %`),
    ),
  );
  return [el("p", {}, OF_REASON[reason]), items.length ? el("ol", { class: "shares" }, shares) : null].filter(Boolean);
}

function facts({ version, tier, at, model }) {
  const rows = [["List", `made ${moment(at)}, ${TIERS[tier]}`]];
  if (!model)
    rows.push([
      "Model",
      version ? `version ${version}; nothing more is known of it here` : "none yet: nothing was trained",
    ]);
  else {
    const seen = Object.values(model.watermark).reduce((sum, offset) => sum + offset, 0);
    rows.push(
      ["Model", `version ${version}, ${model.algorithm}`],
      ["Trained", moment(model.trained_at)],
      ["Data", `snapshot ${model.snapshot_version} of the lake, ${seen.toLocaleString()} records of the log`],
      ["Digest", code(model.snapshot_digest)],
      ["Code", code(model.code)],
      ["Run", code(model.run_id)],
    );
  }
  return el(
    "dl",
    { class: "facts small" },
    rows.flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]),
  );
}

const code = (text) => el("code", {}, text);
