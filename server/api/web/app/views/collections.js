// The collections: what each holds, how well it is searched, and making and deleting them.
import { get, patient, post, remove, within } from "../lib/api.js";
import { button, h, iconButton, stranger } from "../lib/dom.js";
import { hash } from "../lib/route.js";
import { ago, bytes, moment, percent } from "../lib/units.js";
import { add, number, t } from "../lib/words.js";
import words from "../words/collections.js";

add(words);

const COLUMNS = ["name", "documents", "parts", "model", "changed", "size", "recall"];
const SIZES = [128, 200, 256, 384];
const EVERY_MS = 2000;
// Requests at the same time.
const AT_ONCE = 4;
const UNKNOWN = "–";

export function mount(root, shell) {
  const rows = new Map();
  const body = h("tbody");
  const said = h("div", { role: "status" });
  let timer = 0;
  root.append(
    h("header.pager", {}, h("h1", {}, t("collections.title")), h("span.range"), shell.may("write") && button(t("collections.create"), create, { id: "create" })),
    said,
    h("table.collections", {}, h("thead", {}, h("tr", {}, COLUMNS.map((each) => h(`th.${each}`, { scope: "col" }, t("collections." + each))), h("td"))), body));

  async function load() {
    clearTimeout(timer);
    try {
      const { collections, damaged } = await get("collections", { signal: shell.signal });
      rows.clear();
      body.replaceChildren(...collections.map((each) => {
        const row = h("tr", { data: { name: each.name } });
        rows.set(each.name, row);
        fill(row, each, null);
        return row;
      }));
      if (damaged.length) said.replaceChildren(h("p.bad", {}, t("collections.damaged", { names: damaged.join(", ") })));
      await details(collections);
    } catch (error) {
      if (error.name !== "AbortError") said.replaceChildren(shell.failure(error, load));
    }
  }

  async function details(collections) {
    const waiting = [...collections];
    let running = false;
    const next = async () => {
      for (let each; (each = waiting.shift());) {
        const stats = await patient(within(each.name, "stats"), { signal: shell.signal }).catch((error) => { if (error.status !== 404) throw error; });
        if (!stats) continue;
        running = running || stats.reindexing !== null;
        const row = rows.get(each.name);
        if (row && !row.contains(document.activeElement)) fill(row, each, stats);
      }
    };
    await Promise.all(Array.from({ length: AT_ONCE }, next));
    if (running && !shell.signal.aborted) timer = setTimeout(() => details(collections).catch(() => {}), EVERY_MS);
  }

  function fill(row, { name, documents }, stats) {
    const link = (view, label, params = {}) => h("a", { href: hash(view, { c: name, ...params }) }, label, h("span.unseen", {}, " " + name));
    const cell = (key, ...content) => h(`td.${key}`, { data: { label: t("collections." + key) } }, content);
    row.replaceChildren(
      h("th.name", { scope: "row" }, h("a", { href: hash("search", { c: name }) }, stranger(name)), stats && notes(stats)),
      cell("documents", counted(stats ? stats.documents : documents)),
      ...(stats ? [
        cell("parts", counted(stats.parts)),
        cell("model", stats.model ? stranger(stats.model) : h("span.warning", { title: t("collections.model.gone.about", { fingerprint: stats.fingerprint }) }, t("collections.model.gone"))),
        cell("changed", stats.changed ? h("time", { datetime: stats.changed, title: moment(stats.changed) }, ago(stats.changed)) : t("collections.never")),
        cell("size", bytes(stats.bytes)),
        cell("recall", stats.database ? UNKNOWN : recall(stats))] : COLUMNS.slice(2).map((each) => cell(each, "…"))),
      h("td.acts", {}, documents > 0 && link("map", t("collections.map")), shell.may("write") && link("add", t("collections.add")),
        shell.may("admin") && h("button.quiet", { type: "button", on: { click: () => confirm(name, documents) }, "aria-label": `${t("collections.remove")} ${name}` }, t("collections.remove"))));
  }

  // A vector database that does not answer does not say how many there are.
  function counted(value) {
    return value === null ? UNKNOWN : number(value);
  }

  function recall(stats) {
    if (stats.recall === null) return h("span.dim", { title: t("collections.recall.exact.about") }, t("collections.recall.exact"));
    return h("span", { title: t("collections.recall.about") }, percent(stats.recall, 1));
  }

  function notes(stats) {
    const found = [];
    if (stats.reindexing) found.push(h("p.dim", {}, t("collections.reindexing", stats.reindexing), h("span.bar", {}, h("span", { style: { width: percent(stats.reindexing.done / Math.max(1, stats.reindexing.total)) } }))));
    if (stats.database) found.push(h("p.dim", {}, t("collections.elsewhere", { name: stats.database.name })));
    if (stats.database && !stats.database.up) found.push(h("p.warning", {}, t("collections.away")));
    if (stats.database?.waiting) found.push(h("p.warning", {}, t("collections.waiting", { n: stats.database.waiting })));
    if (stats.database?.refused) found.push(h("p.bad", {}, t("collections.refused", { message: stats.database.refused })));
    if (stats.reindex_error) found.push(h("p.bad", {}, t("collections.reindex.error", { message: stats.reindex_error })));
    if (stats.agreement !== null && stats.agreement < 0.999) found.push(h("p.warning", {}, t("collections.agreement", { cosine: number(stats.agreement, 4) })));
    return found;
  }

  // --- dialogs -------------------------------------------------------------------------------------

  // act: resolves when it is done. The dialog stays open where it fails, and says why.
  function sheet(title, content, label, act, attributes = {}) {
    const wrong = h("div", { role: "alert" });
    const submit = h("button.primary", { type: "submit", ...attributes }, label);
    const back = document.activeElement;
    const dialog = h("dialog.sheet", { "aria-labelledby": "sheet-title", on: { close: () => { dialog.remove(); back?.focus?.(); } } },
      h("header", {}, h("h2", { id: "sheet-title" }, title), iconButton("close", t("close"), () => dialog.close())),
      h("form", { on: { submit: async (event) => {
        event.preventDefault();
        submit.disabled = true;
        try {
          await act();
          dialog.close();
          await Promise.all([load(), shell.refresh()]);
        } catch (error) {
          submit.disabled = false;
          if (error.name !== "AbortError") wrong.replaceChildren(shell.failure(error));
        }
      } } }, content, wrong, h("div.row", {}, submit, button(t("collections.cancel"), () => dialog.close()))));
    document.body.append(dialog);
    // Its view may be left by "back" or by another key.
    shell.signal.addEventListener("abort", () => dialog.close());
    dialog.showModal();
    return submit;
  }

  function confirm(name, n) {
    const typed = h("input", { id: "confirm", type: "text", autocomplete: "off", spellcheck: "false", on: { input: () => { submit.disabled = typed.value !== name; } } });
    const content = [h("p", {}, t("collections.remove.about", { n })), h("label", { for: "confirm" }, stranger(t("collections.remove.type", { name }))), typed];
    const submit = sheet(h("span", {}, stranger(t("collections.remove.title", { name }))), content, t("collections.remove.do"), async () => {
      await remove("collections/" + encodeURIComponent(name), { signal: shell.signal });
      said.replaceChildren(h("p.good", {}, stranger(t("collections.removed", { name }))));
      if (name === shell.params.c) shell.set({ c: null }, { replace: false });
    }, { disabled: true, class: "danger" });
    typed.focus();
  }

  async function create() {
    const { data } = await get("v1/models", { signal: shell.signal }).catch(() => ({ data: [] }));
    const models = data.filter((each) => (each.task ?? "dense") === "dense").map((each) => each.id).filter((each) => !each.endsWith(":query"));
    const name = h("input", { id: "name", type: "text", required: true, autocomplete: "off", spellcheck: "false" });
    const model = h("select", { id: "model" }, models.map((each) => h("option", { value: each }, each)));
    const chunks = h("select", { id: "chunks" }, ["default", ...SIZES, "none"].map((each) => h("option", { value: each }, typeof each === "number" ? t("collections.chunks.size", { n: each }) : t("collections.chunks." + each))));
    const content = [h("label", { for: "name" }, t("collections.name")), name,
      models.length > 1 && [h("label", { for: "model" }, t("collections.model")), model],
      h("label", { for: "chunks" }, t("collections.chunks")), chunks, h("p.dim", {}, t("collections.chunks.about"))];
    sheet(t("collections.create"), content.flat().filter(Boolean), t("collections.do"), async () => {
      const size = Number(chunks.value);
      const given = chunks.value === "none" ? { chunks: null } : size ? { chunks: { size, overlap: Math.round(size / 8) } } : {};
      if (models.length > 1) given.model = model.value;
      await post("collections", { name: name.value.trim(), ...given }, { signal: shell.signal });
      said.replaceChildren(h("p.good", {}, stranger(t("collections.created", { name: name.value.trim() }))));
    });
    name.focus();
  }

  load();
  return { unmount() { clearTimeout(timer); } };
}
