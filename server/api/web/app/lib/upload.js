// Sends a file with its progress, which fetch does not report. Same server, same key as `api.js`.
import { ApiError, key, refusal } from "./api.js";

// progress: called with the share that is sent. Rejects with ApiError, or with AbortError after `signal`.
export function upload(path, file, { signal, progress }) {
  return new Promise((resolve, reject) => {
    const asked = new XMLHttpRequest();
    asked.open("POST", new URL(path, new URL(".", location.href)));
    asked.setRequestHeader("accept", "application/json");
    asked.setRequestHeader("content-type", "application/octet-stream");
    if (key.get()) asked.setRequestHeader("authorization", "Bearer " + key.get());
    asked.upload.onprogress = ({ loaded, total }) => progress(total ? loaded / total : 1);
    asked.onload = () => {
      let said = null;
      try { said = JSON.parse(asked.responseText); } catch { /* see refusal */ }
      if (said && asked.status < 300) resolve(said);
      else reject(refusal(asked, said, asked.getResponseHeader("retry-after")));
    };
    asked.onerror = () => reject(new ApiError(0, "unreachable", ""));
    asked.onabort = () => reject(new DOMException("", "AbortError"));
    if (signal.aborted) return asked.onabort();
    signal.addEventListener("abort", () => asked.abort());
    asked.send(file);
  });
}
