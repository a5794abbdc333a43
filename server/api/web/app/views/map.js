// A map of the collection: a sample of its chunks on a plane, coloured by metadata, with the nearest to a text.
import { get } from "../lib/api.js";
import { h, stranger } from "../lib/dom.js";
import { plane } from "../lib/plane.js";
import { percent } from "../lib/units.js";
import { add, number, t } from "../lib/words.js";
import words from "../words/map.js";
import searchWords from "../words/search.js";
import { filters } from "./filters.js";
import { nameOf } from "./hits.js";

add(searchWords);
add(words);

// Values with a colour of their own; the others share one.
const COLOURS = 8;
const NEAREST = 20, LISTED = 8;
const PAUSE_MS = 300;
const SAMPLES = [500, 1000, 2000, 5000];

export function mount(root, shell) {
  const field = h("input", { type: "search", id: "find", autocomplete: "off", spellcheck: "false", "aria-label": t("map.find"), placeholder: t("map.find.placeholder"), value: shell.params.q || "", dir: "auto" });
  const colour = h("select", { id: "colour", on: { change: () => { shell.set({ by: colour.value || null }); paintBy(); } } });
  const sample = h("select", { id: "sample", on: { change: () => { shell.set({ n: sample.value === "2000" ? null : sample.value }); load(); } } }, SAMPLES.map((each) => h("option", { value: each }, number(each))));
  sample.value = SAMPLES.includes(Number(shell.params.n)) ? shell.params.n : 2000;
  const said = h("p.dim.lead", { role: "status" });
  const stage = h("div.stage"), side = h("aside.detail", { "aria-live": "polite" }), legend = h("div.legend", { role: "group", "aria-label": t("map.legend") });
  const filter = filters(shell, () => load());
  root.append(h("h1.unseen", {}, stranger(t("map.title", { name: shell.collection }))),
    h("form.ask", { role: "search", on: { submit: (event) => { event.preventDefault(); soon(0); } } }, h("div.field.plain", {}, field),
      h("label.inline", {}, t("map.colour"), colour), h("label.inline", {}, t("map.sample"), sample)),
    h("div.options", {}, filter.element), h("div.map", {}, h("div", {}, stage, said), h("div.aside", {}, legend, side)));

  let found = null, drawing = null, near = new Set(), shade = () => "", controller = null, own = 0, timer = 0, composing = false, panel = null;
  const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  let ink = {};

  // --- asking --------------------------------------------------------------------------------------

  async function load() {
    const mine = ++own;
    clearTimeout(timer);
    controller?.abort();
    controller = new AbortController();
    const query = new URLSearchParams({ sample: sample.value });
    if (filter.value()) query.set("filter", JSON.stringify(filter.value()));
    if (shell.params.q) query.set("query", shell.params.q);
    stage.setAttribute("aria-busy", "true");
    try {
      const answer = await get(shell.at("map?" + query), { signal: controller.signal });
      if (mine === own) show(answer);
    } catch (error) {
      if (mine !== own || error.name === "AbortError") return;
      stage.replaceChildren(shell.failure(error, load));
    }
    if (mine === own) stage.removeAttribute("aria-busy");
  }

  function soon(pause = PAUSE_MS) {
    clearTimeout(timer);
    if (composing) return;
    timer = setTimeout(() => {
      if (field.value.trim() === (shell.params.q || "")) return;
      shell.set({ q: field.value.trim() });
      load();
    }, pause);
  }

  // --- drawing -------------------------------------------------------------------------------------

  function show(answer) {
    found = answer;
    drawing?.close();
    drawing = null;
    side.replaceChildren();
    legend.replaceChildren();
    const { points, chunks, sampled, variance } = answer;
    if (points.length === 0) {
      said.replaceChildren();
      return stage.replaceChildren(h("p.notice", {}, t(filter.value() ? "map.empty.filter" : "map.empty"), " ", !filter.value() && shell.may("write") && h("a", { href: shell.link("add") }, t("map.add"))));
    }
    said.replaceChildren(sampled ? t("map.shows", { n: points.length, of: chunks }) : t("map.all", { n: chunks }), t("map.variance", { percent: percent(variance[0] + variance[1]) }));
    const ranked = answer.query ? [...points].sort((a, b) => b.score - a.score) : [];
    near = new Set(ranked.slice(0, NEAREST));
    const canvas = h("canvas", { tabindex: 0, role: "img", "aria-label": t("map.canvas", { n: points.length }) });
    stage.replaceChildren(canvas, h("div.zooms", {}, sign("map.in", "+", () => drawing.zoom(1.5)), sign("map.out", "−", () => drawing.zoom(1 / 1.5)), sign("map.whole", "⤢", () => drawing.whole())));
    const all = answer.query ? [...points, answer.query] : points;
    const order = [...all].sort((a, b) => near.has(a) - near.has(b));
    drawing = plane(canvas, { points, paint, order: () => order, chosen: (point) => tell(point, ranked), open });
    choices();
    paintBy();
    tell(null, ranked);
  }

  const sign = (key, label, act) => h("button", { type: "button", title: t(key), "aria-label": t(key), on: { click: act } }, label);

  function paint(context, point, x, y, current) {
    const size = found.points.length > 500 ? 3.2 : found.points.length > 100 ? 4.2 : 6;
    context.beginPath();
    if (point === found.query) return star(context, x, y);
    const dim = found.query && !near.has(point) && colour.value !== "score";
    context.globalAlpha = current ? 1 : dim ? 0.22 : 0.8;
    context.fillStyle = shade(point);
    context.arc(x, y, size + (current ? 2.5 : near.has(point) ? 1.5 : 0), 0, 7);
    context.fill();
    if (current || near.has(point)) {
      context.globalAlpha = 1;
      context.lineWidth = current ? 2.5 : 1.5;
      context.strokeStyle = ink.ink;
      context.stroke();
    }
    context.globalAlpha = 1;
  }

  function star(context, x, y) {
    for (let turn = 0; turn < 10; turn += 1) {
      const size = turn % 2 ? 4 : 10, angle = Math.PI * (turn / 5 - 0.5);
      context.lineTo(x + size * Math.cos(angle), y + size * Math.sin(angle));
    }
    context.closePath();
    context.fillStyle = ink.accent;
    context.strokeStyle = ink.paper;
    context.lineWidth = 2;
    context.stroke();
    context.fill();
  }

  // --- colours -------------------------------------------------------------------------------------

  function choices() {
    const counts = new Map();
    for (const { metadata } of found.points) for (const key of Object.keys(metadata)) counts.set(key, (counts.get(key) || 0) + 1);
    const keys = [...counts].sort((a, b) => b[1] - a[1]).map(([key]) => key).filter((key) => distinct(key).length > 1);
    const useful = (key) => { const n = distinct(key).length; return n <= 30 ? 0 : 1; };
    keys.sort((a, b) => useful(a) - useful(b));
    colour.replaceChildren(h("option", { value: "" }, t("map.colour.none")), found.query && h("option", { value: "score" }, t("map.colour.score")) || "", ...keys.map((key) => h("option", { value: "m:" + key }, key)));
    const wanted = shell.params.by ?? (keys.length && useful(keys[0]) === 0 ? "m:" + keys[0] : "");
    colour.value = [...colour.options].some((each) => each.value === wanted) ? wanted : "";
  }

  const distinct = (key) => [...new Set(found.points.map(({ metadata }) => metadata[key]).filter((value) => value !== undefined))];

  function paintBy() {
    if (!found?.points.length) return;
    ink = Object.fromEntries(["ink", "paper", "accent", "dim", "low", "high"].map((each) => [each, style("--" + each)]));
    const by = colour.value, key = by.slice(2);
    const values = by === "score" ? found.points.map((each) => each.score) : by ? distinct(key) : [];
    legend.replaceChildren();
    if (!by) shade = () => ink.accent;
    else if (by === "score" || (values.length > COLOURS && values.every((each) => typeof each === "number"))) scale(by === "score" ? (point) => point.score : (point) => point.metadata[key], values, by === "score" ? 2 : null);
    else categories(key);
    drawing?.draw();
  }

  function scale(valueOf, values, digits) {
    const low = Math.min(...values), high = Math.max(...values);
    const [from, to] = [rgb(ink.low), rgb(ink.high)];
    shade = (point) => {
      const value = valueOf(point);
      if (typeof value !== "number") return ink.dim;
      const share = high > low ? (value - low) / (high - low) : 1;
      return `rgb(${from.map((each, place) => Math.round(each + (to[place] - each) * share)).join(" ")})`;
    };
    const shown = (value) => (digits === null ? String(value) : number(value, digits));
    legend.append(h("div.scale", {}, h("span", {}, shown(low)), h("span.ramp"), h("span", {}, shown(high))));
  }

  function categories(key) {
    const counts = new Map();
    for (const { metadata } of found.points) if (metadata[key] !== undefined) counts.set(metadata[key], (counts.get(metadata[key]) || 0) + 1);
    const ranked = [...counts].sort((a, b) => b[1] - a[1]);
    const own = ranked.slice(0, COLOURS);
    const colours = new Map(own.map(([value], place) => [value, style(`--c${place}`)]));
    shade = ({ metadata }) => colours.get(metadata[key]) || ink.dim;
    const total = (list) => list.reduce((sum, [, n]) => sum + n, 0);
    const line = (name, n, value) => h("li", {}, h("span.dot", { style: { background: value } }), name, h("span.dim", {}, number(n)));
    const missing = found.points.length - total(ranked);
    legend.append(h("ul", {}, own.map(([value, n]) => line(stranger(String(value)), n, colours.get(value))),
      ranked.length > own.length && line(t("map.others"), total(ranked.slice(own.length)), ink.dim), missing > 0 && line(t("map.without"), missing, ink.dim)));
  }

  // --- what is chosen ------------------------------------------------------------------------------

  function tell(point, ranked) {
    if (point === null || point === found.query) {
      if (!found.query) return side.replaceChildren(h("p.dim", {}, t("map.pick")));
      return side.replaceChildren(h("h2", {}, stranger(t("map.nearest", { text: shell.params.q || "" }))), h("ol.nearest", {}, ranked.slice(0, LISTED).map((each) =>
        h("li", {}, h("button.link", { type: "button", on: { click: () => drawing.show(each) }, dir: "auto" }, each.title || each.text.slice(0, 40) || nameOf(each.id)), h("span.figure", {}, number(each.score, 3))))));
    }
    const rows = Object.entries(point.metadata).slice(0, 8);
    side.replaceChildren(
      h("h2", { dir: "auto" }, point.title || nameOf(point.id)),
      point.score !== undefined && h("p.dim", {}, t("map.score", { score: number(point.score, 3) })) || "",
      h("p.chunk", { dir: "auto" }, point.text),
      h("dl.metadata", {}, rows.map(([name, value]) => [h("dt", {}, stranger(name)), h("dd", {}, stranger(String(value)))])),
      h("div.row", {}, h("button", { type: "button", on: { click: () => open(point) } }, t("map.open")),
        h("a.button", { href: shell.link("search", { q: Array.from(point.text).slice(0, 100).join("").trim() }) }, t("map.like"))));
  }

  async function open(point) {
    panel?.close();
    const back = document.activeElement;
    panel = await shell.openDocument(point.id, { ...point.part, closed: () => back?.focus?.() });
  }

  // --- start ---------------------------------------------------------------------------------------

  field.addEventListener("compositionstart", () => { composing = true; });
  field.addEventListener("compositionend", () => { composing = false; soon(); });
  field.addEventListener("input", (event) => { if (!event.isComposing) soon(); });
  const dark = matchMedia("(prefers-color-scheme: dark)");
  addEventListener("themechange", paintBy);
  dark.addEventListener("change", paintBy);
  load();
  return {
    update(params) {
      field.value = params.q || "";
      filter.draw();
      load();
    },
    unmount() {
      clearTimeout(timer);
      controller?.abort();
      drawing?.close();
      panel?.close();
      removeEventListener("themechange", paintBy);
      dark.removeEventListener("change", paintBy);
    },
  };
}

const rgb = (hex) => [1, 3, 5].map((place) => parseInt(hex.slice(place, place + 2), 16));
