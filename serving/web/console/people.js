// Who allows what, and who asked to be forgotten: people, not receipts.

import { PlacesChart } from "./charts.js";
import { count, write } from "./words.js";

const byId = (id) => document.getElementById(id);
const CONSENTS = ["personalization", "analytics", "research", "withdrawn"];
let chart = null;

/** Show an answer of GET /v1/counts. */
export function show({ consents, erasures }) {
  chart ??= new PlacesChart(byId("consent-chart"), "bar", count);
  const values = CONSENTS.map((name) => consents[name] ?? 0);
  if (byId("consent-chart").dataset.shown !== values.join()) {
    byId("consent-chart").dataset.shown = values.join();
    chart.show(CONSENTS, [["people", values]]);
  }
  for (const name of CONSENTS) write(byId(`consent-${name}`), count(consents[name]));
  write(byId("erasures"), `Erasures: ${count(erasures.open)} under way, ${count(erasures.complete)} complete`);
}
