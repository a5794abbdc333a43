// Requests to this server, and to no other. The key lives in this tab: sessionStorage.
import { t } from "./words.js";

const BASE = new URL(".", location.href);
const KEY = "inkwell.key";

export const key = {
  get() { try { return sessionStorage.getItem(KEY) || ""; } catch { return ""; } },
  set(secret) { try { sessionStorage.setItem(KEY, secret); } catch { /* no storage */ } },
  forget() { try { sessionStorage.removeItem(KEY); } catch { /* no storage */ } },
};

// status 0: no answer at all. retryAfter: seconds until the next try, where the error is `busy`.
export class ApiError extends Error {
  constructor(status, code, message, retryAfter = 3) {
    super(message);
    Object.assign(this, { status, code, retryAfter });
  }
  // The same request may succeed later. A proxy answers 502 or 504 for a server that does not answer.
  get busy() { return [0, 429, 502, 503, 504].includes(this.status); }
}

// Resolves with JSON (or text). Rejects with ApiError, or with AbortError where `signal` ended the request.
export async function request(method, path, { body, signal, type = "application/json", secret = key.get(), text = false } = {}) {
  const headers = { accept: text ? "text/plain" : "application/json" };
  if (secret) headers.authorization = "Bearer " + secret;
  if (body !== undefined) headers["content-type"] = type;
  const sent = body === undefined || type !== "application/json" ? body : JSON.stringify(body);
  let answer;
  try {
    answer = await fetch(new URL(path, BASE), { method, headers, body: sent, signal });
    if (answer.ok) return text ? await answer.text() : await answer.json();
  } catch (error) {
    if (error.name === "AbortError" || error instanceof SyntaxError) throw error;
    throw new ApiError(0, "unreachable", error.message);
  }
  throw refusal(answer, await answer.json().catch(() => null), answer.headers.get("retry-after"));
}

export const get = (path, options) => request("GET", path, options);
export const post = (path, body, options) => request("POST", path, { ...options, body });
export const remove = (path, options) => request("DELETE", path, options);

// Asks until the server has time: for what a view reads once.
export async function patient(path, options) {
  for (;;) {
    try {
      return await get(path, options);
    } catch (error) {
      if (!error.busy) throw error;
      await new Promise((resolve) => setTimeout(resolve, 1000 * error.retryAfter));
    }
  }
}

// Whether this server has its manual: it may have been installed without.
export async function hasManual() {
  const answer = await fetch(new URL("manual", BASE), { method: "HEAD" }).catch(() => null);
  return Boolean(answer?.ok && answer.headers.has("link"));
}

// said: the body, null where it is not JSON: something between here and the server wrote it.
export function refusal({ status, statusText }, said, wait) {
  const error = said?.error?.message ? said.error : { message: said?.error };
  return new ApiError(status, error.code || String(status), error.message || statusText, Number(wait) || undefined);
}

// The path of something in a collection. Names may hold any character.
export const within = (collection, path) => `collections/${encodeURIComponent(collection)}/${path}`;

// An id may hold slashes; each part is encoded. A browser takes a part "." or ".." out of the address, also where
// it is encoded, and would ask for something else: perhaps to delete a collection.
export function pathOf(id) {
  const parts = String(id).split("/");
  if (parts.some((each) => each === "." || each === "..")) throw new ApiError(400, "dots", t("error.dots", { id }));
  return parts.map(encodeURIComponent).join("/");
}

// What went wrong, in the reader's language. The server's own sentence is English and stands behind it.
export function sentence(error) {
  if (!(error instanceof ApiError)) return t("error.page", { message: error.message });
  if (error.code === "dots") return error.message;
  if ([0, 502, 504].includes(error.status)) return t("error.unreachable");
  if (error.status === 401) return t("error.key");
  if (error.status === 403) return t("error.scope", { message: error.message });
  if (error.busy) return t("error.busy", { wait: error.retryAfter });
  if (error.status >= 500) return t("error.server", { message: error.message });
  return t("error.refused", { message: error.message });
}
