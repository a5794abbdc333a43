// Adds documents: files that are dropped or chosen, and text that is pasted.
import { key, post, sentence } from "../lib/api.js";
import { button, h, iconButton, segmented, stranger, svg } from "../lib/dom.js";
import { dropped } from "../lib/dropped.js";
import { excerpt } from "../lib/text.js";
import { bytes, percent } from "../lib/units.js";
import { upload } from "../lib/upload.js";
import { add, t } from "../lib/words.js";
import words from "../words/add.js";

add(words);

const SUFFIXES = ".pdf,.docx,.docm,.xlsx,.xlsm,.xlsb,.xls,.ods,.pptx,.pptm,.html,.htm,.xhtml,.epub,.eml,.md,.txt,.csv,.tsv,.jsonl";
const READ = new Set([...SUFFIXES.split(","), ".ndjson"]);
const isRead = (name) => READ.has(name.slice(name.lastIndexOf(".")).toLowerCase());
const TRIES = 20;
const MOST_SHOWN = 100;
// A request may have 10,000 documents; fewer answer sooner.
const AT_ONCE = 500;
const PARTS = { one: (text) => [text.trim()], lines: (text) => text.split(/\r?\n/), paragraphs: (text) => text.split(/\r?\n\s*\r?\n/) };

// Files by collection: they are sent also while another view is open.
const queues = new Map();
addEventListener("beforeunload", (event) => { if ([...queues.values()].some((each) => each.unfinished())) event.preventDefault(); });

export function mount(root, shell) {
  const files = queues.get(shell.collection) || queueOf(shell);
  queues.set(shell.collection, files);
  const after = h("p.row", { hidden: true }, h("a.button", { href: shell.link("search") }, t("add.search", { name: shell.collection })));
  files.stored = () => { after.hidden = false; };
  const choose = h("input.unseen", { type: "file", id: "files", multiple: true, accept: SUFFIXES, on: { change: () => { take(choose.files); choose.value = ""; } } });
  const check = h("input", { type: "checkbox", id: "check" });
  const plus = svg("svg.icon", { viewBox: "0 0 24 24", "aria-hidden": "true" }, svg("path", { d: "M12 16V5M7.500 9.500 12 5l4.500 4.500M5 19h14" }));
  const zone = h("label.drop", { for: "files" }, plus, h("strong", {}, t("add.drop")), h("span.dim", {}, t("add.formats")));
  const take = (given) => files.take(Array.from(given, (file) => ({ file, path: file.name })), check.checked);
  root.append(
    h("h1.unseen", {}, t("add.title", { name: shell.collection })),
    h("div.pair", {},
      h("section", { "aria-labelledby": "add-files" }, h("h2", { id: "add-files" }, t("add.files")), choose, zone,
        h("label.check", {}, check, t("add.check")), files.element),
      pasting(shell, () => files.stored())),
    after);

  // Files may be dropped anywhere on the page.
  const over = (event) => {
    if (!event.dataTransfer?.types.includes("Files")) return;
    event.preventDefault();
    zone.classList.add("over");
  };
  const away = (event) => { if (!event.relatedTarget) zone.classList.remove("over"); };
  const drop = (event) => {
    if (!event.dataTransfer?.types.includes("Files")) return;
    event.preventDefault();
    zone.classList.remove("over");
    const dry = check.checked;
    const done = ({ files: found, skipped }) => files.take(found, dry, skipped);
    const given = dropped(event.dataTransfer, isRead, files.looking);
    if (given instanceof Promise) given.then(done);
    else done(given);
  };
  const heard = { dragover: over, dragleave: away, drop };
  for (const [event, act] of Object.entries(heard)) document.addEventListener(event, act);
  return { unmount() { for (const [event, act] of Object.entries(heard)) document.removeEventListener(event, act); } };
}

// --- files -----------------------------------------------------------------------------------------

