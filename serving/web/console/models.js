// Versions: what is served now, how good each was on its hold-out, what the gate said, and serving another one.

import { PlacesChart, swatch } from "./charts.js";
import { confirmed } from "./dialog.js";
import { dayAndTime, number, write } from "./words.js";
import { call } from "/web/api.js";
import { announce, el } from "/web/dom.js";

const byId = (id) => document.getElementById(id);
const QUALITY = [
  ["challenger", "ndcg_at_10"],
  ["champion", "champion_ndcg_at_10"],
  ["popular", "popularity_ndcg_at_10"],
];
const PATIENCE_MS = 120_000; // Lists of everybody may have to be published again.

/** The section of models. `credential` gives the key, `feed` is GET /v1/models. */
export class Models {
  constructor(credential, feed) {
    Object.assign(this, { credential, feed, seen: "" });
    this.chart = new PlacesChart(byId("quality-chart"), "line", number);
    byId("quality-legend").append(
      ...QUALITY.map(([name], index) =>
        el("li", {}, swatch(index), `${name} `, el("span", { class: "value", id: `quality-${name}` }, "–")),
      ),
    );
    byId("rollback").addEventListener("click", () => this.#rollBack(null));
  }

  /** Show an answer. What says the same as the last one changes nothing. */
  show(models) {
    const seen = JSON.stringify(models);
    if (seen === this.seen) return;
    this.seen = seen;
    this.models = models;
    this.#served();
    this.#quality();
    this.#versions();
  }

  #served() {
    const { served, models } = this.models;
    const model = models.find((each) => each.version === served);
    write(byId("served"), served ? `Version ${served}` : "No version");
    if (model) write(byId("served-of"), `${model.recipe || model.algorithm}, trained ${dayAndTime(model.created_at)}`);
    else write(byId("served-of"), served ? "older than those beside" : "viewers get the popular list from memory");
    byId("rollback").disabled = !this.#earlier();
  }

