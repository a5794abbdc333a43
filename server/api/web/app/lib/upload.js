// Sends a file with its progress, which fetch does not report. Same server, same key as `api.js`.
import { ApiError, key } from "./api.js";

// progress: called with the share that is sent. Rejects with ApiError, or with AbortError after `signal`.
export function upload(path, file, { signal, progress }) {
  return new Promise((resolve, reject) => {
    const asked = new XMLHttpRequest();
    asked.open("POST", new URL(path, new URL(".", location.href)));
    asked.setRequestHeader("accept", "application/json");
    asked.setRequestHeader("content-type", "application/octet-stream");
    if (key.get()) asked.setRequestHeader("authorization", "Bearer " + key.get());
    asked.upload.onprogress = ({ loaded, total }) => progress(total ? loaded / total : 1);
    asked.onload = () => (asked.status < 300 ? resolve(JSON.parse(asked.responseText)) : reject(refusal(asked)));
    asked.onerror = () => reject(new ApiError(0, "unreachable", ""));
    asked.onabort = () => reject(new DOMException("", "AbortError"));
    if (signal.aborted) return asked.onabort();
    signal.addEventListener("abort", () => asked.abort());
    asked.send(file);
  });
}

function refusal(asked) {
  let error = {};
  try { error = JSON.parse(asked.responseText).error || {}; } catch { /* not JSON: something between here and the server */ }
  return Object.assign(new ApiError(asked.status, error.code || String(asked.status), error.message || asked.statusText), {
    retryAfter: Number(asked.getResponseHeader("retry-after")) || null });
}
