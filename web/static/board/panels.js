/**
 * The board's side panels: menu and stock, tables, recently done.
 */

import { h, icon } from "../ui/dom.js";
import { age, elapsed, money, reasonText, t } from "../ui/i18n.js";
import { due, mark, UNPAID } from "../ui/money.js";
import { tableOrders } from "./bill.js";

const DONE_SHOWN = 30;

/** @typedef {{client: import("../onda.js").Client, store: string}} Board */

/** @param {Board} board */
export function menuPanel({ client }) {
  const products = Object.values(client.state.products ?? {});
  const shop = client.state.shop?.self;
  return {
    title: t("menu.title"),
    body: [
      shop && shopRow(client, shop),
      h("p", { class: "hint" }, t("menu.help")),
      h(
        "ul",
        { class: "rows" },
        products.map((p) => product(client, p)),
      ),
    ],
  };
}

/** @param {import("../onda.js").Client} client @param {any} shop */
function shopRow(client, shop) {
  const button = (/** @type {string} */ act) =>
    h(
      "button",
      { type: "button", class: "plain", "data-act": act, disabled: isPending(client, act) },
      t(`do.${act}`),
    );
  const state = !shop.open ? "closed" : shop.paused ? "paused" : "open";
  return h(
    "div",
    { class: "row shop-row" },
    h("span", { class: `pill pill-${state}` }, t(`shop.${state}`)),
    shop.open && button(shop.paused ? "resume-orders" : "pause-orders"),
    button(shop.open ? "close-store" : "open-store"),
  );
}

/** @param {import("../onda.js").Client} client @param {string} command @param {string} [name] */
function isPending(client, command, name) {
  return client.pending.some(
    (entry) => entry.command === command && (name === undefined || entry.body.product === name),
  );
}

/** @param {import("../onda.js").Client} client @param {any} product */
function product(client, { product: name, name: label, price, stock, sold_out: off, held = 0, pinned = 0 }) {
  const waiting = isPending(client, "set-sold-out", name);
  const counting = isPending(client, "adjust-stock", name);
  const left =
    stock === null ? t("menu.uncounted") : stock === 0 ? t("menu.none-left") : t("menu.left", { n: stock });
  const kept = held + pinned > 0 && t("menu.kept", { n: held + pinned });
  const step = (/** @type {number} */ delta, /** @type {string} */ sign, /** @type {string} */ words) =>
    h(
      "button",
      {
        type: "button",
        class: "quiet square",
        "data-act": "adjust-stock",
        "data-product": name,
        "data-delta": delta,
        "aria-label": words,
        disabled: counting || (delta < 0 && stock === 0),
      },
      icon(sign),
    );
  return h(
    "li",
    { class: `row product-row${off || stock === 0 ? " off" : ""}`, key: name },
    h(
      "span",
      { class: "grow" },
      h("b", null, label),
      h("small", null, [money(price), left, kept].filter(Boolean).join(" · ")),
    ),
    counting && icon("clock"),
    stock !== null && [
      step(-1, "minus", t("menu.less", { name: label })),
      step(1, "plus", t("menu.more", { name: label })),
    ],
    h(
      "button",
      {
        type: "button",
        class: "switch",
        role: "switch",
        "aria-checked": String(!off),
        "aria-label": t("menu.switch", { name: label }),
        "data-act": "sold-out",
        "data-product": name,
        "data-to": String(!off),
        disabled: waiting,
      },
      h("span", { class: "knob" }, waiting && icon("clock")),
      h("span", { class: "switch-text" }, t(off ? "menu.sold-out" : "menu.on-sale")),
    ),
  );
}

/** @param {Board} board */
export function tablesPanel({ client }) {
  const tables = Object.values(client.state.tables ?? {}).filter((table) => table.open);
  tables.sort((one, other) => one.table.localeCompare(other.table, undefined, { numeric: true }));
  return {
    title: t("tables.title"),
    body: [
      tables.length === 0 && h("p", { class: "empty" }, t("tables.none")),
      h(
        "ul",
        { class: "rows" },
        tables.map((table) => tableRow(client, table)),
      ),
    ],
  };
}

