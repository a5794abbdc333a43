// The shell: head, views, collection, key, theme, language and keyboard. README.md says what a view gets.
import { ApiError, get, hasManual, key, within } from "./lib/api.js";
import { openDocument } from "./lib/document.js";
import { h, iconButton } from "./lib/dom.js";
import { failure } from "./lib/failure.js";
import { askKey } from "./lib/key_dialog.js";
import { hash, read, write } from "./lib/route.js";
import { add, LANGUAGES, language, remember, setLanguage, t } from "./lib/words.js";
import { VIEWS } from "./views/index.js";
import shellWords from "./words/shell.js";

add(shellWords);

const THEMES = ["auto", "light", "dark"];
const live = h("div.unseen", { role: "status", "aria-live": "polite" });
const head = h("header.head");
const main = h("main", { id: "main", tabindex: "-1" });
document.body.append(head, main, live);

// The answer of GET /key; null until it is known.
let access = null;
let collections = [];
let open = null;

const viewOf = (name) => VIEWS.find((each) => each.name === name);
const may = (scope) => access === null || access.scopes.includes(scope);

// --- head ------------------------------------------------------------------------------------------

function drawHead() {
  const { view, params } = read();
  const chosen = collectionIn(params);
  document.title = viewOf(view) ? `${viewOf(view).label[language()]} · Inkwell` : "Inkwell";
  head.replaceChildren(...[
    h("a.skip", { href: "#main", on: { click: (event) => { event.preventDefault(); main.focus(); } } }, t("skip")),
    h("a.brand", { href: hash("search", { c: params.c }) }, h("img", { src: "ui/icon.svg", alt: "", width: 24, height: 24 }), "Inkwell"),
    viewOf(view) && h("h1.unseen", {}, viewOf(view).label[language()]),
    h("nav.views", { "aria-label": t("views") }, VIEWS.filter((each) => may(each.scope)).map((each) =>
      h("a", { href: hash(each.name, { c: params.c }), "aria-current": each.name === view ? "page" : null }, each.label[language()]))),
    h("div.tools", {}, collectionChoice(chosen, params), language_(), theme(), keyButton(), iconButton("help", t("help"), showHelp)),
  ].filter(Boolean));
}

function collectionChoice(chosen, params) {
  const names = collections.map((each) => each.name);
  if (!names.includes(chosen)) names.unshift(chosen);
  const option = (name) => h("option", { value: name }, name);
  const field = h("select", { id: "collection", "aria-label": t("collection"), title: t("collection"),
    on: { change: () => write(read().view, { c: field.value === "default" ? null : field.value, q: params.q }) } }, names.map(option));
  field.value = chosen;
  return field;
}

function language_() {
  const other = Object.keys(LANGUAGES).find((each) => each !== language());
  return h("button.quiet.language", { type: "button", id: "language", lang: other, title: t("language.about"),
    on: { click: () => { setLanguage(other); render({ afresh: true }); document.getElementById("language").focus(); } } }, t("language"));
}

