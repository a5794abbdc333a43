// Filters made of the metadata that is there: GET /collections/{c}/metadata. The address holds the filter as JSON.
import { patient } from "../lib/api.js";
import { button, h, icon, stranger } from "../lib/dom.js";
import { number, t } from "../lib/words.js";

// Keys with more values than this are numbers to bound, or not offered.
const MOST_KEYS = 12;
// The server counts so many at once.
const MOST_COUNTED = 10;

// Text of which every document has its own is no choice, and keys that begin so are the server's.
function useful({ key, kind, values, complete }) {
  if (key.startsWith("_")) return false;
  return kind === "number" || (values.length > 0 && (complete || values[0].documents > 1));
}

// changed: called after the address has the new filter. ready: called when the keys are known.
export function filters(shell, changed, ready) {
  const element = h("div.filters");
  let keys = [], sampled = false, showing = null;

  // The filter of the address, or null. One that is not JSON of an object counts as none.
  function value() {
    try {
      const found = JSON.parse(shell.params.f || "null");
      return found && typeof found === "object" && !Array.isArray(found) && Object.keys(found).length ? found : null;
    } catch { return null; }
  }

  function put(key, condition) {
    const next = { ...value() };
    if (condition === null) delete next[key];
    else next[key] = condition;
    shell.set({ f: Object.keys(next).length ? JSON.stringify(next) : null, after: null, page: null });
    changed();
    draw();
  }

  function draw() {
    const now = value() || {};
    const known = new Set(keys.map((each) => each.key));
    const own = Object.keys(now).filter((key) => !known.has(key));
    element.hidden = keys.length === 0 && own.length === 0;
    element.replaceChildren(
      h("span.label", {}, icon("filter"), t("search.filter")),
      ...keys.map((each) => choice(each, now[each.key])),
      ...own.map((key) => h("code.own", { title: t("search.filter.own") }, stranger(`${key}: ${JSON.stringify(now[key])}`))),
      ...(Object.keys(now).length ? [button(t("search.filter.clear"), () => { shell.set({ f: null, after: null, page: null }); changed(); draw(); }, { class: "link" })] : []));
  }

  function choice(each, condition) {
    const on = condition !== undefined;
    const body = h("div.sheet-small");
    const details = h(`details.choice${on ? ".on" : ""}`, { on: { toggle: () => { if (details.open) fill(); } } },
      h("summary", {}, stranger(each.key), on && h("span.chosen", {}, stranger(": " + said(condition)))), body);
    // The one that was open stays open after a choice in it.
    if (showing === each.key) details.open = true;
    details.addEventListener("toggle", () => {
      if (details.open) { showing = each.key; for (const other of element.querySelectorAll("details[open]")) if (other !== details) other.open = false; }
      else if (showing === each.key && details.isConnected) showing = null;
    });
    details.addEventListener("keydown", (event) => {
      if (event.key !== "Escape") return;
      event.stopPropagation();
      details.open = false;
      details.querySelector("summary").focus();
    });
    const fill = () => { if (!body.childElementCount) body.append(...(bounded(each) ? bounds(each, condition) : values(each, condition)), ...(sampled ? [h("p.dim", {}, t("search.filter.sampled"))] : [])); };
    return details;
  }

  const bounded = (each) => each.kind === "number" && !(each.values.length <= 8 && each.complete);

  // Values as JSON. A condition of another kind is replaced by the first choice.
  const chosenIn = (condition) => new Set((condition?.$in || (condition === undefined || (typeof condition === "object" && condition) ? [] : [condition])).map((one) => JSON.stringify(one)));
  const has = (key, one) => chosenIn((value() || {})[key]).has(JSON.stringify(one));

  // Choose a value, or take it back.
  function flip(key, one) {
    const chosen = chosenIn((value() || {})[key]), written = JSON.stringify(one);
    if (!chosen.delete(written)) chosen.add(written);
    put(key, chosen.size ? { $in: [...chosen].map((text) => JSON.parse(text)) } : null);
  }

  // Keys whose values are few enough to count.
  const countable = () => keys.filter((each) => !bounded(each) && !each.key.startsWith("$")).slice(0, MOST_COUNTED).map((each) => each.key);

  function values(each, condition) {
    const chosen = chosenIn(condition);
    const offered = each.kind === "number" ? [...each.values].sort((a, b) => a.value - b.value) : each.values;
    return [h("ul", {}, offered.map(({ value: one, documents }) => {
      const written = JSON.stringify(one);
      const change = () => {
        flip(each.key, one);
        [...element.querySelectorAll("input[type=checkbox]")].find((box) => box.dataset.key === each.key && box.dataset.value === written)?.focus();
      };
      return h("li", {}, h("label.check", {}, h("input", { type: "checkbox", checked: chosen.has(written), data: { key: each.key, value: written }, on: { change } }),
        stranger(String(one)), h("span.dim", {}, number(documents))));
    }))];
  }

  function bounds(each, condition) {
    const field = (name, label, limit) => {
      const input = h("input", { type: "number", step: "any", "aria-label": label, placeholder: limit ?? t("search.filter.any"), value: condition?.[name] ?? "",
        on: { change: () => {
          const next = { ...(typeof condition === "object" ? condition : {}) };
          if (input.value === "") delete next[name];
          else next[name] = Number(input.value);
          put(each.key, Object.keys(next).length ? next : null);
        } } });
      return h("label.inline", {}, label, input);
    };
    return [h("div.bounds", {}, field("$gte", t("search.filter.from"), each.least), field("$lte", t("search.filter.to"), each.greatest))];
  }

  function said(condition) {
    if (condition === null || typeof condition !== "object") return String(condition);
    if (condition.$in) return condition.$in.map(String).join(", ").slice(0, 40);
    return [condition.$gte !== undefined && `≥ ${condition.$gte}`, condition.$lte !== undefined && `≤ ${condition.$lte}`].filter(Boolean).join(", ") || "…";
  }

  // A choice closes when something else is touched.
  addEventListener("pointerdown", ({ target }) => {
    for (const each of element.querySelectorAll("details[open]")) if (!each.contains(target)) each.open = false;
  }, { signal: shell.signal });
  draw();
  // Older servers have no such route; then there are no filters to choose.
  patient(shell.at("metadata"), { signal: shell.signal }).then((answer) => {
    keys = answer.keys.filter(useful).slice(0, MOST_KEYS);
    sampled = answer.sampled;
    draw();
    ready();
  }).catch(() => {});
  return { element, value, draw, has, flip, countable };
}
