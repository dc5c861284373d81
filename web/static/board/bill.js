/**
 * The bill of a table (or of one order without a table): what is open, and how it is paid at the till: all of
 * it, an amount, or some items; in cash, by card, or mixed.
 */

import { h, icon } from "../ui/dom.js";
import { money, t } from "../ui/i18n.js";
import { DEAD, due, mark, netPrices, UNPAID } from "../ui/money.js";

const METHODS = ["cash", "card", "transfer", "other", "mixed"];
const SIGNS = /** @type {Record<string, string>} */ ({
  cash: "bill",
  card: "card",
  transfer: "arrow",
  other: "receipt",
  mixed: "plus",
});

/** What the till is about to take, as it is set up on this screen. */
export const bill = {
  /** @type {string | null} */
  table: null,
  /** For a bill without a table. @type {string | null} */
  order: null,
  /** @type {"all" | "lines" | "amount"} */
  split: "all",
  /** @type {Set<string>} */
  lines: new Set(),
  amount: 0,
  method: "cash",
  /** Of a mixed payment: what comes in cash; the rest is by card. */
  cash: 0,
  /** Counts set-ups: each begins with fresh inputs, whatever was typed into the last ones. */
  round: 0,
};

/** @typedef {{client: import("../onda.js").Client, send: any}} Board */

/** @param {string | null} table @param {string | null} order */
export function startBill(table, order) {
  const fresh = { split: "all", lines: new Set(), amount: 0, method: "cash", cash: 0 };
  Object.assign(bill, { table, order, ...fresh, round: bill.round + 1 });
}

/** The orders on the bill, oldest first. @param {import("../onda.js").Client} client */
function ordersOf(client) {
  const { orders = {}, tables = {} } = client.state;
  if (bill.order !== null) return orders[bill.order] ? [orders[bill.order]] : [];
  const since = tables[bill.table ?? ""]?.opened_at ?? "";
  return tableOrders(client, bill.table, since).sort((one, other) => one.number - other.number);
}

/**
 * Orders of the party that sits at a table, without those that came to nothing and cost nothing.
 * @param {import("../onda.js").Client} client @param {string | null} table @param {string} since
 */
export function tableOrders(client, table, since) {
  return Object.values(client.state.orders ?? {}).filter(
    (order) =>
      order.table === table &&
      (order.placed_at ?? "") >= since &&
      !UNPAID.includes(order.status) &&
      (!DEAD.includes(order.status) || (order.paid ?? 0) > 0),
  );
}

/** What the next payment is over. @param {any[]} orders */
function amountOf(orders) {
  const open = orders.reduce((sum, order) => sum + due(order), 0);
  if (bill.split === "amount") return Math.min(bill.amount, open);
  if (bill.split === "all") return open;
  return orders.reduce((sum, order) => {
    const prices = netPrices(order);
    const lines = order.lines.filter((/** @type {any} */ line) => chosen(order, line));
    const part = lines.reduce(
      (/** @type {number} */ all, /** @type {any} */ line) => all + (prices.get(line.line) ?? 0),
      0,
    );
    return sum + Math.min(part, due(order));
  }, 0);
}

/** @param {any} order @param {any} line */
function key(order, line) {
  return `${order.order} ${line.line}`;
}

/** @param {any} order @param {any} line */
function chosen(order, line) {
  return bill.lines.has(key(order, line)) && isOpen(order, line);
}

/** @param {any} order @param {any} line */
function isOpen(order, line) {
  return line.status !== "CANCELLED" && !(order.paid_lines ?? []).includes(line.line) && due(order) > 0;
}

/** @param {Board} board */
export function billPanel({ client }) {
  const orders = ordersOf(client);
  const sum = (/** @type {(order: any) => number} */ of) =>
    orders.reduce((total, order) => total + of(order), 0);
  const total = sum((order) => (DEAD.includes(order.status) ? 0 : order.total));
  const paid = sum((order) => (order.paid ?? 0) - (order.refunded ?? 0));
  const open = sum(due);
  const title =
    bill.table === null
      ? t("board.no-table")
      : t("bill.title", { where: t("table-n", { table: bill.table }) });
  const row = (/** @type {string} */ name, /** @type {number} */ amount, look = "") => [
    h("dt", { class: look }, t(name)),
    h("dd", { class: look }, money(amount)),
  ];
  return {
    title,
    body: [
      orders.length === 0 && h("p", { class: "empty" }, t("bill.none")),
      orders.map((order) => orderPart(order)),
      h(
        "dl",
        { class: "receipt bill-sums", key: "sums" },
        row("pay.total", total),
        paid > 0 && row("pay.paid", paid),
        row("t.bill-due", open, "receipt-total"),
      ),
      open > 0
        ? till(client, orders, open)
        : total > 0 && h("p", { class: "pay-note pay-note-good" }, icon("check"), t("bill.done")),
    ],
  };
}

