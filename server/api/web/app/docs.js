// The page of the API: first a request to try, then every route. It is made from /openapi.json.
import { get, key } from "./lib/api.js";
import { h, iconButton } from "./lib/dom.js";
import { failure } from "./lib/failure.js";
import { askKey } from "./lib/key_dialog.js";
import { contentOf, limitsOf, routesOf, scopeOf, typeName, typeOf, typesIn } from "./lib/openapi.js";
import { tryForm } from "./lib/try_form.js";
import { add, LANGUAGES, language, remember, setLanguage, t } from "./lib/words.js";
import docsWords, { ABOUT, MEANINGS, SUMMARIES } from "./words/docs.js";
import shellWords from "./words/shell.js";

add(shellWords);
add(docsWords);

const THEMES = ["auto", "light", "dark"];
const FIRST = "search";
const head = h("header.head"), main = h("main", { id: "main" });
document.body.classList.add("docs");
document.body.append(head, main);
let description = null, tasks = null;

const chinese = () => language() === "zh";
const summaryOf = ({ method, path, operation }) => (chinese() && SUMMARIES[`${method} ${path}`]) || operation.summary;
// Text with code between backticks.
const prose = (text) => h("span", {}, text.split("`").map((part, place) => (place % 2 ? h("code", {}, part) : part)));

function aboutOf(route) {
  const scope = scopeOf(route);
  const needs = scope && (scope === "key" ? t("docs.needs.key") : t("docs.needs", { scope }));
  const said = chinese() ? ABOUT[`${route.method} ${route.path}`] || "" : (route.operation.description || "").replace(/\s*Needs (any key|the scope `\w+`)\.$/, "");
  return [said && h("p", {}, prose(said)), needs && h("p.dim", {}, prose(needs))];
}

// --- one route -------------------------------------------------------------------------------------

function table(head_, rows) {
  return rows.length > 0 && h("div.scroll", { tabindex: "0" }, h("table", {}, h("thead", {}, h("tr", {}, head_.map((each) => h("th", { scope: "col" }, each)))),
    h("tbody", {}, rows.map((row) => h("tr", {}, row.map((text, place) => h("td", {}, place === 0 ? h("code", {}, text) : prose(text))))))));
}

const meaningOf = (text) => (chinese() ? MEANINGS[text] || "" : text);

function parametersOf({ operation, named }) {
  const rows = (operation.parameters || []).map((each) =>
    [each.name, each.schema ? `\`${typeOf(each.schema)}\`` : "`JSON`", [meaningOf(each.description), limitsOf(each.schema || {})].filter(Boolean).join("  ")]);
  if (named) rows.push(["collection", "`string`", t("docs.collection.about")]);
  return section(t("docs.parameters"), table([t("docs.name"), t("docs.type"), t("docs.meaning")], rows));
}

function typeTable(type) {
  const needed = new Set(type.required || []);
  const rows = Object.entries(type.properties || {}).map(([name, value]) => [name, `\`${typeOf(value)}\``, [needed.has(name) && t("docs.needed"), limitsOf(value)].filter(Boolean).join("  ")]);
  return table([t("docs.name"), t("docs.type"), t("docs.limits")], rows);
}

// opened: the first type shows its keys without a click.
function typesOf(said, opened) {
  const [kind, content] = contentOf(said);
  if (!content) return null;
  const types = [...typesIn(content.schema, description)].map(([reference, type], place) => {
    const keys = typeTable(type);
    const summary = h("summary", {}, h("code", {}, typeName(reference)), " ", !chinese() && type.description ? h("span.dim", {}, prose(type.description)) : "");
    return keys && h("details.type", { open: opened && place === 0 }, summary, h("div", {}, keys));
  });
  return h("div", {}, h("p", {}, h("code", {}, kind === "application/json" ? typeOf(content.schema) : kind)), types);
}

const section = (title, content) => content && h("section", {}, h("h3", {}, title), content);

function refusalsOf({ operation }) {
  const rows = Object.entries(operation.responses).filter(([status]) => /^[45]/.test(status)).map(([status, said]) => [status, meaningOf(said.description)]);
  return section(t("docs.errors"), table([t("docs.status"), t("docs.meaning")], rows));
}

