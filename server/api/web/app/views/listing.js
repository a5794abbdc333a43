// What stands where nothing is searched: the documents, a page at a time, or how to add the first ones.
import { get, post } from "../lib/api.js";
import { button, h, icon } from "../lib/dom.js";
import { number, t } from "../lib/words.js";
import { excerpt } from "../lib/text.js";
import { about, nameOf } from "./hits.js";

const PAGE = 20;
const EXAMPLES = 4;
const SHOWN = 160;

// valid: whether this is still what should be shown. search: begins a search.
export async function listing(shell, root, filter, signal, valid, search) {
  const known = shell.collections.find((each) => each.name === shell.collection);
  if (!filter.value() && (!known || known.documents === 0)) return root.replaceChildren(empty(shell));
  // Pages are counted from 0. The first has no cursor.
  const { after } = shell.params, turned = after ? Math.max(1, Number(shell.params.page) || 1) : 0;
  const query = new URLSearchParams({ limit: PAGE });
  if (after) query.set("after", after);
  const cursors = cursorsOf(`${shell.collection} ${shell.params.f || ""}`);
  cursors[turned] = after;
  if (filter.value()) query.set("filter", JSON.stringify(filter.value()));
  root.setAttribute("aria-busy", "true");
  try {
    const [page, { count }] = await Promise.all([
      get(shell.at("documents?" + query), { signal }),
      post(shell.at("documents/count"), filter.value() ? { filter: filter.value() } : {}, { signal }),
    ]);
    if (!valid()) return;
    draw(page, count);
  } catch (error) {
    if (!valid() || error.name === "AbortError") return;
    root.replaceChildren(shell.failure(error, () => listing(shell, root, filter, signal, valid, search)));
  }
  root.removeAttribute("aria-busy");

  function draw({ documents, next }, count) {
    const from = PAGE * turned, last = next === null || from + documents.length >= count;
    const turn = (page, cursor) => { shell.set({ after: cursor, page: cursor && page }, { replace: false }); scrollTo(0, 0); };
    const said = count ? t("search.range", { from: from + 1, to: from + documents.length, n: count }) : t("search.nothing");
    root.replaceChildren(
      turned === 0 && !filter.value() ? examples(documents, search) : "",
      h("div.browse", {},
        h("header.pager", {}, h("h2", {}, t("search.documents", { n: count })), h("span.range", { role: "status" }, said),
          button(icon("left"), () => turn(turned - 1, cursors[turned - 1] ?? null), { "aria-label": t("search.previous"), title: t("search.previous"), disabled: turned === 0, id: "previous" }),
          button(icon("right"), () => turn(turned + 1, next), { "aria-label": t("search.next"), title: t("search.next"), disabled: last, id: "next" })),
        h("ol.hits", {}, documents.map((each, place) => row(each, from + place)))));
  }

  function row(document_, place) {
    const href = shell.link("search", { ...shell.params, doc: document_.id });
    return h("li.hit", { data: { id: document_.id } },
      h("div.hit-head", {}, h("span.rank", {}, number(place + 1)), h("a.hit-title", { href, dir: "auto" }, document_.title || nameOf(document_.id))),
      h("p.snippet", { dir: "auto" }, excerpt(document_.text, [], SHOWN)),
      h("div.hit-foot", {}, about(document_.metadata)));
  }
}

// The cursors of the pages that were seen, by page. A reader who came by a link to a page goes back to the first.
const seen = new Map();

function cursorsOf(list) {
  if (!seen.has(list)) seen.set(list, []);
  return seen.get(list);
}

// The beginnings of some documents, as things to search for.
function examples(documents, search) {
  const said = new Set(documents.map((each) => first(each.title || each.text)).filter((each) => each.length > 1));
  if (said.size === 0) return "";
  return h("p.examples", {}, t("search.try"), " ", [...said].slice(0, EXAMPLES).map((each) => button(h("bdi", {}, each), () => search(each))));
}

function first(text) {
  const sentence = text.trim().split(/[。！？\n，；：,;:]|[.!?]\s/)[0];
  return Array.from(sentence).slice(0, 24).join("").trim();
}

function empty(shell) {
  const curl = `curl ${new URL(shell.at("documents"), new URL(".", location.href))} \\\n  -H 'content-type: application/json' \\\n  -d '{"documents": [{"text": "..."}]}'`;
  const command = shell.collection === "default" ? "inkwell index docs/" : `inkwell index docs/ --collection ${shell.collection}`;
  return h("div.empty", {},
    h("h2", {}, t("search.empty")), h("p", {}, t("search.empty.about")),
    shell.may("write")
      ? h("ul", {}, h("li", { id: "empty-add" }, h("a", { href: shell.link("add") }, t("search.empty.page"))), h("li", {}, t("search.empty.command"), h("pre", { tabindex: 0 }, command)), h("li", {}, t("search.empty.curl"), h("pre", { tabindex: 0 }, curl)))
      : h("p.warning", {}, t("search.empty.key")));
}
