/**
 * Before and after: how many guests sit down, and goodbye.
 */

import { h, icon } from "../ui/dom.js";
import { t } from "../ui/i18n.js";

/** @param {{client: import("../onda.js").Client}} page */
export function welcome({ client }) {
  const waiting = client.pending.some((entry) => entry.command === "open-table");
  const choice = (/** @type {number} */ n) =>
    h(
      "button",
      { type: "button", class: "plain guests", "data-act": "open", "data-guests": n, disabled: waiting },
      t("t.guests", { n }),
    );
  return h(
    "main",
    { class: "notice", key: "welcome" },
    icon("wave"),
    h("h1", null, t("t.welcome")),
    h("p", { id: "how-many" }, t("t.how-many")),
    h(
      "div",
      { class: "guest-grid", role: "group", "aria-labelledby": "how-many" },
      [1, 2, 3, 4, 5, 6, 7, 8].map(choice),
    ),
    h(
      "button",
      { type: "button", class: "plain", "data-act": "open", disabled: waiting },
      t("t.more-guests"),
    ),
    waiting && h("p", { class: "waiting", role: "status" }, icon("clock"), t("t.starting")),
  );
}

export function thanks() {
  return h(
    "main",
    { class: "notice", key: "thanks" },
    icon("wave"),
    h("div", { role: "status" }, h("h1", null, t("t.thanks")), h("p", null, t("t.thanks-help"))),
    h("button", { type: "button", class: "plain", "data-act": "again" }, t("t.again")),
  );
}
