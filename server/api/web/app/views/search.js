// Search as you type: by meaning, by words and by both, side by side. Without a query it lists the documents.
import { patient, post, sentence } from "../lib/api.js";
import { button, h, icon, iconButton, segmented, stranger } from "../lib/dom.js";
import { add, number, t } from "../lib/words.js";
import words from "../words/search.js";
import { listing } from "./listing.js";
import { filters } from "./filters.js";
import { card, MODES, nameOf, waiting } from "./hits.js";
import { counts } from "./counts.js";
import { why } from "./why.js";

add(words);

// A fast server is asked 30 ms after the last key; a slow one is spared: after a third of what it took last.
const PAUSE_MS = { least: 30, most: 400 };
const DEPTHS = [5, 10, 20, 50, 100, 200, 500, 1000];
// A reranker reads at most so many candidates, and a column shows so many hits.
const MOST_RERANKED = 200, MOST = 1000;
const NARROW = matchMedia("(max-width: 60rem)");

export function mount(root, shell) {
  const state = { query: "", took: 0, composing: false, number: 0, controller: null, timer: 0, found: {}, shown: "", names: new Map() };
  const field = h("input", { type: "search", id: "query", name: "q", autocomplete: "off", spellcheck: "false", enterkeyhint: "search",
    "aria-label": t("search.label"), placeholder: t("search.placeholder"), value: shell.params.q || "" });
  const clear = iconButton("close", t("search.clear"), () => { field.value = ""; field.focus(); soon(0); }, { id: "clear" });
  const modes = h("div"), options = h("div.options");
  const brings = h("span.brings", { role: "status" });
  const results = h("div.results");
  root.append(
    h("form.ask", { role: "search", on: { submit: (event) => { event.preventDefault(); soon(0); } } }, h("div.field", {}, icon("search"), field, clear), modes),
    options, results);

  const mode = () => (MODES.includes(shell.params.mode) ? shell.params.mode : NARROW.matches ? "hybrid" : "all");
  const like = () => shell.params.like || "";
  // Documents like another one are found by meaning alone.
  const columns = () => (like() ? ["dense"] : mode() === "all" && !NARROW.matches ? MODES : [mode() === "all" ? "hybrid" : mode()]);
  const depth = () => (DEPTHS.includes(Number(shell.params.n)) ? Number(shell.params.n) : 10);
  const reranked = () => Boolean(shell.params.rerank && state.scorer && !like());
  const filter = filters(shell, () => ask(), () => { drawOptions(); if (shell.params.counts) ask(); });
  // One column counts: the words say which documents, where they are searched.
  const counting = () => (shell.params.counts && filter.countable().length ? (columns().includes("lexical") ? "lexical" : columns()[0]) : "");

  // What the hits depend on; opening a document changes none of it.
  const asked = () => ["q", "mode", "n", "f", "after", "page", "rerank", "like", "counts"].map((name) => shell.params[name] || "").join("\n");

  // --- asking --------------------------------------------------------------------------------------

  function soon(pause = Math.min(PAUSE_MS.most, Math.max(PAUSE_MS.least, state.took / 3))) {
    clearTimeout(state.timer);
    if (state.composing) return;
    state.timer = setTimeout(() => {
      if (field.value.trim() === state.query) return;
      shell.set({ q: field.value.trim(), like: null, after: null, page: null });
      ask();
    }, pause);
  }

  // Every answer belongs to a number. One of an older query is never shown: its request is aborted, and what has
  // already come is dropped.
  function ask() {
    const own = ++state.number;
    state.controller?.abort();
    state.controller = new AbortController();
    state.query = (shell.params.q || "").trim();
    state.asked = asked();
    state.found = {};
    clear.hidden = !field.value;
    drawOptions();
    if (!state.query && !like()) return browse(own);
    const shown = columns();
    if (state.shown !== shown.join()) drawColumns(shown);
    brings.replaceChildren(...(like() ? [t("search.like.of"), " ", stranger(state.names.get(like()) || nameOf(like()), "b"), " ", button(t("search.like.end"), () => { shell.set({ like: null }); ask(); field.focus(); }, { class: "link" })] : []));
    for (const each of shown) column(each).setAttribute("aria-busy", "true");
    for (const each of shown) askOne(each, own);
  }

  function bodyOf(each) {
    const body = like() ? { like: { ids: [like()] } } : { query: state.query, highlight: true };
    return Object.assign(body, { mode: each, top_k: depth() }, filter.value() && { filter: filter.value() });
  }

  async function askOne(each, own) {
    const began = performance.now();
    const body = bodyOf(each);
    if (reranked()) Object.assign(body, { top_k: Math.min(MOST_RERANKED, depth()), rerank: {} });
    if (counting() === each) body.facets = filter.countable();
    try {
      const answer = await post(shell.at("search"), body, { signal: state.controller.signal });
      if (own !== state.number) return;
      const took = performance.now() - began;
      state.took = Math.max(took, state.took / 2);
      state.found[each] = { hits: answer.hits, reached: answer.hits.length, more: answer.hits.length === body.top_k, took, warnings: answer.warnings || [] };
      drawFound();
      if (body.facets) drawCounts(answer.facets, each);
    } catch (error) {
      if (own !== state.number || error.name === "AbortError") return;
      drawFailure(each, error);
    }
  }

  // The next hits of one column, behind those that are there.
  async function askMore(each) {
    const own = state.number, found = state.found[each], first = found.hits.length;
    const top_k = Math.min(depth(), MOST - found.reached);
    column(each).setAttribute("aria-busy", "true");
    try {
      const { hits } = await post(shell.at("search"), { ...bodyOf(each), offset: found.reached, top_k }, { signal: state.controller.signal });
      if (own !== state.number) return;
      // Where something was written meanwhile, a hit may come again.
      const known = new Set(found.hits.map((hit) => hit.id));
      found.hits.push(...hits.filter((hit) => !known.has(hit.id)));
      Object.assign(found, { reached: found.reached + hits.length, more: hits.length === top_k });
      drawFound();
      column(each).querySelectorAll(".hit-title")[first]?.focus();
    } catch (error) {
      if (own === state.number && error.name !== "AbortError") drawFailure(each, error);
    }
  }

  // The same search for this hit alone: filters change no score.
  async function explained(hit, each) {
    const own = { $id: hit.id }, body = { ...bodyOf(each), top_k: 1, explain: true };
    body.filter = body.filter ? { $and: [body.filter, own] } : own;
    return (await post(shell.at("search"), body, { signal: state.controller.signal })).hits[0];
  }

  function browse(own) {
    state.shown = "";
    brings.replaceChildren();
    listing(shell, results, filter, state.controller.signal, () => own === state.number, (query) => { field.value = query; soon(0); });
  }

  // --- drawing -------------------------------------------------------------------------------------

  const column = (each) => results.querySelector(`[data-column="${each}"]`);

  function drawColumns(shown) {
    state.shown = shown.join();
    results.replaceChildren(h(`div.beside.by-${shown.length}`, {}, h("section.counts", { "aria-label": t("search.counts"), hidden: true }), h(`div.columns.of-${shown.length}`, {}, shown.map((each) =>
      h(`section.column.${each}`, { "aria-label": t("search." + each), data: { column: each } },
        h("h2", { title: t(`search.${each}.about`) }, t("search." + each), h("small", {}, t(`search.${each}.about`)), h("span.took")), waiting())))));
  }

  function ranksOf(id) {
    const ranks = {};
    for (const [each, { hits }] of Object.entries(state.found)) {
      const rank = hits.findIndex((hit) => hit.id === id);
      if (rank >= 0) ranks[each] = rank;
    }
    return ranks;
  }

  // Ranks in other columns are known when all have answered, so the cards are drawn once more then.
  function drawFound() {
    const shown = columns();
    const complete = shown.length > 1 && shown.every((each) => state.found[each]);
    for (const each of shown) if (state.found[each]) drawColumn(each, complete);
    if (complete) drawBrings();
    const first = state.found[shown[0]];
    if (first) shell.say(t("search.hits", { n: first.hits.length }));
  }

  function drawCounts(facets, each) {
    const place = results.querySelector(".counts"), { key, value } = place.contains(document.activeElement) ? document.activeElement.dataset : {};
    place.replaceChildren(...counts(facets, filter, t(`search.counts.${each === "lexical" ? "lexical" : "all"}`)));
    place.hidden = false;
    if (key) [...place.querySelectorAll("button")].find((one) => one.dataset.key === key && one.dataset.value === value)?.focus();
  }

  function drawColumn(each, complete) {
    const { hits, took, warnings } = state.found[each];
    const place = column(each), kept = place.contains(document.activeElement) && document.activeElement.closest(".hit")?.dataset.id;
    place.removeAttribute("aria-busy");
    place.querySelector(".took").textContent = t("search.took", { n: Math.max(1, Math.round(took)) });
    const list = hits.length
      ? h("ol.hits", {}, hits.map((hit, rank) => card(hit, rank, each, hits, complete && ranksOf(hit.id), linkTo(hit), actsOf(hit, each))))
      : h("p.nothing", {}, t(each === "lexical" ? "search.nothing.lexical" : "search.nothing"));
    const notes = warnings.map((message) => h("p.warning", {}, t("search.warning", { message })));
    place.replaceChildren(place.firstChild, ...notes, list, ...more(each));
    if (kept) place.querySelector(`.hit[data-id="${CSS.escape(kept)}"] a`)?.focus();
  }

  function actsOf(hit, each) {
    state.names.set(hit.id, hit.title || nameOf(hit.id));
    return [button(t("search.like"), () => shell.set({ like: hit.id, q: null, doc: null, at: null }, { replace: false }), { class: "link" }), why(() => explained(hit, each), shell.failure)];
  }

  function more(each) {
    const { reached, more: further } = state.found[each];
    if (!further) return [];
    // A reranker puts more candidates in order where more hits are asked for, so it begins again.
    const next = reranked() ? DEPTHS.find((n) => n > depth() && n <= MOST_RERANKED) : reached < MOST;
    if (!next) return [h("p.dim", {}, t("search.most"))];
    return [button(t("search.more"), () => { if (reranked()) { shell.set({ n: next }); ask(); } else askMore(each); }, { class: "more" })];
  }

  function drawBrings() {
    const known = new Set(state.found.lexical.hits.map((hit) => hit.id));
    const dense = state.found.dense.hits, n = dense.filter((hit) => !known.has(hit.id)).length;
    brings.replaceChildren(dense.length === 0 ? "" : n ? t("search.brings", { n, of: dense.length }) : t("search.brings.none"));
  }

  function drawFailure(each, error) {
    const place = column(each);
    place.removeAttribute("aria-busy");
    // One of them counts down for all, and asks again for all.
    const told = state.told === state.number;
    state.told = state.number;
    place.replaceChildren(place.firstChild, told ? h("p.nothing", {}, error.busy ? "…" : sentence(error)) : shell.failure(error, ask));
  }

  const linkTo = (hit) => shell.link("search", { ...shell.params, doc: hit.id, at: `${hit.part.begin}-${hit.part.end}` });

  function drawOptions() {
    const searching = Boolean(state.query || like());
    const names = NARROW.matches ? MODES : ["all", ...MODES];
    modes.hidden = Boolean(like());
    modes.replaceChildren(segmented(t("search.mode"), names.map((each) => [each, t("search." + each), each === "all" ? null : t(`search.${each}.about`)]),
      NARROW.matches ? columns()[0] : mode(), (chosen) => { shell.set({ mode: chosen === "all" ? null : chosen }); ask(); focusOn(modes, chosen); }));
    const depths = h("select", { id: "depth", on: { change: () => { shell.set({ n: depths.value === "10" ? null : depths.value }); ask(); } } },
      DEPTHS.map((each) => h("option", { value: each }, number(each))));
    depths.value = depth();
    const check = filter.countable().length > 0 && h("label.check", { title: t("search.counts.about") },
      h("input", { type: "checkbox", id: "counts", checked: Boolean(shell.params.counts), on: { change: (event) => { shell.set({ counts: event.target.checked ? "1" : null }); state.shown = ""; ask(); document.getElementById("counts").focus(); } } }), t("search.counts"));
    const rerank = state.scorer && !like() && h("label.check", { title: t("search.rerank.about") },
      h("input", { type: "checkbox", id: "rerank", checked: Boolean(shell.params.rerank), on: { change: (event) => { shell.set({ rerank: event.target.checked ? "1" : null }); ask(); } } }), t("search.rerank"));
    options.replaceChildren(...[filter.element, brings, searching && check, searching && rerank, searching && h("label.inline", {}, t("search.top"), depths)].filter(Boolean));
  }

  const focusOn = (place, value) => place.querySelector(`[data-value="${value}"]`)?.focus();

  // --- keyboard and pointer ------------------------------------------------------------------------

  field.addEventListener("compositionstart", () => { state.composing = true; clearTimeout(state.timer); });
  field.addEventListener("compositionend", () => { state.composing = false; soon(); });
  field.addEventListener("input", (event) => { clear.hidden = !field.value; if (!event.isComposing) soon(); });
  field.addEventListener("keydown", (event) => {
    if (event.isComposing) return;
    if (event.key === "ArrowDown") { event.preventDefault(); results.querySelector(".hit a")?.focus(); }
    if (event.key === "Escape" && field.value) { event.preventDefault(); field.value = ""; soon(0); }
  });
  results.addEventListener("keydown", (event) => {
    const hit = event.target.closest?.(".hit");
    if (hit && /^Arrow/.test(event.key) && move(hit, event.key)) event.preventDefault();
  });
  results.addEventListener("click", (event) => {
    const link = event.target.closest?.(".hit")?.querySelector("a");
    if (link && !event.target.closest("a, button, details") && !String(getSelection())) link.click();
  });
  for (const [event, on] of [["pointerover", true], ["pointerout", false], ["focusin", true], ["focusout", false]]) {
    results.addEventListener(event, ({ target }) => light(target.closest?.(".hit"), on));
  }

  function move(hit, key) {
    const lists = [...results.querySelectorAll(".hits:not(.waiting)")], list = hit.parentElement;
    const place = [...list.children].indexOf(hit);
    const aside = { ArrowLeft: -1, ArrowRight: 1 }[key];
    if (key === "ArrowUp" && place === 0) return field.focus(), true;
    const next = aside ? lists[lists.indexOf(list) + aside]?.children : list.children;
    const wanted = next?.[aside ? Math.min(place, next.length - 1) : place + (key === "ArrowDown" ? 1 : -1)];
    wanted?.querySelector("a").focus();
    return Boolean(wanted);
  }

  // The same document in the other columns.
  function light(hit, on) {
    if (!hit) return;
    for (const each of results.querySelectorAll(`.hit[data-id="${CSS.escape(hit.dataset.id)}"]`)) each.classList.toggle("same", on && each !== hit);
  }

  function onKey(event) {
    const typing = event.target instanceof Element && event.target.closest("input, textarea, select, dialog");
    if (event.key !== "/" || typing || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    field.focus();
    field.select();
  }
  document.addEventListener("keydown", onKey);
  NARROW.addEventListener("change", ask);

  // --- the document in the address -----------------------------------------------------------------

  let panel = null, opened = "";

  async function showDocument() {
    const { doc, at } = shell.params;
    const wanted = doc ? `${doc} ${at}` : "";
    if (wanted === opened) return;
    opened = wanted;
    panel?.close();
    panel = null;
    if (!doc) return;
    const [begin, end] = (at || "").split("-").map(Number);
    const origin = document.activeElement?.closest?.(".hit")?.querySelector("a");
    panel = await shell.openDocument(doc, { begin, end, closed: () => { if (opened === wanted) { opened = ""; shell.set({ doc: null, at: null }, { replace: false }); } origin?.focus(); } });
    if (opened !== wanted) panel.close();
  }

  // --- start ---------------------------------------------------------------------------------------

  patient("v1/models", { signal: shell.signal }).then(({ data }) => {
    state.scorer = data.some((each) => each.task === "score");
    if (state.scorer) drawOptions();
    if (state.scorer && shell.params.rerank && state.query) ask();
  }).catch(() => { /* without a list of models there is no switch for a reranker */ });
  ask();
  showDocument();
  if (!shell.params.doc && matchMedia("(hover: hover)").matches) field.focus();

  return {
    update(params) {
      if (asked() !== state.asked) {
        if ((params.q || "").trim() !== field.value.trim()) field.value = params.q || "";
        filter.draw();
        ask();
      }
      showDocument();
    },
    unmount() {
      clearTimeout(state.timer);
      state.controller?.abort();
      panel?.close();
      document.removeEventListener("keydown", onKey);
      NARROW.removeEventListener("change", ask);
    },
  };
}
