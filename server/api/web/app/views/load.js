// The load of the server, live: read from /metrics, and what changed between two readings.
import { get } from "../lib/api.js";
import { h, stranger, svg } from "../lib/dom.js";
import { grown, parse, quantile, rate, sum } from "../lib/prometheus.js";
import { bytes, duration, percent } from "../lib/units.js";
import { add, number, t } from "../lib/words.js";
import words from "../words/load.js";

add(words);

const EVERY_S = 2;
// Readings that are kept, and over how many a rate or a quantile is taken.
const KEPT = 60, LEAST = 15, OVER = 5;
const ROUTES = 8;
const WIDTH = 200, HEIGHT = 44;
const other = ({ route }) => route !== "/metrics" && route !== "/ui/{file:path}";
const failed = (labels) => other(labels) && labels.status >= "400";
const few = (value) => number(value, value > 0 && value < 10 ? 1 : 0);

// name, what it shows as [figure, explanation], and the number that is drawn.
const TILES = [
  ["requests", (a, b) => { const each = rate(a, b, "inkwell_requests_total", other); return [t("load.each", { n: few(each) }), t("load.own"), each]; }],
  ["latency", (a, b) => {
    const [p50, p95] = [0.5, 0.95].map((share) => quantile(a, b, "inkwell_request_seconds", share, other));
    if (p50 === null) return [t("load.idle"), t("load.latency.about", { n: EVERY_S * OVER }), 0];
    return [`${duration(p50)} · ${duration(p95)}`, t("load.latency.about", { n: EVERY_S * OVER }), p95, duration];
  }],
  ["queue", (a, b) => {
    const [tokens, limit] = [sum(b, "inkwell_queue_tokens"), sum(b, "inkwell_queue_tokens_limit")];
    return [t("load.queue.tokens", { n: tokens }), t("load.queue.about", { texts: sum(b, "inkwell_queue_texts"), percent: percent(limit ? tokens / limit : 0, 1) }), tokens];
  }],
  ["errors", (a, b) => { const each = rate(a, b, "inkwell_requests_total", failed); return [t("load.each", { n: few(each) }), codes(a, b), each]; }],
  ["tokens", (a, b) => { const each = rate(a, b, "inkwell_tokens_total"); return [t("load.each", { n: few(each) }), t("load.texts", { n: few(rate(a, b, "inkwell_texts_total")) }), each]; }],
  ["lanes", (a, b) => {
    const lanes = sum(b, "inkwell_lanes"), share = Math.min(1, rate(a, b, "inkwell_lane_busy_seconds_total") / Math.max(1, lanes));
    return [percent(share), t("load.lanes.about", { busy: sum(b, "inkwell_lanes_busy"), lanes }), share, percent];
  }],
  ["searches", (a, b) => {
    const p50 = quantile(a, b, "inkwell_search_seconds", 0.5), each = rate(a, b, "inkwell_searches_total");
    return [t("load.each", { n: few(each) }), p50 === null ? "" : t("load.search.about", { time: duration(p50) }), each];
  }],
  ["cpu", (a, b) => { const cores = rate(a, b, "process_cpu_seconds_total"); return [t("load.cpu.cores", { n: number(cores, 1) }), "", cores]; }],
  ["memory", (a, b) => { const used = sum(b, "process_resident_memory_bytes"); return [bytes(used), t("load.memory.about", { limit: bytes(sum(b, "inkwell_memory_limit_bytes")) }), used, bytes]; }],
  ["disk", (a, b) => [bytes(sum(b, "inkwell_disk_free_bytes")), t("load.disk.about", { size: bytes(sum(b, "inkwell_disk_bytes")) })]],
];

// The codes of errors in the last readings, the most frequent first.
function codes(a, b) {
  const found = new Map();
  for (const { labels } of b.samples.get("inkwell_errors_total") || []) {
    const n = grown(a, b, "inkwell_errors_total", (each) => each.code === labels.code);
    if (n > 0) found.set(labels.code, n);
  }
  return [...found].sort((x, y) => y[1] - x[1]).slice(0, 3).map(([code, n]) => `${code} ${number(n)}`).join(", ");
}

