/**
 * This sitting's orders: how far each has come, and what it adds up to.
 */

import { h, icon } from "../ui/dom.js";
import { payCard } from "../pay/card.js";
import { money, reasonText, t } from "../ui/i18n.js";
import { DEAD, due, standing, UNPAID } from "../ui/money.js";
import { announce, toast } from "../ui/speak.js";
import { chosenNames } from "./menu.js";

const STEPS = ["PLACED", "ACCEPTED", "COOKING", "READY"];

/** @typedef {{client: import("../onda.js").Client, store: string, flow: any}} Page */

/** @param {Page} page */
export function ordersView(page) {
  const { client } = page;
  const orders = Object.values(client.state.orders ?? {}).sort((one, other) => other.number - one.number);
  const sending = Object.values(client.state.sending ?? {});
  const submitting = client.pending.find((entry) => entry.command === "submit-cart");
  const unsent = submitting && sending.length === 0;
  return [
    h("h2", { id: "h-orders" }, t("t.orders")),
    orders.length + sending.length === 0 && !unsent && h("p", { class: "empty" }, t("t.no-orders")),
    unsent && onItsWay("unsent", client.status === "live" ? t("t.sending") : t("t.submit-waiting"), []),
    sending.map((each) =>
      onItsWay(
        each.order,
        t("t.sending"),
        each.lines.map((/** @type {any} */ line) => lineText(client, line)),
      ),
    ),
    orders.map((order) => one(page, order)),
    orders.length > 0 && bill(orders),
  ];
}

/** What all orders add up to, and what of it is paid. @param {any[]} orders */
function bill(orders) {
  const sum = (/** @type {(order: any) => number} */ of) =>
    orders.reduce((total, order) => total + of(order), 0);
  const total = sum((order) => (DEAD.includes(order.status) ? 0 : order.total));
  const paid = sum((order) => (order.paid ?? 0) - (order.refunded ?? 0));
  const row = (/** @type {string} */ key, /** @type {number} */ amount) => [
    h("span", { class: "bill-part" }, t(key)),
    h("span", { class: "bill-part" }, money(amount)),
  ];
  return h(
    "div",
    { class: "bill", key: "bill" },
    h("span", null, t("t.bill")),
    h("b", null, money(total)),
    paid > 0 && row("t.bill-paid", paid),
    paid > 0 && row("t.bill-due", sum(due)),
    h("small", null, t("t.vat")),
  );
}

/** @param {import("../onda.js").Client} client @param {any} line */
function lineText(client, line) {
  const item = client.state.menu?.[line.product];
  const options = chosenNames(item, line.options).join(", ");
  return `${line.name ?? item?.name ?? line.product}${options ? ` (${options})` : ""} × ${line.quantity}`;
}

/**
 * An order that the shop has not confirmed: no step is done.
 * @param {string} key
 * @param {string} text
 * @param {string[]} lines
 */
function onItsWay(key, text, lines) {
  return h(
    "article",
    { class: "order is-sending", key: `sending-${key}` },
    h("p", { class: "now", role: "status" }, icon("clock"), text),
    steps(-1),
    lines.length > 0 &&
      h(
        "ul",
        { class: "order-lines" },
        lines.map((line) => h("li", null, line)),
      ),
    h("small", null, t("t.sending-help")),
  );
}

/** @param {number} at  the step that was reached; -1: none */
function steps(at) {
  const step = (/** @type {string} */ name, /** @type {number} */ index) =>
    h(
      "li",
      {
        class: index < at ? "past" : index === at ? "here" : "",
        "aria-current": index === at ? "step" : null,
      },
      h("span", { class: "bead" }, index <= at && icon("check")),
      h("span", null, t(`t.step.${name}`)),
    );
  return h("ol", { class: "steps" }, STEPS.map(step));
}

/** @param {Page} page @param {any} order */
function one({ client, store, flow }, order) {
  const over = DEAD.includes(order.status);
  const unpaid = UNPAID.includes(order.status);
  const state = standing(order);
  const at = order.status === "SERVED" ? STEPS.length : STEPS.indexOf(order.status);
  const cancelling = client.pending.some(
    (entry) => entry.command === "cancel-order" && entry.body.order === order.order,
  );
  return h(
    "article",
    {
      class: `order is-${order.status.toLowerCase()}`,
      key: order.order,
      "aria-label": t("t.order-n", { number: order.number }),
    },
    h(
      "header",
      { class: "row spread" },
      h("h3", null, t("t.order-n", { number: order.number })),
      h("b", null, money(order.total)),
    ),
    h(
      "p",
      { class: "now" },
      icon(over ? "warning" : unpaid ? "clock" : "check"),
      unpaid ? t(`pay.mark.${state}`) : t(`t.now.${order.status}`),
      order.reason && ` – ${reasonText(order.reason)}`,
    ),
    !over && !unpaid && steps(at),
    h(
      "ul",
      { class: "order-lines" },
      order.lines.map((/** @type {any} */ line) =>
        h(
          "li",
          { class: `line-${line.status.toLowerCase()}`, key: line.line },
          h("span", { class: "grow" }, lineText(client, line)),
          line.status === "READY" &&
            order.status === "COOKING" &&
            h("small", { class: "good" }, icon("check"), t("t.line.READY")),
          line.status === "CANCELLED" && h("small", null, t("t.line.CANCELLED")),
        ),
      ),
    ),
    payCard({ client, order, store, entity: order.order, flow, mayPay: !order.user }),
    (order.status === "PLACED" || (unpaid && state !== "checking" && state !== "review")) &&
      h(
        "button",
        {
          type: "button",
          class: "quiet",
          "data-act": "cancel-order",
          "data-order": order.order,
          disabled: cancelling,
        },
        cancelling && icon("clock"),
        t("t.cancel"),
      ),
  );
}

/** Tell guests when an order goes on. @param {import("../onda.js").Client} client */
export function progressNews(client) {
  /** @type {Map<string, string>} */
  const known = new Map();
  let first = true;
  client.on("change", ({ collections }) => {
    if (!collections.has("orders")) return;
    for (const order of Object.values(client.state.orders ?? {})) {
      const before = known.get(order.order);
      known.set(order.order, order.status);
      if (first || before === order.status || UNPAID.includes(order.status)) continue;
      if (order.status === "PLACED" && !UNPAID.includes(before ?? "")) continue;
      const bad =
        ["REJECTED", "EXPIRED"].includes(order.status) ||
        (order.status === "CANCELLED" && order.reason !== "changed_mind");
      const text = `${t("t.order-n", { number: order.number })}: ${t(`t.now.${order.status}`)}`;
      if (bad || ["PLACED", "READY", "ACCEPTED"].includes(order.status))
        toast(text, { kind: bad ? "bad" : "good" });
      else announce(text);
    }
    first = false;
  });
}
