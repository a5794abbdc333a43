// Asks for the server's key, and forgets it on demand.
import { get, key, sentence } from "./api.js";
import { button, h, iconButton } from "./dom.js";
import { t } from "./words.js";

// access: the answer of GET /key, or null where the server refused. Resolves when the dialog closes: true where
// another key is in use now.
export function askKey(access) {
  return new Promise((resolve) => {
    const field = h("input", { type: "password", id: "key", name: "key", autocomplete: "off", required: true });
    const said = h("p.bad", { role: "alert" });
    const known = access && access.needed;
    let changed = false;
    const use = async (event) => {
      event.preventDefault();
      const secret = field.value.trim();
      try {
        await get("key", { secret });
      } catch (error) {
        said.textContent = error.status === 401 ? t("key.wrong") : sentence(error);
        return field.select();
      }
      key.set(secret);
      changed = true;
      dialog.close();
    };
    const forget = () => { key.forget(); changed = true; dialog.close(); };
    const dialog = h("dialog.sheet", { "aria-labelledby": "key-title", on: { close: () => { dialog.remove(); resolve(changed); } } },
      h("header", {}, h("h2", { id: "key-title" }, t("key.title")), iconButton("close", t("close"), () => dialog.close())),
      known && h("p", {}, t("key.known", { name: access.name, scopes: access.scopes.join(", ") || t("key.none") })),
      h("p.dim", {}, t("key.about")),
      h("form", { on: { submit: use } },
        h("label", { for: "key" }, t("key.label")), field, said,
        h("div.row", {}, h("button.primary", { type: "submit" }, t("key.use")), key.get() && button(t("key.forget"), forget))));
    document.body.append(dialog);
    dialog.showModal();
    field.focus();
  });
}
