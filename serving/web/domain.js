// What is recommended here, and which acts count: pages speak of items and acts in the words of `domain.toml`.
import { ask } from "/web/session.js";

const inWords = (name) => name.replaceAll("_", " ");

/** "thumbs_up" → "Thumbs up" */
export const label = (name) => inWords(name).replace(/^./, (first) => first.toUpperCase());

/** Loads the domain. @throws {Problem} */
export async function loadDomain() {
  return new Domain(await ask("serving", "/v1/domain"));
}

class Domain {
  constructor({ name, items, event_types: types }) {
    this.name = name;
    this.items = items;
    const acts = Object.entries(types).filter(([, type]) => type.history);
    this.weights = new Map(acts.map(([act, type]) => [act, type.weight]));
    // The act of who picks something: what begins it, else whatever comes first.
    this.main = (acts.find(([, type]) => type.begins) ?? acts[0])?.[0];
    this.others = acts.map(([act]) => act).filter((act) => act !== this.main);
    this.showing = Object.keys(types).find((type) => !types[type].history);
  }

  nameOf(item) {
    const name = this.items.name === null ? null : item[this.items.name];
    return String(name ?? item.item_id);
  }

  categoriesOf(item) {
    const value = this.items.category === null ? null : item[this.items.category];
    return [value ?? []].flat().map(String);
  }

  /** The other attributes of an item, as [name, text]. */
  factsOf(item) {
    const told = new Set(["item_id", "because", this.items.name, this.items.category]);
    const facts = Object.entries(item).filter(([name]) => !told.has(name));
    return facts.map(([name, value]) => [label(name), [value].flat().join(", ")]);
  }
}
