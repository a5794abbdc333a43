// Why a hit stands where it stands: both halves of its score, and the words of the query that it has.
import { h, stranger } from "../lib/dom.js";
import { number, t } from "../lib/words.js";

// explain: asks the server, and resolves to the hit with its explanation, or to nothing where it is gone.
// failure: an element for an error.
export function why(explain, failure) {
  const body = h("div.reasons", { role: "status" });
  const details = h("details.why", { on: { toggle: () => { if (details.open && !body.childElementCount) fill(); } } }, h("summary", {}, t("search.why")), body);

  async function fill() {
    body.replaceChildren(h("p.dim", {}, "…"));
    try {
      const hit = await explain();
      body.replaceChildren(...(hit ? reasons(hit) : [h("p.dim", {}, t("search.document.gone"))]));
    } catch (error) {
      if (error.name !== "AbortError") body.replaceChildren(failure(error, fill));
    }
  }
  return details;
}

function reasons({ score, explanation: { cosine, words, fusion } }) {
  const share = words ? words.share : 0, figure = (value) => number(value, 3);
  return [
    cosine !== null && h("p", {}, t("search.why.dense", { cosine: figure(cosine) })),
    words && h("p", {}, t("search.why.lexical", { share: figure(share), bm25: number(words.bm25, 2), most: number(words.attainable, 2) })),
    fusion && h("p", {}, t("search.why.hybrid", { dense: number(fusion.weights.dense, 2), cosine: figure(cosine ?? 0), lexical: number(fusion.weights.lexical, 2), share: figure(share), score: figure(score) })),
    words && words.terms.length > 0 && h("ul.terms", { "aria-label": t("search.why.terms") }, words.terms.map(term)),
  ].filter(Boolean);
}

function term({ term: text, parts, weight, matched }) {
  const said = t(matched ? "search.why.found" : "search.why.missing");
  return h(`li${matched ? ".matched" : ""}`, { title: `${said} ${t("search.why.term", { n: parts, weight: number(weight, 2) })}` }, stranger(text), h("span.unseen", {}, ` ${said}`));
}