function entry(route) {
  const { method, path, operation, id } = route;
  const inside = h("div");
  // Filled when it is first opened: the page is there at once, however many routes there are.
  const fill = () => {
    if (inside.childElementCount) return;
    const done = Object.keys(operation.responses).find((status) => status.startsWith("2"));
    inside.append(...[...aboutOf(route), tryForm(route), parametersOf(route), section(t("docs.request"), typesOf(operation.requestBody, true)),
      section(`${t("docs.response")} ${done ?? ""}`, typesOf(operation.responses[done], false)), refusalsOf(route)].filter(Boolean));
  };
  return h("details.route", { id, data: { route: `${method} ${path}` }, on: { toggle: fill } },
    h("summary", {}, h(`span.method.${method}`, {}, method), h("code", {}, path), h("span.dim", {}, summaryOf(route))), inside);
}

// --- the page --------------------------------------------------------------------------------------

function drawHead() {
  const other = Object.keys(LANGUAGES).find((each) => each !== language());
  const now = document.documentElement.dataset.theme || "auto";
  document.title = `${t("docs.title")} · Inkwell`;
  head.replaceChildren(
    h("a.brand", { href: "." }, h("img", { src: "ui/icon.svg", alt: "", width: 24, height: 24 }), "Inkwell"),
    h("h1.unseen", {}, t("docs.title")),
    h("nav.views", { "aria-label": t("views") }, h("a", { href: "." }, t("docs.page")), h("a", { href: "docs", "aria-current": "page" }, t("docs.title"))),
    h("div.tools", {},
      h("button.quiet.language", { type: "button", id: "language", lang: other, title: t("language.about"), on: { click: () => { setLanguage(other); draw(); document.getElementById("language").focus(); } } }, t("language")),
      iconButton(now, t("theme." + now), turnTheme, { id: "theme" }),
      iconButton("key", t("key"), changeKey, { id: "key-button" })));
}

function turnTheme() {
  const next = THEMES[(THEMES.indexOf(document.documentElement.dataset.theme || "auto") + 1) % THEMES.length];
  if (next === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = next;
  remember("theme", next === "auto" ? null : next);
  drawHead();
  document.getElementById("theme").focus();
}

async function changeKey() {
  const access = await get("key").catch(() => null);
  if (await askKey(access)) { await learn(); draw(); }
}

function firstTry(routes) {
  const place = h("div");
  const groups = [...new Set(routes.map(({ tag }) => tag))];
  const option = (route) => h("option", { value: route.id }, `${summaryOf(route)}  ·  ${route.method} ${route.path}`);
  const choice = h("select", { id: "route", "aria-label": t("docs.choose"), on: { change: () => show() } },
    groups.map((tag) => h("optgroup", { label: tag === "native" ? "Inkwell" : tag }, routes.filter((each) => each.tag === tag).map(option))));
  const show = () => place.replaceChildren(tryForm(routes.find(({ id }) => id === choice.value)));
  choice.value = routes.some(({ id }) => id === FIRST) ? FIRST : routes[0].id;
  show();
  return h("section.try", { id: "try", "aria-label": t("docs.try") }, h("h2", {}, t("docs.try")), h("label", {}, choice), place);
}

function draw() {
  drawHead();
  if (!description) return;
  const routes = routesOf(description, tasks).sort((a, b) => (b.tag === "native") - (a.tag === "native"));
  const tags = [...new Set(routes.map(({ tag }) => tag))];
  main.replaceChildren(
    firstTry(routes),
    h("h2", {}, t("docs.routes")),
    h("p.dim", {}, t("docs.intro", { version: description.info.version }), " ", h("a", { href: "openapi.json" }, t("docs.openapi"))),
    ...tags.flatMap((tag) => [h("h3", {}, tag === "native" ? "Inkwell" : tag), ...routes.filter((each) => each.tag === tag).map(entry)]));
  open();
}

// The route that the address names is opened.
function open() {
  const named = document.getElementById(location.hash.slice(1));
  if (named?.matches("details")) { named.open = true; named.scrollIntoView(); }
}

// Which tasks the served models do. Without a key that is not known, and every route is shown.
async function learn() {
  tasks = await get("v1/models").then(({ data }) => new Set(data.map((each) => each.task))).catch(() => null);
}

async function start() {
  drawHead();
  try {
    [description] = await Promise.all([get("openapi.json"), learn()]);
    draw();
  } catch (error) {
    main.replaceChildren(failure(error, start));
  }
}

addEventListener("hashchange", open);
start();