/** @param {any} order */
function orderPart(order) {
  const discount = order.discount > 0 && order.total > 0;
  return h(
    "section",
    { class: "bill-order", key: order.order },
    h("header", { class: "row spread" }, h("h3", null, `#${order.number}`), mark(order)),
    h(
      "ul",
      null,
      order.lines.map((/** @type {any} */ line) => linePart(order, line)),
    ),
    discount &&
      h(
        "p",
        { class: "row spread" },
        h("span", null, t("pay.discount")),
        h("b", null, `−${money(order.discount)}`),
      ),
  );
}

/** @param {any} order @param {any} line */
function linePart(order, line) {
  const open = isOpen(order, line);
  const paid = (order.paid_lines ?? []).includes(line.line);
  const text = [
    h("span", { class: "grow" }, `${line.name} × ${line.quantity}`),
    paid && h("small", { class: "good" }, icon("check"), t("pay.mark.paid")),
    h("span", { class: "price" }, money(line.price * line.quantity)),
  ];
  const looks = `bill-line line-${line.status.toLowerCase()}`;
  if (bill.split !== "lines" || !open)
    return h("li", { class: looks, key: line.line }, h("div", { class: "row" }, text));
  return h(
    "li",
    { class: looks, key: `${line.line} ${bill.round}` },
    h(
      "label",
      { class: "choice" },
      h("input", { type: "checkbox", name: "line", value: key(order, line) }),
      text,
    ),
  );
}

/** @param {import("../onda.js").Client} client @param {any[]} orders @param {number} open */
function till(client, orders, open) {
  const amount = amountOf(orders);
  const waiting = client.pending.some(
    ({ command, body }) =>
      (command === "settle-table" && body.table === bill.table) ||
      (command === "settle-order" && body.order === bill.order),
  );
  const mixedOff = bill.method === "mixed" && (bill.cash <= 0 || bill.cash >= amount);
  return h(
    "div",
    { class: "till", key: "till" },
    options("split", "bill.split", ["all", "lines", "amount"], bill.split, (name) => `bill.${name}`),
    bill.split === "lines" && h("p", { class: "hint" }, t("bill.choose")),
    bill.split === "amount" && number("amount", t("bill.how-much"), open),
    options("method", "bill.method", METHODS, bill.method, (name) => `method.${name}`),
    bill.method === "mixed" && [
      number("cash", t("bill.cash"), Math.max(1, amount - 1)),
      h(
        "p",
        { class: "row spread", key: "by-card" },
        h("span", null, t("bill.by-card")),
        h("b", null, money(Math.max(0, amount - bill.cash))),
      ),
    ],
    h(
      "button",
      {
        type: "button",
        class: "primary big",
        "data-act": "settle",
        disabled: waiting || amount <= 0 || mixedOff,
        key: "settle",
      },
      icon(waiting ? "clock" : "check"),
      t("bill.settle", { amount: money(amount), method: t(`method.${bill.method}`) }),
    ),
  );
}

/**
 * @param {string} name @param {string} label @param {string[]} values @param {string} value
 * @param {(value: string) => string} textOf
 */
function options(name, label, values, value, textOf) {
  return h(
    "fieldset",
    { class: "segments", key: `${name} ${bill.round}` },
    h("legend", null, t(label)),
    values.map((each) =>
      h(
        "label",
        { class: each === value ? "segment on" : "segment", key: each },
        h("input", { type: "radio", name, value: each, checked: each === value, class: "unseen" }),
        name === "method" && icon(SIGNS[each]),
        t(textOf(each)),
      ),
    ),
  );
}

/** @param {string} name @param {string} label @param {number} max */
function number(name, label, max) {
  return h(
    "label",
    { class: "till-number", key: `${name} ${bill.round}` },
    label,
    h("input", { type: "number", name, inputmode: "numeric", min: 1, max, step: 1 }),
  );
}

/**
 * Take over what was set up in the panel.
 * @param {HTMLInputElement} input @returns {boolean} whether it was one of ours
 */
export function noteInput({ name, value, checked }) {
  if (name === "split" || name === "method") Object.assign(bill, { [name]: value });
  else if (name === "amount" || name === "cash") bill[name] = Math.max(0, Math.floor(Number(value) || 0));
  else if (name === "line") checked ? bill.lines.add(value) : bill.lines.delete(value);
  else return false;
  return true;
}

/** Take the money that was set up. @param {Board} board */
export function settle({ client, send }) {
  const orders = ordersOf(client);
  const amount = amountOf(orders);
  const lines = orders.flatMap((order) =>
    order.lines
      .filter((/** @type {any} */ line) => chosen(order, line))
      .map((/** @type {any} */ line) => line.line),
  );
  const parts = [
    { method: "cash", amount: bill.cash },
    { method: "card", amount: amount - bill.cash },
  ];
  const body = {
    ...(bill.table === null ? { order: bill.order } : { table: bill.table }),
    method: bill.method,
    ...(bill.method === "mixed" ? { parts } : {}),
    amount, // as it was shown: what was ordered meanwhile is not paid along with it
    ...(bill.split === "lines" ? { lines } : {}),
  };
  const sent = send(bill.table === null ? "settle-order" : "settle-table", body);
  if (sent) startBill(bill.table, bill.order);
  return sent;
}
