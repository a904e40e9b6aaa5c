// Two lists side by side: what moved, came and went. Nothing here knows a page.

/** Each item of `after` with how it stands to `before`: {item, move}, and the items that went. */
export function compare(before, after) {
  const places = new Map(before.map((item, place) => [item.item_id, place]));
  const there = new Set(after.map((item) => item.item_id));
  return {
    before: before.map((item) => ({ item, move: there.has(item.item_id) ? null : { kind: "gone", by: 0 } })),
    after: after.map((item, place) => ({ item, move: moveOf(places.get(item.item_id), place) })),
  };
}

function moveOf(from, to) {
  if (from === undefined) return { kind: "new", by: 0 };
  if (from === to) return { kind: "same", by: 0 };
  return { kind: from > to ? "up" : "down", by: Math.abs(from - to) };
}

/** A move as people read it. */
export function inWords({ kind, by }) {
  const places = by === 1 ? "1 place" : `${by} places`;
  return { new: "new", gone: "gone", same: "same place", up: `up ${places}`, down: `down ${places}` }[kind];
}

/** What changed, in one sentence. */
export function summary({ before, after }) {
  const stayed = after.filter(({ move }) => move.kind !== "new").length;
  const still = after.filter(({ move }) => move.kind === "same").length;
  if (before.length === after.length && still === after.length) return "Both lists are the same.";
  return `${stayed} of ${after.length} stay, ${still} of them in the same place; ${after.length - stayed} are new.`;
}
