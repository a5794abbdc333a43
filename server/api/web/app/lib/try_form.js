// A form that sends a request to one route and shows the answer, beside what curl would send.
import { key, pathOf, sentence } from "./api.js";
import { button, h } from "./dom.js";
import { examplesOf, kindOf } from "./openapi.js";
import { language, t } from "./words.js";

const BASE = new URL(".", location.href);
const quoted = (text) => "'" + text.replaceAll("'", "'\\''") + "'";

export function tryForm(route) {
  const { method, path, operation } = route;
  const fields = new Map((operation.parameters || []).map((each) => [each.name, input(each)]));
  if (route.named) fields.set("collection", h("input", { name: "collection", placeholder: "default", spellcheck: "false", "aria-label": t("docs.collection") }));
  const examples = examplesOf(route), kind = kindOf(route);
  const area = operation.requestBody && h("textarea", { name: "body", rows: "9", spellcheck: "false", "aria-label": t("docs.body") });
  const curl = h("pre.curl", { tabindex: "0" }), status = h("p.status", { role: "status" }), answer = h("pre.answer", { tabindex: "0", role: "region", "aria-label": t("docs.answer") });
  const body = () => (area ? area.value : null);
  // null, and the reason is shown, where the fields make no address.
  const address = (said) => { try { return addressOf(path, fields); } catch (error) { said.textContent = sentence(error); return null; } };
  const renew = () => { const url = address(curl); if (url) curl.textContent = curlOf(method, url, body(), kind); };
  const show = (value) => { area.value = typeof value === "string" ? value : JSON.stringify(value, null, 1); area.rows = Math.min(16, Math.max(4, area.value.split("\n").length + 1)); renew(); };
  const choice = examples.length > 1 && h("div.row", {}, t("docs.example"), examples.map(([name, { value }], place) => button(language() === "zh" ? String(place + 1) : name, () => show(value))));
  const submit = (event) => {
    event.preventDefault();
    const url = address(status);
    if (url) send(method, url, body(), kind, status, answer);
  };
  if (examples.length) show(examples[0][1].value);
  renew();
  const changes = method === "DELETE" || path.endsWith("/delete");
  return h("form.request", { on: { submit, input: renew } }, h("div.sides", {},
    h("div", {},
      fields.size > 0 && h("div.fields", {}, [...fields].map(([name, field]) => [h("label", {}, h("code", {}, name)), field])),
      area && [choice, area],
      h("div.row", {}, h("button.primary", { type: "submit" }, t("docs.send")), changes && h("span.bad", {}, t("docs.changes"))),
      h("h3", {}, "curl"), curl),
    h("div", {}, h("h3", {}, t("docs.answer")), status, answer)));
}

function input(parameter) {
  const given = (parameter.in === "path" || parameter.required) && parameter.example !== undefined ? parameter.example : "";
  const usual = parameter.schema?.default;
  return h("input", { name: parameter.name, value: given, placeholder: usual === undefined ? "" : String(usual), "aria-label": parameter.name });
}

// The address that the fields of a form make; a path's own slashes stay.
function addressOf(path, fields) {
  const filled = path.replace(/\{(\w+)\}/g, (_, name) => pathOf(fields.get(name).value));
  const collection = path.includes("{collection}") ? "" : fields.get("collection")?.value;
  const url = new URL((collection ? `collections/${pathOf(collection)}` : "").concat(filled).replace(/^\//, ""), BASE);
  for (const [name, field] of fields) {
    if (name !== "collection" && !path.includes("{" + name + "}") && field.value) url.searchParams.set(name, field.value);
  }
  return url;
}

function curlOf(method, url, body, kind) {
  const parts = ["curl", quoted(url.href)];
  if (method === "DELETE") parts.push("-X DELETE");
  if (key.get()) parts.push("\\\n  -H 'authorization: Bearer KEY'");
  if (body !== null) parts.push("\\\n  -H " + quoted("content-type: " + kind), "\\\n  -d " + quoted(body));
  return parts.join(" ");
}

async function send(method, url, body, kind, status, output) {
  output.classList.remove("bad");
  status.textContent = t("loading");
  const started = performance.now();
  try {
    const headers = body === null ? {} : { "content-type": kind };
    if (key.get()) headers.authorization = "Bearer " + key.get();
    const answer = await fetch(url, { method, headers, body });
    const text = await answer.text();
    const took = Math.max(1, Math.round(performance.now() - started));
    status.textContent = `${answer.status} ${answer.statusText} · ${t("docs.took", { n: took })}`;
    output.textContent = pretty(text);
    output.classList.toggle("bad", !answer.ok);
  } catch {
    status.textContent = t("error.unreachable");
    output.classList.add("bad");
  }
}

// Indented, with long rows of numbers on one line: a vector is not a page.
function pretty(text) {
  try {
    return JSON.stringify(JSON.parse(text), null, 1).replace(/\[\s+(-?\d[^[\]{}"]*?)\s+\]/g, (_, inside) => {
      const numbers = inside.split(/,\s+/);
      return numbers.length > 8 ? `[${numbers.slice(0, 6).join(", ")}, … (${numbers.length})]` : `[${numbers.join(", ")}]`;
    });
  } catch { return text; }
}
