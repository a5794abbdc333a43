// The address is the state: #/search?c=laws&q=... So each search has a link, and "back" works.

export function read() {
  const [path, query = ""] = location.hash.replace(/^#\/?/, "").split("?");
  return { view: path || "search", params: Object.fromEntries(new URLSearchParams(query)) };
}

// Empty values are left out.
export function hash(view, params) {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(params)) if (value !== "" && value !== null && value !== undefined) query.set(name, value);
  return `#/${view}${query.size === 0 || String(query) === "" ? "" : "?" + query}`;
}

// replace: without a step in the browser's history and without an event.
export function write(view, params, { replace = false } = {}) {
  const wanted = hash(view, params);
  if (wanted === location.hash) return;
  if (replace) history.replaceState(null, "", wanted);
  else location.hash = wanted;
}