/** @param {import("../onda.js").Client} client @param {any} table */
function tableRow(client, { table, guests, opened_at: since }) {
  const orders = tableOrders(client, table, since ?? "");
  const sum = (/** @type {(order: any) => number} */ of) =>
    orders.reduce((total, order) => total + of(order), 0);
  const total = sum((order) => (order.closed_at && order.status !== "SERVED" ? 0 : order.total));
  const open = sum(due);
  const waitingForPay = Object.values(client.state.orders ?? {}).find(
    (order) => order.table === table && UNPAID.includes(order.status),
  );
  const facts = [
    guests && t("board.guests", { n: guests }),
    since && t("tables.since", { time: elapsed(age(since, client.now())) }),
    t("tables.orders", { n: orders.length }),
    open > 0 && open < total && t("tables.due", { amount: money(open) }),
  ];
  const waiting = client.pending.some(
    (entry) => entry.command === "close-table" && entry.feed.endsWith(`/${table}`),
  );
  return h(
    "li",
    { class: "row", key: table },
    h("strong", { class: "place" }, table),
    h(
      "span",
      { class: "grow" },
      h("b", null, money(total)),
      h("small", null, facts.filter(Boolean).join(" · ")),
      tableMark(orders, open, waitingForPay),
    ),
    orders.length > 0 &&
      h(
        "button",
        {
          type: "button",
          class: orders.some((order) => due(order) > 0) ? "primary" : "plain",
          "data-act": "bill",
          "data-table": table,
        },
        icon("receipt"),
        t("bill.open"),
      ),
    h(
      "button",
      { type: "button", class: "plain", "data-act": "close-table", "data-table": table, disabled: waiting },
      waiting && icon("clock"),
      t("do.close-table"),
    ),
  );
}

/**
 * How a table as a whole stands with its money.
 * @param {any[]} orders @param {number} open @param {any} waiting  an order that waits for its payment
 */
function tableMark(orders, open, waiting) {
  if (waiting) return mark(waiting);
  if (orders.length === 0) return null;
  const sum = (/** @type {string} */ name) => orders.reduce((all, order) => all + (order[name] ?? 0), 0);
  const [paid, refunded] = [sum("paid"), sum("refunded")];
  if (refunded > 0 && orders.every((order) => due(order) === 0))
    return mark({ status: "SERVED", total: paid, paid, refunded });
  return mark({ status: "SERVED", total: paid + open, paid });
}

/** @param {Board} board */
export function donePanel({ client }) {
  const orders = Object.values(client.state.orders ?? {})
    .filter((order) => order.closed_at !== null)
    .sort((one, other) => other.closed_at.localeCompare(one.closed_at))
    .slice(0, DONE_SHOWN);
  return {
    title: t("done.title"),
    body: [
      orders.length === 0 && h("p", { class: "empty" }, t("done.none")),
      h(
        "ul",
        { class: "rows" },
        orders.map((order) => doneRow(client, order)),
      ),
    ],
  };
}

/** @param {import("../onda.js").Client} client @param {any} order */
function doneRow(client, order) {
  const what = order.lines.map((/** @type {any} */ line) => `${line.name} ×${line.quantity}`).join(", ");
  const waiting = client.pending.some((entry) => entry.body.order === order.order);
  return h(
    "li",
    { class: "row", key: order.order },
    h("strong", { class: "place" }, order.table ?? "–"),
    h(
      "span",
      { class: "grow" },
      h("b", null, `#${order.number} · ${t(`order.${order.status}`)}`),
      h("small", null, what),
      order.reason && h("small", null, reasonText(order.reason)),
    ),
    mark(order),
    order.table === null &&
      due(order) > 0 &&
      h(
        "button",
        { type: "button", class: "primary", "data-act": "bill", "data-order": order.order },
        icon("receipt"),
        t("bill.open"),
      ),
    order.status === "SERVED" &&
      h(
        "button",
        {
          type: "button",
          class: "plain",
          "data-act": "order",
          "data-command": "recall-order",
          "data-order": order.order,
          disabled: waiting,
        },
        waiting && icon("clock"),
        t("do.recall-order"),
      ),
  );
}
