/**
 * Who is holding this phone: a nickname that is kept here for this sitting, and goes along with each line.
 */

import { h } from "../ui/dom.js";
import { t } from "../ui/i18n.js";
import { setSetting, setting } from "../ui/session.js";
import { ask } from "../ui/speak.js";

/** @param {import("../onda.js").Client} client */
function key(client) {
  const seat = client.state.table?.self;
  return `name|${seat?.store}/${seat?.table}/${seat?.sitting}`;
}

/** @param {import("../onda.js").Client} client */
export function nameOf(client) {
  return setting(key(client)) ?? "";
}

/** @param {import("../onda.js").Client} client */
export async function askName(client) {
  const { value, form } = await ask({
    title: t("t.me-title"),
    body: [
      h("label", { class: "hint", for: "name" }, t("t.me-hint")),
      h("input", {
        id: "name",
        name: "name",
        maxlength: 20,
        value: nameOf(client),
        autocomplete: "nickname",
      }),
    ],
    buttons: [
      { value: "no", label: t("cancel"), kind: "quiet" },
      { value: "yes", label: t("ok"), kind: "primary" },
    ],
  });
  if (value === "yes") setSetting(key(client), String(form.get("name")).trim());
}