export function mount(root, shell) {
  const readings = [], drawn = new Map();
  let timer = 0, last = 0;
  const said = h("p.dim", { role: "status" }, t("load.about", { n: EVERY_S }));
  const tiles = h("div.tiles"), routes = h("tbody");
  const wrong = h("div");
  const made = new Map(TILES.map(([name]) => {
    const tile = { figure: h("strong", {}, "…"), about: h("p.dim"), graph: h("div.graph") };
    tiles.append(h("section.tile", { "aria-label": t("load." + name), data: { tile: name } }, h("h2", {}, t("load." + name)), tile.figure, tile.graph, tile.about));
    return [name, tile];
  }));
  root.append(h("h1", {}, t("load.title")), said, wrong, tiles,
    h("h2.below", {}, t("load.routes", { n: EVERY_S * OVER })),
    h("table.routes", {}, h("thead", {}, h("tr", {}, ["load.route", "load.requests", "load.p50", "load.p95"].map((each) => h("th", { scope: "col" }, t(each))))), routes));

  async function read() {
    clearTimeout(timer);
    const own = ++last;
    if (document.hidden) return void (said.textContent = t("load.paused"));
    try {
      const text = await get("metrics", { signal: shell.signal, text: true });
      if (own !== last) return;
      // Half of the readings after a pause would make one long step of it.
      if (readings.length && performance.now() / 1000 - readings[readings.length - 1].at > 3 * EVERY_S) { readings.length = 0; drawn.clear(); }
      readings.push(parse(text, performance.now() / 1000));
      if (readings.length > KEPT) readings.shift();
      wrong.replaceChildren();
      said.textContent = t("load.about", { n: EVERY_S });
      draw();
    } catch (error) {
      if (own === last && error.name !== "AbortError") wrong.replaceChildren(shell.failure(error, read));
      return;
    }
    timer = setTimeout(read, 1000 * EVERY_S);
  }

  function draw() {
    const after = readings[readings.length - 1], before = readings[Math.max(0, readings.length - 1 - OVER)];
    // The first reading alone knows sizes, and no rates yet.
    for (const [name, show] of TILES) {
      const [figure, about, value, said_] = show(before, after), tile = made.get(name);
      tile.figure.textContent = figure;
      tile.about.textContent = about;
      if (value === undefined || readings.length < 2) continue;
      if (!drawn.has(name)) drawn.set(name, []);
      const values = drawn.get(name);
      values.push(value);
      if (values.length > KEPT) values.shift();
      tile.graph.replaceChildren(sparkline(t("load." + name), values, said_ || few));
    }
    routes.replaceChildren(...busiest(before, after));
  }

  function busiest(before, after) {
    const names = new Set((after.samples.get("inkwell_requests_total") || []).map(({ labels }) => labels.route).filter((route) => other({ route })));
    const found = [...names].map((route) => [route, rate(before, after, "inkwell_requests_total", (each) => each.route === route)])
      .filter(([, each]) => each > 0).sort((a, b) => b[1] - a[1]).slice(0, ROUTES);
    if (found.length === 0) return [h("tr", {}, h("td.dim", { colspan: 4 }, t("load.none")))];
    return found.map(([route, each]) => {
      const cells = [0.5, 0.95].map((share) => quantile(before, after, "inkwell_request_seconds", share, (labels) => labels.route === route));
      return h("tr", {}, h("th", { scope: "row" }, stranger(route, "code")), h("td", {}, t("load.each", { n: few(each) })), cells.map((value) => h("td", {}, value === null ? t("load.idle") : duration(value))));
    });
  }

  document.addEventListener("visibilitychange", read);
  read();
  return { unmount() { clearTimeout(timer); document.removeEventListener("visibilitychange", read); } };
}

function sparkline(name, values, said) {
  const most = Math.max(...values), top = most > 0 ? most : 1;
  // A young line fills a part of the width, so that it is no single tall step.
  const across = Math.max(values.length, LEAST), begin = across - values.length;
  const at = (value, place) => `${(WIDTH * (begin + place) / (across - 1)).toFixed(1)} ${(HEIGHT - 2 - (HEIGHT - 4) * value / top).toFixed(1)}`;
  const line = values.map(at).join("L");
  const first = (WIDTH * begin / (across - 1)).toFixed(1);
  return svg("svg.spark", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img", "aria-label": t("load.graph", { name, n: (values.length - 1) * EVERY_S, most: said(most) }) },
    svg("path.area", { d: `M${first} ${HEIGHT}L${line}L${WIDTH} ${HEIGHT}Z` }), svg("path.line", { d: "M" + line }));
}
