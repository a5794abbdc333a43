// What went wrong, as an element: a sentence, and a way on.
import { sentence } from "./api.js";
import { button, h } from "./dom.js";
import { t } from "./words.js";

// again: called by the button, and by itself when a busy or missing server may answer. It stops when the
// element is taken off the page.
export function failure(error, again) {
  const said = h("p", {}, sentence(error));
  const shown = h("div.failure", { role: "alert", data: { code: error.code || "page" } }, said);
  if (!again) return shown;
  shown.append(button(t("again"), () => { clearInterval(timer); again(); }));
  let left = error.retryAfter;
  const timer = error.busy && setInterval(() => {
    if (!shown.isConnected) return clearInterval(timer);
    left -= 1;
    if (error.status !== 0 && left > 0) said.textContent = sentence(Object.assign(error, { retryAfter: left }));
    if (left > 0) return;
    clearInterval(timer);
    again();
  }, 1000);
  return shown;
}
