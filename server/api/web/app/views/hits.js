// The hits of one way to search, as a column of cards.
import { h, stranger } from "../lib/dom.js";
import { excerpt } from "../lib/text.js";
import { number, t } from "../lib/words.js";

export const MODES = ["dense", "hybrid", "lexical"];
const SHOWN = 220;
const MOST_ROWS = 5;
const PLACES = ["file", "page", "slide", "sheet", "row", "heading"];
// An id that the server derived from the text says nothing to a reader.
const DERIVED = /^[0-9a-f]{20,64}$/;

export const nameOf = (id) => (DERIVED.test(id) ? "#" + id.slice(0, 8) : id);

// ranks: those of the same document in the other columns. acts: what can be done with the hit.
export function card(hit, rank, mode, hits, ranks, href, acts) {
  const reranked = hit.rerank_score !== undefined;
  const score = reranked ? hit.rerank_score : hit.score;
  const best = mode === "lexical" && !reranked ? Math.max(hits[0].score, 1e-9) : 1;
  const share = Math.min(1, Math.max(0, score / best));
  const figure = number(score, mode === "lexical" && !reranked && score >= 1 ? 1 : 3);
  return h("li.hit", { data: { id: hit.id, mode } },
    h("div.hit-head", {},
      h("span.rank", {}, number(rank + 1)),
      h("a.hit-title", { href, dir: "auto" }, hit.title || nameOf(hit.id)),
      h("span.score", { title: t(`search.score.${reranked ? "rerank" : mode}`, { score: figure }) },
        h("span.bar", {}, h("span", { style: { width: `${100 * share}%` } })), h("span.figure", {}, figure))),
    h("p.snippet", { dir: "auto" }, excerpt(hit.text, hit.highlights || [], SHOWN)),
    h("div.hit-foot", {}, about(hit.metadata), ranks && h("span.ranks", {}, MODES.filter((each) => each !== mode).map((each) => rankIn(each, ranks[each])))),
    h("div.acts", {}, acts));
}

function rankIn(mode, rank) {
  const found = rank !== undefined;
  const said = found ? t("search.rank", { mode: t("search." + mode), rank: rank + 1 }) : t("search.rank.none", { mode: t("search." + mode) });
  return h(`span.rank-in.${mode}${found ? "" : ".missing"}`, { title: said },
    h("span", { "aria-hidden": "true" }, `${t(`search.${mode}.short`)} ${found ? rank + 1 : "–"}`), h("span.unseen", {}, said));
}

// Where the text stands in its file, and other metadata: short values in a line, the rest is in the panel.
export function about(metadata) {
  const place = placeOf(metadata);
  const rows = Object.entries(metadata).filter(([name, value]) => !name.startsWith("_") && !(place && PLACES.includes(name)) && value !== null && typeof value !== "object");
  return h("span.about", {}, place && h("span.place", {}, stranger(place, "b")),
    rows.slice(0, MOST_ROWS).map(([name, value]) => h("span", {}, stranger(name), " ", stranger(short(String(value)), "b"))));
}

// The server's places: file, then page, slide, sheet and row, and the path of headings.
export function placeOf({ file, page, slide, sheet, row, heading }) {
  if (typeof file !== "string") return "";
  const said = [file, page && t("search.page", { at: page }), slide && t("search.slide", { at: slide }), sheet, row && t("search.row", { at: row }),
    Array.isArray(heading) ? heading.join(" › ") : heading];
  return said.filter((each) => typeof each === "string" && each).map(short).join(" · ");
}

const short = (text) => (text.length > 40 ? Array.from(text).slice(0, 39).join("") + "…" : text);

export function waiting() {
  return h("ol.hits.waiting", { "aria-hidden": "true" }, Array.from({ length: 4 }, () => h("li.hit", {}, h("span"), h("span"), h("span"))));
}
