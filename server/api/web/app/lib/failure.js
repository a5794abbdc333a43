// What went wrong, as an element: a sentence, and a way on.
import { ApiError, sentence } from "./api.js";
import { button, h } from "./dom.js";
import { t } from "./words.js";

const UNREACHABLE_S = 3;

// again: called by the button, and by itself when a busy or missing server may answer. It stops when the
// element is taken off the page.
export function failure(error, again) {
  const said = h("p", {}, sentence(error));
  const shown = h("div.failure", { role: "alert", data: { code: error.code || "page" } }, said);
  if (!again || error.status === 401) return shown;
  shown.append(button(t("again"), () => { clearInterval(timer); again(); }));
  const busy = error instanceof ApiError && [0, 429, 503].includes(error.status);
  let left = busy ? error.retryAfter ?? UNREACHABLE_S : 0;
  const timer = busy && setInterval(() => {
    if (!shown.isConnected) return clearInterval(timer);
    left -= 1;
    if (error.status !== 0 && left > 0) said.textContent = sentence(Object.assign(error, { retryAfter: left }));
    if (left > 0) return;
    clearInterval(timer);
    again();
  }, 1000);
  return shown;
}
