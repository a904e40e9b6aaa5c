// Charts that live as long as the page: made once by Chart.js, then only their numbers change.

import { el, svg } from "/web/dom.js";

const LINES = [[], [6, 3], [2, 2], [8, 3, 2, 3], [1, 3]]; // Nobody has to tell colours apart.
const AXIS_PX = 60; // Fixed, so that a longer number moves nothing.
const WINDOWS = [
  [1, 0.5],
  [6, 2],
  [15, 5],
]; // Minutes and their ticks: a page just opened is not an empty chart.

const all = new Set();
const probe = document.body.appendChild(el("span", { hidden: true }));

/** A line chart over the last quarter of an hour. `format` writes a number for people. */
export class TimeChart {
  constructor(canvas, format, { stacked = false } = {}) {
    this.keys = [];
    this.stacked = stacked;
    this.chart = make(canvas, "line", timeOptions(format, stacked));
  }

  /** Show [{at, values: {key: number or null} or null}], now being `now`. A gap in the points is a gap in the lines. */
  show(points, keys, now) {
    if (keys.join() !== this.keys.join()) this.#lines(keys);
    for (const [index, key] of keys.entries()) {
      this.chart.data.datasets[index].data = points.map(({ at, values }) => ({
        x: (at - now) / 60_000,
        y: values?.[key] ?? null,
      }));
    }
    const age = points.length ? now - points[0].at : 0;
    const [minutes, step] = WINDOWS.find(([size]) => age <= size * 60_000) ?? WINDOWS.at(-1);
    Object.assign(this.chart.options.scales.x, { min: -minutes });
    this.chart.options.scales.x.ticks.stepSize = step;
    this.chart.update("none");
  }

  #lines(keys) {
    this.keys = [...keys];
    this.chart.data.datasets = keys.map((key, index) => ({
      label: key,
      borderDash: LINES[index % LINES.length],
      fill: this.stacked && (index ? "-1" : "origin"),
    }));
    colour(this.chart);
  }
}

/** A chart over named places: bars, or lines through points. `series` is [[name, [number or null]]]. */
export class PlacesChart {
  constructor(canvas, type, format) {
    this.chart = make(canvas, type, placesOptions(type, format));
  }

  show(places, series) {
    const data = this.chart.data;
    data.labels = places;
    data.datasets.length = series.length;
    for (const [index, [label, values]] of series.entries()) {
      data.datasets[index] ??= { borderDash: LINES[index % LINES.length] };
      Object.assign(data.datasets[index], { label, data: values });
    }
    colour(this.chart);
    this.chart.update();
  }
}

/** Colours of the theme, again: call it when the theme changes. */
export function recolour() {
  for (const chart of all) {
    colour(chart);
    chart.update(); // Not "none": bars and points would keep their colours.
  }
}

/** How the n-th series is drawn, for a legend. */
export function swatch(index) {
  const place = index % LINES.length;
  const line = svg("line", { x1: "0", x2: "24", y1: "4", y2: "4", "stroke-dasharray": LINES[place].join(" ") });
  return svg("svg", { class: `swatch series-${place + 1}`, viewBox: "0 0 24 8", "aria-hidden": "true" }, line);
}

function make(canvas, type, options) {
  const chart = new globalThis.Chart(canvas, { type, data: { labels: [], datasets: [] }, options });
  all.add(chart);
  return chart;
}

function colour(chart) {
  for (const [index, dataset] of chart.data.datasets.entries()) {
    dataset.borderColor = themed(`--series-${(index % LINES.length) + 1}`);
    dataset.backgroundColor = dataset.fill
      ? dataset.borderColor.replace(")", ", 0.3)").replace("rgb(", "rgba(")
      : dataset.borderColor;
  }
}

/** A colour of the theme that is shown now, as a canvas understands it: a variable by itself is `light-dark(…)`. */
function themed(name) {
  probe.style.color = `var(${name})`;
  return getComputedStyle(probe).color;
}

function timeOptions(format, stacked) {
  const x = axis({ type: "linear", min: -1, max: 0 }, { callback: ago, maxRotation: 0 });
  const lines = {
    elements: { line: { borderWidth: 2, tension: 0 }, point: { radius: 0, hitRadius: 6 } },
    spanGaps: 0.25,
    parsing: false,
    normalized: true,
  };
  return { ...shared(format), ...lines, scales: { x, y: { ...yAxis(format), stacked } } };
}

function ago(minutes) {
  if (minutes === 0) return "now";
  return minutes > -1 ? `${minutes * 60} s` : `${minutes} min`;
}

function placesOptions(type, format) {
  const places = axis({}, { maxRotation: 0 });
  const scales =
    type === "bar"
      ? { x: axis({ beginAtZero: true }, { maxTicksLimit: 4, callback: format }), y: places }
      : { x: places, y: yAxis(format) };
  const elements = { point: { radius: 3 }, line: { borderWidth: 2 } };
  return { ...shared(format), indexAxis: type === "bar" ? "y" : "x", scales, elements };
}

function yAxis(format) {
  const fixed = (scale) => {
    scale.width = AXIS_PX;
  };
  return axis({ beginAtZero: true, afterFit: fixed }, { maxTicksLimit: 4, callback: format });
}

/** Colours are asked for whenever a chart is drawn, so that they are the theme's. */
function axis(options, ticks) {
  return { ...options, ticks: { ...ticks, color: () => themed("--quiet") }, grid: { color: () => themed("--line") } };
}

function shared(format) {
  const label = ({ dataset, raw }) => `${dataset.label}: ${format(typeof raw === "object" ? raw?.y : raw)}`;
  const title = (items) =>
    typeof items[0]?.raw === "object" ? `${(-items[0].parsed.x).toFixed(1)} min ago` : items[0]?.label;
  return {
    animation: false,
    responsive: true,
    maintainAspectRatio: false,
    interaction: { mode: "index", intersect: false, axis: "x" },
    plugins: { legend: { display: false }, tooltip: { callbacks: { label, title } } },
  };
}
