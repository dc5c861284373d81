/**
 * Orders that wait for their payment: a slim strip, because the kitchen does not cook them yet.
 */

import { h, icon } from "../ui/dom.js";
import { money, t } from "../ui/i18n.js";
import { countdown, mark, standing, UNPAID } from "../ui/money.js";

/** @param {import("../onda.js").Client} client */
export function unpaidOrders(client) {
  return Object.values(client.state.orders ?? {})
    .filter((order) => UNPAID.includes(order.status))
    .sort((one, other) => one.number - other.number);
}

/** @param {{client: import("../onda.js").Client}} board */
export function waitingStrip({ client }) {
  const orders = unpaidOrders(client);
  if (orders.length === 0) return null;
  return h(
    "section",
    { class: "unpaid", "aria-label": t("unpaid.title"), key: "unpaid" },
    h(
      "h2",
      null,
      icon("card"),
      h("span", null, t("unpaid.title")),
      h("span", { class: "count" }, orders.length),
    ),
    h(
      "ul",
      null,
      orders.map((order) => one(client, order)),
    ),
  );
}

/** @param {import("../onda.js").Client} client @param {any} order */
function one(client, order) {
  const state = standing(order);
  const where = order.table === null ? t("board.no-table") : t("table-n", { table: order.table });
  return h(
    "li",
    { class: `unpaid-order unpaid-${state}`, key: order.order },
    h("b", null, where),
    h("span", null, `#${order.number} · ${money(order.total)}`),
    state === "due"
      ? order.hold_expires_at && countdown(order.hold_expires_at, client, "")
      : h(
          "button",
          { type: "button", class: "bare", "data-act": "panel-payments", title: t("payments.title") },
          mark(order),
        ),
  );
}
