// Texts compared by the cosine of their vectors: two with a bar, more as a matrix.
import { patient, post } from "../lib/api.js";
import { button, h, iconButton } from "../lib/dom.js";
import { percent } from "../lib/units.js";
import { add, number, t } from "../lib/words.js";
import words from "../words/compare.js";

add(words);

const MOST = 10;
const PAUSE_MS = 200;
const AS = ["none", "query", "document"];
// Characters of texts that an address may hold.
const IN_ADDRESS = 1500;

export function mount(root, shell) {
  const rows = [];
  let timer = 0, number_ = 0, controller = null, composing = false;
  const list = h("div.texts");
  const result = h("div.cosines", { "aria-live": "polite" });
  const model = h("select", { id: "compare-model", on: { change: () => compare() } });
  const modelLabel = h("label.inline", { hidden: true }, t("compare.model"), model);
  const more = button(t("compare.add"), () => { row("", "none").field.focus(); compare(); });
  const example = button(t("compare.example"), () => {
    rows[0].field.value = t("compare.example.a");
    rows[1].field.value = t("compare.example.b");
    rows[0].as.value = "query";
    rows[1].as.value = "document";
    compare();
  });
  root.append(h("h1", {}, t("compare.title")), h("p.dim.lead", {}, t("compare.about")), list, h("div.row", {}, more, example, modelLabel), result);

  function row(text, as) {
    const made = {};
    made.name = h("strong");
    made.field = h("textarea", { rows: 3, dir: "auto", placeholder: t("compare.placeholder"), value: text, on: {
      input: (event) => { if (!event.isComposing) soon(); },
      compositionstart: () => { composing = true; }, compositionend: () => { composing = false; soon(); } } });
    made.as = h("select", { on: { change: () => compare() } }, AS.map((each) => h("option", { value: each }, t("compare.as." + each))));
    made.as.value = AS.includes(as) ? as : "none";
    made.remove = iconButton("close", "", () => { rows.splice(rows.indexOf(made), 1); made.element.remove(); name(); compare(); more.focus(); });
    made.element = h("div.text-card", {}, h("header", {}, made.name, h("label.inline", { title: t("compare.as.about") }, h("span", {}, t("compare.as")), made.as), made.remove), made.field);
    rows.push(made);
    list.append(made.element);
    name();
    return made;
  }

  function name() {
    rows.forEach((each, place) => {
      const n = place + 1;
      each.name.textContent = t("compare.text", { n });
      each.field.setAttribute("aria-label", t("compare.text", { n }));
      each.remove.title = t("compare.remove", { n });
      each.remove.setAttribute("aria-label", t("compare.remove", { n }));
      each.remove.hidden = rows.length <= 2;
    });
    more.disabled = rows.length >= MOST;
  }

  function soon() {
    clearTimeout(timer);
    if (!composing) timer = setTimeout(compare, PAUSE_MS);
  }

  async function compare() {
    clearTimeout(timer);
    const own = ++number_;
    controller?.abort();
    controller = new AbortController();
    const { signal } = controller;
    keep();
    const there = rows.map((each, place) => ({ text: each.field.value.trim(), as: each.as.value, n: place + 1 })).filter((each) => each.text);
    example.hidden = there.length > 0;
    if (there.length < 2) return result.replaceChildren(h("p.dim", {}, t("compare.wait")));
    try {
      const found = await Promise.all(AS.map(async (as) => {
        const texts = there.filter((each) => each.as === as);
        if (texts.length === 0) return;
        const body = { texts: texts.map((each) => each.text), input_type: as, ...(model.value ? { model: model.value } : {}) };
        const { vectors } = await post("embed", body, { signal });
        texts.forEach((each, place) => { each.vector = vectors[place]; });
      }));
      if (own === number_ && found) draw(there);
    } catch (error) {
      if (own === number_ && error.name !== "AbortError") result.replaceChildren(shell.failure(error, compare));
    }
  }

  function draw(there) {
    if (there.length > 2) return result.replaceChildren(matrix(there));
    const cosine = cosineOf(there[0].vector, there[1].vector);
    result.replaceChildren(h("div.cosine", {}, h("span", {}, t("compare.cosine")), h("strong", {}, number(cosine, 3)),
      h("span.bar", { "aria-hidden": "true" }, h("span", { style: { width: percent(Math.max(0, cosine)) } }))));
  }

  function matrix(there) {
    const pairs = there.flatMap((a, place) => there.slice(0, place).map((b) => cosineOf(a.vector, b.vector)));
    const low = Math.min(...pairs), high = Math.max(...pairs);
    const cell = (a, b) => {
      if (a === b) return h("td.same", {}, "1");
      const cosine = cosineOf(a.vector, b.vector);
      const shade = high > low ? (cosine - low) / (high - low) : 0.5;
      return h("td", { title: t("compare.pair", { a: a.n, b: b.n, cosine: number(cosine, 3) }), style: { "--shade": percent(0.05 + 0.45 * shade) } }, number(cosine, 3));
    };
    return h("div.matrix", { tabindex: 0, role: "region", "aria-label": t("compare.matrix") }, h("table", {}, h("caption", {}, t("compare.matrix")),
      h("thead", {}, h("tr", {}, h("td"), there.map((each) => h("th", { scope: "col" }, each.n)))),
      h("tbody", {}, there.map((a) => h("tr", {}, h("th", { scope: "row" }, h("span", { dir: "auto" }, `${a.n}  ${Array.from(a.text).slice(0, 24).join("")}`)), there.map((b) => cell(a, b)))))));
  }

  // The address has short texts, so that a comparison has a link.
  function keep() {
    const texts = rows.map((each) => [each.field.value, each.as.value]);
    const written = JSON.stringify(texts);
    shell.set({ t: texts.some(([text]) => text) && written.length <= IN_ADDRESS ? written : null });
  }

  function kept() {
    try {
      const given = JSON.parse(shell.params.t || "[]");
      return Array.isArray(given) ? given.filter((each) => Array.isArray(each) && typeof each[0] === "string").slice(0, MOST) : [];
    } catch { return []; }
  }

  for (const [text, as] of kept()) row(text, as);
  while (rows.length < 2) row("", rows.length ? "document" : "query");
  patient("v1/models", { signal: shell.signal }).then(({ data }) => {
    const models = data.filter((each) => (each.task ?? "dense") === "dense" && !each.id.endsWith(":query"));
    model.append(...models.map((each) => h("option", { value: each.id }, each.id)));
    modelLabel.hidden = models.length < 2;
  }).catch(() => { /* without a list the first model compares */ });
  compare();
  return { unmount() { clearTimeout(timer); controller?.abort(); } };
}

function cosineOf(a, b) {
  let product = 0, ofA = 0, ofB = 0;
  for (let place = 0; place < a.length; place += 1) {
    product += a[place] * b[place];
    ofA += a[place] ** 2;
    ofB += b[place] ** 2;
  }
  return ofA && ofB ? product / Math.sqrt(ofA * ofB) : 0;
}
