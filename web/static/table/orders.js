/**
 * This sitting's orders: how far each has come, and what it adds up to.
 */

import { h, icon } from "../ui/dom.js";
import { money, reasonText, t } from "../ui/i18n.js";
import { announce, toast } from "../ui/speak.js";
import { chosenNames } from "./menu.js";

const STEPS = ["PLACED", "ACCEPTED", "COOKING", "READY"];
const OVER = ["REJECTED", "CANCELLED"];

/** @param {{client: import("../onda.js").Client}} page */
export function ordersView({ client }) {
  const orders = Object.values(client.state.orders ?? {}).sort((one, other) => other.number - one.number);
  const sending = Object.values(client.state.sending ?? {});
  const submitting = client.pending.find((entry) => entry.command === "submit-cart");
  const total = orders
    .filter((order) => !OVER.includes(order.status))
    .reduce((sum, order) => sum + order.total, 0);
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
    orders.map((order) => one(client, order)),
    orders.length > 0 &&
      h(
        "p",
        { class: "bill", key: "bill" },
        h("span", null, t("t.bill")),
        h("b", null, money(total)),
        h("small", null, t("t.vat")),
      ),
  ];
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

/** @param {import("../onda.js").Client} client @param {any} order */
function one(client, order) {
  const over = OVER.includes(order.status);
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
      icon(over ? "warning" : "check"),
      t(`t.now.${order.status}`),
      order.reason && ` – ${reasonText(order.reason)}`,
    ),
    !over && steps(at),
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
    order.status === "PLACED" &&
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
      if (first || before === order.status || order.status === "PLACED") continue;
      const bad =
        order.status === "REJECTED" || (order.status === "CANCELLED" && order.reason !== "changed_mind");
      const text = `${t("t.order-n", { number: order.number })}: ${t(`t.now.${order.status}`)}`;
      if (bad || order.status === "READY" || order.status === "ACCEPTED")
        toast(text, { kind: bad ? "bad" : "good" });
      else announce(text);
    }
    first = false;
  });
}
