// Posters drawn from a title and its categories: no image files, and the same title looks the same everywhere.
import { svg } from "/web/dom.js";

const WIDTH = 200;
const HEIGHT = 300;

/** The art of an item's poster; for eyes only, since the title stands beside it. */
export function art(title, categories) {
  const random = randomFrom(hash(title));
  const motif = MOTIFS[hash(categories[0] ?? title) % MOTIFS.length];
  const colours = palette(random);
  const id = `sky-${hash(title + categories.join()).toString(36)}-${(count += 1)}`;
  return svg(
    "svg",
    { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "xMidYMid slice", "aria-hidden": "true" },
    svg("defs", {}, sky(id, colours)),
    rect(0, 0, WIDTH, HEIGHT, `url(#${id})`),
    motif(random, colours),
    rect(-2, 0, WIDTH + 4, HEIGHT + 2, `url(#${id}-dusk)`),
  );
}

let count = 0; // ids of gradients are of the whole document

function sky(id, { top, bottom, ink }) {
  const stop = (offset, colour, opacity = 1) => svg("stop", { offset, "stop-color": colour, "stop-opacity": opacity });
  const down = { x1: 0, y1: 0, x2: 0.2, y2: 1 };
  return [
    svg("linearGradient", { id, ...down }, stop(0, top), stop(1, bottom)),
    svg(
      "linearGradient",
      { id: `${id}-dusk`, x1: 0, y1: 0, x2: 0, y2: 1 },
      stop(0.4, ink, 0),
      stop(0.8, ink, 0.8),
      stop(1, ink),
    ), // dark towards the title
  ];
}

// Hues of a sky's top and foot, and of what shines in it: pairs that look well together, without the muddy ones.
const SKIES = [
  [222, 262],
  [250, 320],
  [282, 335],
  [334, 12],
  [352, 28],
  [14, 38],
  [28, 348],
  [192, 222],
  [172, 205],
  [206, 178],
  [262, 222],
  [310, 268],
  [200, 258],
  [5, 330],
];
const SHINES = [44, 18, 200, 172, 320, 55];

function palette(random) {
  const [hue, other] = SKIES[Math.floor(random() * SKIES.length)];
  const far = SHINES.filter((shine) => Math.abs(shine - other) > 35);
  const shine = far[Math.floor(random() * far.length)];
  return {
    top: `hsl(${hue} 58% ${22 + random() * 12}%)`,
    bottom: `hsl(${other} 68% ${46 + random() * 10}%)`,
    light: `hsl(${shine} 92% 76%)`,
    middle: `hsl(${other} 52% 32%)`,
    dark: `hsl(${hue} 55% 14%)`,
    ink: `hsl(${hue} 45% 7%)`,
  };
}

// --- motifs, one a category ---

const MOTIFS = [sun, peaks, rings, rays, tiles, waves, night, city];

function sun(random, { light, dark, middle }) {
  const x = 50 + random() * 100;
  const y = 80 + random() * 40;
  const stripes = [0, 1, 2, 3, 4].map((n) => rect(0, y + 8 + n * 14, WIDTH, 3 + n * 1.6, middle));
  return group(circle(x, y, 34 + random() * 22, light), stripes, rect(0, y + 82, WIDTH, 200, dark));
}

function peaks(random, { light, middle, dark }) {
  const ridge = (base, height, fill) => {
    const points = [
      [0, HEIGHT],
      [0, base],
    ];
    for (let x = 0; x <= WIDTH; x += 40) points.push([x + random() * 20, base - random() * height]);
    return polygon([...points, [WIDTH, base], [WIDTH, HEIGHT]], fill);
  };
  return group(
    circle(40 + random() * 120, 46 + random() * 20, 15 + random() * 9, light),
    ridge(150, 80, middle),
    ridge(190, 60, dark),
  );
}