function theme() {
  const now = document.documentElement.dataset.theme || "auto";
  return iconButton(now, t("theme." + now), () => {
    const next = THEMES[(THEMES.indexOf(now) + 1) % THEMES.length];
    if (next === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = next;
    remember("theme", next === "auto" ? null : next);
    drawHead();
    document.getElementById("theme").focus();
    dispatchEvent(new Event("themechange"));
  }, { id: "theme" });
}

function keyButton() {
  const needed = access ? access.needed : key.get();
  return needed && iconButton("key", t("key"), () => askForKey(access), { id: "key-button" });
}

function showHelp() {
  const rows = [["/", "help.search"], ["↑ ↓ ← →", "help.move"], ["Enter", "help.open"], ["Esc", "help.close"], ["?", "help.help"]];
  const manual = h("p", { hidden: true }, h("a", { id: "manual", href: `manual/${language()}/index.html` }, t("help.manual")));
  hasManual().then((there) => { manual.hidden = !there; });
  const dialog = h("dialog.sheet", { "aria-labelledby": "help-title", on: { close: () => dialog.remove() } },
    h("header", {}, h("h2", { id: "help-title" }, t("help.title")), iconButton("close", t("close"), () => dialog.close())),
    h("dl.keys", {}, rows.map(([keys, said]) => [h("dt", {}, keys.split(" ").map((each) => h("kbd", {}, each))), h("dd", {}, t(said))])),
    h("p", {}, h("a", { href: "docs" }, t("help.api"))), manual);
  document.body.append(dialog);
  dialog.showModal();
}

// --- key -------------------------------------------------------------------------------------------

let asking = null;

// known: the answer of GET /key where the key is good.
function askForKey(known) {
  asking = asking || askKey(known).then((changed) => {
    asking = null;
    if (changed) start();
  });
}

async function learn(signal) {
  access = await get("key", { signal });
}

// --- collections -----------------------------------------------------------------------------------

// Without a choice: "default", or the largest where nothing is called that.
function collectionIn(params) {
  if (params.c) return params.c;
  if (collections.length === 0 || collections.some((each) => each.name === "default")) return "default";
  return collections.reduce((a, b) => (b.documents > a.documents ? b : a)).name;
}

async function refresh() {
  collections = may("search") ? (await get("collections")).collections : [];
  drawHead();
}

// --- views -----------------------------------------------------------------------------------------

const loaded = new Set();

function loadStyles(names) {
  return Promise.all(names.filter((each) => !loaded.has(each)).map((each) => new Promise((resolve, reject) => {
    document.head.append(h("link", { rel: "stylesheet", href: "ui/" + each, on: { load: () => resolve(loaded.add(each)), error: reject } }));
  })));
}

// Shows what the address names. afresh: also where the same view is there already.
async function render({ afresh = false } = {}) {
  const { view: name, params } = read();
  const collection = collectionIn(params);
  drawHead();
  if (!afresh && open?.view?.update && open.name === name && open.collection === collection) {
    Object.assign(open.shell, { params });
    open.address = location.hash;
    return open.view.update(params);
  }
  close();
  const view = viewOf(name);
  if (!view) return main.replaceChildren(h("p.notice", {}, t("view.unknown")));
  if (!may(view.scope)) return main.replaceChildren(h("p.notice", {}, t("view.scope", { scope: view.scope })));
  const here = { name, collection, controller: new AbortController(), view: null, address: location.hash };
  open = here;
  const root = h("section.view." + name, { "aria-label": view.label[language()] });
  try {
    const [module] = await Promise.all([view.load(), loadStyles(view.styles || [])]).catch((error) => {
      throw error instanceof SyntaxError ? error : new ApiError(0, "unreachable", "");
    });
    if (open !== here) return;
    main.replaceChildren(root);
    here.shell = shellFor(here, params);
    here.view = module.mount(root, here.shell) || {};
  } catch (error) {
    if (open === here) main.replaceChildren(failure(error, () => render({ afresh: true })));
  }
}

function close() {
  if (!open) return;
  open.controller.abort();
  open.view?.unmount?.();
  open = null;
}

function shellFor(here, params) {
  return {
    params,
    collection: here.collection,
    get collections() { return collections; },
    signal: here.controller.signal,
    at: (path) => within(here.collection, path),
    may,
    refresh,
    set(changed, { replace = true } = {}) {
      // The person has gone on, and the view does not know yet.
      if (open !== here || location.hash !== here.address) return;
      const next = { ...here.shell.params, ...changed };
      for (const [name, value] of Object.entries(next)) if (value === null || value === "" || value === undefined) delete next[name];
      here.shell.params = next;
      write(here.name, next, { replace });
      here.address = location.hash;
    },
    link: (view, given = {}) => hash(view, { c: here.shell.params.c, ...given }),
    say: (text) => { live.textContent = text; },
    failure(error, again) {
      if (error.status === 401) askForKey();
      // It may have been deleted elsewhere: then the list is old.
      if (error.code === "collection_not_found") refresh().catch(() => {});
      return failure(error, again);
    },
    openDocument: (id, place = {}) => openDocument(here.shell, id, place),
  };
}

// --- start -----------------------------------------------------------------------------------------

async function start() {
  access = null;
  try {
    await learn();
    await refresh();
  } catch (error) {
    close();
    drawHead();
    main.replaceChildren(failure(error, start));
    if (error.status === 401) askForKey();
    return;
  }
  await render({ afresh: true });
}

addEventListener("hashchange", () => render());
addEventListener("keydown", (event) => {
  const typing = event.target instanceof Element && event.target.closest("input, textarea, select, dialog");
  if (event.key !== "?" || typing || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  showHelp();
});
start();