function queueOf(shell) {
  const jobs = [], left = {};
  let running = false;
  const list = h("ol.files", { "aria-label": t("add.files") });
  const state = h("p.dim", { role: "status" });
  const all = button(t("add.cancel.all"), () => jobs.forEach((job) => job.controller.abort()), { hidden: true });
  const queue = { element: h("div", {}, h("div.row", {}, state, all), list), take, looking: (n) => { state.textContent = t("add.looking", { n }); }, stored() {}, unfinished: () => jobs.some((each) => !each.done) };
  return queue;

  // skipped: how many files of folders were left out, by reason.
  function take(files, dry, skipped = {}) {
    for (const [why, n] of Object.entries(skipped)) left[why] = (left[why] || 0) + n;
    for (const { file, path } of files) {
      const said = h("span.file-state", {}, t("add.waiting")), bar = h("span");
      // Ids begin with the name, so files of the same name in two folders need theirs; the server would cut it at "/".
      const job = { file, name: path.replace(/\//g, "\u2215"), said, bar, controller: new AbortController(), done: false, dry };
      job.stop = iconButton("close", t("add.cancel", { name: path }), () => job.controller.abort());
      job.details = h("div.file-details");
      job.element = h("li.file", {}, h("div.file-head", {}, stranger(path, "strong"), h("span.dim", {}, bytes(file.size)), said, job.stop),
        h("span.bar", {}, bar), job.details);
      jobs.push(job);
      list.append(job.element);
    }
    draw();
    run();
  }

  // One file after the other: the server computes as fast for one as for many.
  async function run() {
    if (running) return;
    running = true;
    for (let job; (job = jobs.find((each) => !each.done)); draw()) {
      await send(job);
      job.done = true;
      job.stop.remove();
      job.bar.parentElement.remove();
    }
    running = false;
    draw();
    shell.say(state.textContent);
    await shell.refresh().catch(() => {});
  }

  function draw() {
    const done = jobs.filter((each) => each.done).length;
    const skipped = Object.values(left).reduce((a, b) => a + b, 0);
    const why = Object.entries(left).map(([reason, n]) => t("add.skipped." + reason, { n })).join(", ");
    state.textContent = [jobs.length || skipped ? t("add.progress", { done, all: jobs.length }) : "", skipped ? t("add.skipped", { n: skipped, why }) : ""].join("");
    all.hidden = done === jobs.length;
  }

  async function send(job) {
    const query = new URLSearchParams({ name: job.name });
    if (job.dry) query.set("dry_run", "true");
    const progress = (share) => {
      job.bar.style.width = percent(share);
      job.said.textContent = share < 1 ? t("add.sending", { percent: percent(share) }) : t(job.dry ? "add.checking" : "add.reading");
      job.element.classList.toggle("reading", share >= 1);
    };
    try {
      for (let attempt = 1; ; attempt += 1) {
        try {
          return finish(job, await upload(shell.at("files?" + query), job.file, { signal: job.controller.signal, progress }));
        } catch (error) {
          if (error.status !== 401 && !error.busy || attempt === TRIES) throw error;
          // A file that was changed or deleted is no fault of the server: this throws.
          if (error.status === 0) await job.file.slice(0, 1).arrayBuffer();
          await pause(job, error);
        }
      }
    } catch (error) {
      job.element.classList.add("failed");
      job.element.classList.remove("reading");
      if (error.name === "AbortError") job.said.textContent = t("add.cancelled");
      else {
        job.said.textContent = t(error.busy || error.status >= 500 ? "add.cut" : "add.failed");
        job.details.append(h("p.bad", { role: "alert" }, sentence(error)));
        if (error.status === 413) job.details.append(h("p.dim", {}, t("add.large")));
      }
    }
  }

  // Waits as long as the error says, or for another key.
  async function pause(job, error) {
    const refused = error.status === 401, secret = key.get();
    if (refused) shell.failure(error);
    job.element.classList.remove("reading");
    for (; refused ? key.get() === secret : error.retryAfter > 0; error.retryAfter -= 1) {
      job.said.textContent = sentence(error);
      await new Promise((resolve) => setTimeout(resolve, 1000));
      if (job.controller.signal.aborted) throw new DOMException("", "AbortError");
    }
  }

  function finish(job, answer) {
    job.element.classList.remove("reading");
    job.element.classList.add("done");
    const parts = job.dry ? [t("add.would", { n: answer.documents })] : [t("add.stored", { n: answer.stored })];
    if (answer.unchanged) parts.push(t("add.unchanged", { n: answer.unchanged }));
    if (answer.rows_left_out) parts.push(t("add.left", { n: answer.rows_left_out }));
    job.said.textContent = answer.documents || answer.rows_left_out ? parts.join(", ") : t("add.nothing");
    if (!job.dry && answer.documents) queue.stored();
    for (const note of answer.notes) job.details.append(h("p.dim", {}, stranger(note)));
    if (answer.errors.length) {
      const more = answer.rows_left_out - Math.min(answer.errors.length, MOST_SHOWN);
      job.details.append(h("ul.errors", {}, answer.errors.slice(0, MOST_SHOWN).map((each) => wrong(each, answer.file)), more > 0 && h("li.dim", {}, t("add.more", { n: more }))));
    }
    if (answer.preview?.length) job.details.append(preview(answer));
  }

  function wrong({ message, line, sheet }, file) {
    // The sentence begins with file and line, which stand here already.
    const said = message.startsWith(file) ? message.slice(message.indexOf(": ", file.length) + 2) : message;
    const place = line === null ? "" : sheet ? t("add.sheet", { name: sheet, n: line }) : t("add.place", { n: line });
    return h("li", {}, place && h("b", {}, stranger(place)), " ", stranger(place ? said : message));
  }

  function preview({ preview: first, documents }) {
    return h("details", { open: true }, h("summary", {}, t("add.preview", { n: first.length, of: documents })),
      h("ol.preview", {}, first.map((each) => h("li", {}, each.title && stranger(each.title, "b"), h("p", { dir: "auto" }, excerpt(each.text, [], 160))))));
  }
}

// --- text ------------------------------------------------------------------------------------------

// What is written and not stored yet, by collection: it is there again after another view, key or language.
const drafts = new Map();

function pasting(shell, stored_) {
  const draft = drafts.get(shell.collection) || { as: "one", text: "", title: "" };
  drafts.set(shell.collection, draft);
  let { as } = draft;
  const text = h("textarea", { id: "text", rows: 10, "aria-label": t("add.text.label"), placeholder: t("add.text.placeholder"), required: true, dir: "auto", value: draft.text });
  const title = h("input", { id: "title", type: "text", "aria-label": t("add.text.title"), placeholder: t("add.text.title"), maxlength: 2000, dir: "auto", value: draft.title });
  const choice = h("div");
  const said = h("div", { role: "status" });
  const submit = h("button.primary", { type: "submit" }, t("add.send"));
  const pick = (chosen) => {
    as = draft.as = chosen;
    title.hidden = as !== "one";
    choice.replaceChildren(segmented(t("add.as"), Object.keys(PARTS).map((each) => [each, t("add.as." + each)]), as, (other) => { pick(other); choice.querySelector(`[data-value="${other}"]`).focus(); }));
  };
  pick(as);
  const store = async () => {
    const documents = PARTS[as](text.value).map((each) => each.trim()).filter(Boolean).map((each) => (as === "one" && title.value.trim() ? { text: each, title: title.value.trim() } : { text: each }));
    if (documents.length === 0) return text.focus();
    submit.disabled = true;
    let stored = 0;
    try {
      for (let begin = 0; begin < documents.length; begin += AT_ONCE) {
        const answer = await post(shell.at("documents"), { documents: documents.slice(begin, begin + AT_ONCE) }, { signal: shell.signal });
        stored += answer.stored;
        said.replaceChildren(t("add.stored", { n: stored }));
      }
      const same = documents.length - stored;
      said.replaceChildren(t("add.stored", { n: stored }), same ? ", " + t("add.unchanged", { n: same }) : "");
      text.value = title.value = draft.text = draft.title = "";
      stored_();
      await shell.refresh();
    } catch (error) {
      if (error.name !== "AbortError") said.replaceChildren(shell.failure(error, store));
    } finally {
      submit.disabled = false;
    }
  };
  // A text that was refused and is changed now is not sent again before it is complete.
  const edited = () => { Object.assign(draft, { text: text.value, title: title.value }); said.replaceChildren(); };
  text.addEventListener("keydown", (event) => { if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); store(); } });
  return h("section", { "aria-labelledby": "add-text" }, h("h2", { id: "add-text" }, t("add.text")),
    h("form.pasting", { on: { input: edited, submit: (event) => { event.preventDefault(); store(); } } }, title, text, h("div.row", {}, choice, submit), said));
}