  /** Where a roll-back without a number leads: the newest one below what is served that was let in. */
  #earlier() {
    const { served, models } = this.models;
    return models.find((each) => served && each.version < served && wasLetIn(each) && !each.purged);
  }

  #quality() {
    const judged = this.models.models.filter((each) => "ndcg_at_10" in each.metrics).toReversed();
    const series = QUALITY.map(([name, metric]) => [name, judged.map((each) => each.metrics[metric] ?? null)]);
    this.chart.show(
      judged.map((each) => `v${each.version}`),
      series,
    );
    const last = judged.at(-1);
    for (const [name, metric] of QUALITY) write(byId(`quality-${name}`), number(last?.metrics[metric]));
    const words = judged.map(
      (each) =>
        `version ${each.version}: ${QUALITY.map(([name, metric]) => `${name} ${number(each.metrics[metric])}`).join(", ")}`,
    );
    byId("quality-chart").setAttribute(
      "aria-label",
      `nDCG@10 on each version's own hold-out. ${words.join("; ") || "Nothing judged yet"}`,
    );
  }

  #versions() {
    const open = new Set([...byId("versions").querySelectorAll("details[open]")].map((each) => each.id));
    const focused = document.activeElement?.id;
    byId("versions").replaceChildren(...this.models.models.map((each) => this.#version(each)));
    for (const id of open) byId(id)?.setAttribute("open", "");
    if (focused && document.activeElement?.id !== focused) byId(focused)?.focus();
  }

  #version(model) {
    const { version } = model;
    const chips = [
      model.served && el("span", { class: "chip good" }, "● served now"),
      gateChip(model),
      model.kept && !model.served && el("span", { class: "chip" }, "lists kept"),
      model.purged && el("span", { class: "chip" }, "purged: it knew who was erased"),
    ];
    const action = model.served || model.purged ? null : this.#action(model);
    const head = el("div", { class: "head" }, el("h4", {}, `Version ${version}`), ...chips, action);
    const facts = el(
      "p",
      { class: "quiet small" },
      `${dayAndTime(model.created_at)} · ${model.recipe || model.algorithm} · nDCG@10 ${number(model.metrics.ndcg_at_10)}, popular ${number(model.metrics.popularity_ndcg_at_10)}`,
    );
    const refusals = model.gate.verdicts.filter((each) => !each.passed).map((each) => verdict("p", each));
    return el(
      "li",
      { class: model.served ? "version served" : "version" },
      head,
      facts,
      ...(model.promotion ? [promoted(model.promotion)] : []),
      ...refusals,
      details(model),
    );
  }

  #action(model) {
    const back = model.version < (this.models.served ?? 0) && wasLetIn(model);
    const label = back ? "Roll back…" : wasLetIn(model) ? "Promote…" : "Promote by force…";
    const act = () => (back ? this.#rollBack(model) : this.#promote(model));
    return el(
      "button",
      { type: "button", id: `act-${model.version}`, onclick: act },
      label,
      el("span", { class: "unseen" }, ` version ${model.version}`),
    );
  }

  async #promote(model) {
    const force = !wasLetIn(model);
    const refused = model.gate.verdicts
      .filter((each) => !each.passed)
      .map((each) => `The gate refused it: ${each.check}: ${each.reason}.`);
    const reason = await confirmed({
      title: `Serve version ${model.version}${force ? " though the gate refused it" : ""}?`,
      says: [this.#whatWillHappen(model), ...refused],
      button: `Serve version ${model.version}`,
      reason: force ? "required" : "optional",
      danger: force,
    });
    if (reason !== null) await this.#serve(`/v1/models/${model.version}/promotion`, { force, reason }, model.version);
  }

  async #rollBack(chosen) {
    const model = chosen ?? this.#earlier();
    const reason = await confirmed({
      title: `Roll back to version ${model.version}?`,
      says: [
        this.#whatWillHappen(model),
        "Until nearline has followed, a list may show what its viewer has just watched.",
      ],
      button: `Roll back to version ${model.version}`,
    });
    if (reason !== null) await this.#serve("/v1/rollback", { version: model.version }, model.version);
  }

  #whatWillHappen(model) {
    const from = this.models.served ? `instead of version ${this.models.served}` : "for the first time";
    const how = model.kept
      ? "Its lists are still in Redis: it takes a second or two."
      : "Its lists have to be published again first, which may take a while.";
    return `Everybody will get the lists of version ${model.version} (${model.algorithm}) ${from}. ${how}`;
  }

  async #serve(path, body, version) {
    const said = byId("models-said");
    said.className = "quiet";
    write(said, `Version ${version} is being put in place …`);
    try {
      const { served } = await call("operator", path, {
        method: "POST",
        body,
        credential: this.credential(),
        patience: PATIENCE_MS,
      });
      write(said, `Version ${served} is served.`);
      announce(`Version ${served} is served.`);
    } catch (problem) {
      said.className = "banner bad";
      write(said, `Not done: ${problem.message}`);
      announce(`Not done: ${problem.message}`);
    }
    await this.feed.now();
  }
}

const wasLetIn = (model) => model.gate.passed === true || model.promotion?.forced === true;

function gateChip({ gate: { passed } }) {
  if (passed === null) return el("span", { class: "chip" }, "not judged");
  return passed
    ? el("span", { class: "chip good" }, "✓ gate passed")
    : el("span", { class: "chip bad" }, "✗ gate refused");
}

function promoted({ by, at, reason, forced }) {
  const how = `Promoted ${forced ? "by force " : ""}by “${by}”, ${dayAndTime(at)}`;
  return el("p", { class: "small" }, reason ? `${how}: ${reason}` : how);
}

function details({ version, gate, metrics }) {
  const figures = Object.entries(metrics).map(([name, value]) => [el("dt", {}, name), el("dd", {}, number(value))]);
  return el(
    "details",
    { id: `version-${version}` },
    el("summary", {}, "What the gate said, and all figures"),
    el("ul", { class: "verdicts" }, ...gate.verdicts.map((each) => verdict("li", each))),
    el("dl", { class: "figures small" }, ...figures.flat()),
  );
}

function verdict(tag, { check, passed, reason }) {
  return el(
    tag,
    { class: passed ? "small" : "small refusal" },
    el("span", { class: `chip ${passed ? "good" : "bad"}` }, `${passed ? "✓" : "✗"} ${check}`),
    " ",
    reason,
  );
}
