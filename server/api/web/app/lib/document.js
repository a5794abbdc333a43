// The panel with a whole document: the passage that was found is marked, its neighbours are a step away.
import { get, pathOf } from "./api.js";
import { button, h, iconButton, shown, stranger } from "./dom.js";
import { t } from "./words.js";

// Characters of a long document that are shown around the passage, and more with each step.
const AROUND = 4000;
const STEP = 20_000;
// Where a document stands in its file, see the server's places: neighbours are one page, slide or row away.
const PLACES = ["page", "slide", "row"];
let open = null;

// closed: called when the reader closes it, not when another document takes its place.
export async function openDocument(shell, id, { begin, end, closed } = {}) {
  open?.();
  const body = h("div.panel-body", { tabindex: "0" }, h("p.dim", {}, t("loading")));
  const title = h("h2", { id: "panel-title", dir: "auto", tabindex: "-1" }, t("search.document"));
  const panel = h("aside.panel", { role: "dialog", "aria-labelledby": "panel-title" },
    h("header", {}, title, iconButton("close", t("close"), () => leave(), { id: "panel-close" })), body);
  const onKey = (event) => { if (event.key === "Escape" && !document.querySelector("dialog[open]")) { event.preventDefault(); leave(); } };
  const close = () => { panel.remove(); document.removeEventListener("keydown", onKey); document.body.classList.remove("with-panel"); if (open === close) open = null; };
  const leave = () => { close(); closed?.(); };
  open = close;
  document.addEventListener("keydown", onKey);
  document.body.append(panel);
  document.body.classList.add("with-panel");
  title.focus();
  const load = async () => {
    try {
      const found = await get(shell.at("documents/" + pathOf(id)), { signal: shell.signal });
      title.replaceChildren(shown(found.title || found.id));
      body.replaceChildren(...content(shell, found, begin, end));
      body.querySelector("mark")?.scrollIntoView({ block: "center" });
      neighbours(shell, found, body);
    } catch (error) {
      if (error.name === "AbortError") return;
      body.replaceChildren(error.status === 404 ? h("p.notice", {}, t("search.document.gone")) : shell.failure(error, load));
    }
  };
  load();
  return { close };
}

function content(shell, found, begin, end) {
  const characters = Array.from(found.text);
  const part = begin >= 0 && end > begin && end <= characters.length && (begin > 0 || end < characters.length);
  const passage = part ? characters.slice(begin, end).join("") : found.text;
  const rows = [["id", found.id], ...Object.entries(found.metadata)];
  return [
    part ? h("p.dim", {}, t("search.document.part", { from: begin + 1, to: end, n: characters.length })) : "",
    whole(characters, part ? begin : 0, part ? end : 0),
    h("div.row", {},
      h("a.button", { href: shell.link("search", { q: Array.from(passage.slice(0, 400)).slice(0, 200).join("").trim() }) }, t("search.document.like")),
      copyButton(found.text)),
    h("nav.row", { id: "neighbours", hidden: true }),
    h("h3", {}, t("search.document.metadata")),
    h("dl.metadata", {}, rows.map(([name, value]) => [h("dt", {}, stranger(name)), h("dd", {}, stranger(typeof value === "string" ? value : JSON.stringify(value)))])),
  ];
}

// A window of the text that grows on demand: a document may have millions of characters.
function whole(characters, begin, end) {
  let from = Math.max(0, begin - AROUND), to = Math.min(characters.length, Math.max(end, begin) + (end ? AROUND : STEP));
  const earlier = button(t("search.document.before"), () => { from = Math.max(0, from - STEP); draw(); }, { class: "link" });
  const later = button(t("search.document.after"), () => { to = Math.min(characters.length, to + STEP); draw(); }, { class: "link" });
  const text = h("div.text", { dir: "auto" });
  function draw() {
    const said = (a, b) => characters.slice(a, b).join("");
    text.replaceChildren(shown(said(from, begin)), ...(end ? [h("mark", {}, said(begin, end))] : []), shown(said(Math.max(end, begin), to)));
    earlier.hidden = from === 0;
    later.hidden = to === characters.length;
  }
  draw();
  return h("div", {}, earlier, text, later);
}

function copyButton(text) {
  const made = button(t("search.document.copy"), async () => {
    await navigator.clipboard.writeText(text);
    made.textContent = t("search.document.copied");
  });
  // Browsers have no clipboard for pages without TLS, except on this machine.
  made.hidden = !navigator.clipboard;
  return made;
}

async function neighbours(shell, found, body) {
  const kind = PLACES.find((each) => Number.isInteger(found.metadata[each]));
  if (!kind || typeof found.metadata.file !== "string") return;
  const here = found.metadata[kind];
  const filter = { file: found.metadata.file, [kind]: { $in: [here - 1, here + 1] } };
  if (typeof found.metadata.sheet === "string") filter.sheet = found.metadata.sheet;
  const query = new URLSearchParams({ limit: 2, filter: JSON.stringify(filter) });
  const { documents } = await get(shell.at("documents?" + query), { signal: shell.signal }).catch(() => ({ documents: [] }));
  const place = body.querySelector("#neighbours");
  for (const [step, said] of [[-1, "search.document.earlier"], [1, "search.document.later"]]) {
    const other = documents.find((each) => each.metadata[kind] === here + step);
    if (other) place.append(h("a.button", { href: shell.link("search", { ...shell.params, doc: other.id, at: null }) }, t(said), " · ", stranger(`${kind} ${here + step}`)));
  }
  place.hidden = place.childElementCount === 0;
}