function rings(random, { light, middle }) {
  const x = random() * WIDTH;
  const y = 60 + random() * 70;
  const each = [0, 1, 2, 3, 4, 5].map((n) =>
    svg("circle", {
      cx: x,
      cy: y,
      r: 14 + n * 24,
      fill: "none",
      stroke: n % 2 ? middle : light,
      "stroke-width": 9 - n,
      opacity: 1 - n * 0.12,
    }),
  );
  return group(each);
}

function rays(random, { light, dark }) {
  const x = 40 + random() * 120;
  const y = 100 + random() * 40;
  const turn = random() * 20;
  const each = [...Array(12).keys()].map((n) => {
    const at = (degrees) => [
      x + 320 * Math.cos((degrees * Math.PI) / 180),
      y + 320 * Math.sin((degrees * Math.PI) / 180),
    ];
    return svg("g", { opacity: 0.42 }, polygon([[x, y], at(turn + n * 30), at(turn + n * 30 + 13)], light));
  });
  return group(each, circle(x, y, 26, dark), circle(x, y, 17, light));
}

function tiles(random, { light, middle, dark }) {
  const side = 50;
  const each = [];
  for (let x = 0; x < WIDTH; x += side) {
    for (let y = 0; y < 200; y += side) {
      const fill = [light, middle, dark][Math.floor(random() * 3)];
      const corner = [
        [x, y],
        [x + side, y],
        [x, y + side],
        [x + side, y + side],
      ][Math.floor(random() * 4)];
      each.push(quarter(corner, x, y, side, fill));
    }
  }
  return svg("g", { opacity: 0.85 }, each);
}

function waves(random, { light, middle, dark }) {
  const wave = (base, height, fill) => {
    const phase = random() * 6;
    const points = [[0, HEIGHT]];
    for (let x = 0; x <= WIDTH; x += 8) points.push([x, base + height * Math.sin(x / 26 + phase)]);
    return polygon([...points, [WIDTH, HEIGHT]], fill);
  };
  return group(
    circle(30 + random() * 140, 55, 22, light),
    wave(110, 12, middle),
    wave(140, 14, dark),
    wave(168, 10, middle),
  );
}

function night(random, { light, dark }) {
  const stars = [...Array(34).keys()].map(() => circle(random() * WIDTH, random() * 180, 0.6 + random() * 1.7, light));
  const x = 50 + random() * 90;
  const y = 55 + random() * 30;
  return group(
    rect(0, 0, WIDTH, HEIGHT, dark, 0.55),
    stars,
    circle(x, y, 27, light),
    svg("circle", { cx: x + 12, cy: y - 6, r: 24, fill: dark }),
  );
}

function city(random, { light, middle, dark }) {
  const each = [];
  for (let x = -6; x < WIDTH; x += 26) {
    const top = 70 + random() * 90;
    each.push(rect(x, top, 23, HEIGHT, random() < 0.5 ? dark : middle));
    for (let y = top + 8; y < 200; y += 13)
      if (random() < 0.5) each.push(rect(x + 4 + Math.floor(random() * 2) * 9, y, 5, 6, light));
  }
  return group(circle(30 + random() * 140, 48, 20, light, 0.8), each);
}

// --- shapes ---

const group = (...shapes) => svg("g", {}, shapes.flat());
const circle = (cx, cy, r, fill, opacity = 1) => svg("circle", { cx, cy, r, fill, opacity });
const rect = (x, y, width, height, fill, opacity = 1) => svg("rect", { x, y, width, height, fill, opacity });
const polygon = (points, fill) => svg("polygon", { points: points.map((point) => point.join()).join(" "), fill });

function quarter([cx, cy], x, y, side, fill) {
  const sweep = (cx === x) === (cy === y) ? 1 : 0;
  const [fromX, toY] = [cx === x ? x + side : x, cy === y ? y + side : y];
  return svg("path", { d: `M${cx} ${cy}L${fromX} ${cy}A${side} ${side} 0 0 ${sweep} ${cx} ${toY}Z`, fill });
}

// --- chance that is the same each time ---

function hash(text) {
  let value = 2166136261;
  for (const letter of text) value = Math.imul(value ^ letter.codePointAt(0), 16777619);
  return value >>> 0;
}

function randomFrom(seed) {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
