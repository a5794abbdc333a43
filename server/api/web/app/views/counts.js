// How many documents have each value of a key, beside the hits; a click filters by a value.
import { button, h, stranger } from "../lib/dom.js";
import { number, t } from "../lib/words.js";

const SHOWN = 8;

// facets: as the server counts them. filter: see filters.js. about: which documents were counted.
export function counts(facets, filter, about) {
  const some = facets.filter(({ values }) => values.length);
  return [h("h2", {}, t("search.counts")), h("p.dim", {}, some.length ? about : t("search.counts.none")),
    ...some.map(({ key, values, complete }) => h("div", {}, h("h3", {}, stranger(key)), h("ul", {}, values.slice(0, SHOWN).map(({ value, documents }) =>
      h("li", {}, button([stranger(String(value)), h("span.dim", {}, number(documents))], () => filter.flip(key, value), { "aria-pressed": String(filter.has(key, value)), data: { key, value: JSON.stringify(value) } }))),
    (!complete || values.length > SHOWN) && h("li.dim", {}, "…"))))];
}
