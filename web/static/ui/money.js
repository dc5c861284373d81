/**
 * How an order stands with its money, in the same words and marks on every screen.
 */

import { h, icon } from "./dom.js";
import { elapsed, money, t, tOr } from "./i18n.js";

/** Statuses of an order that waits for its payment. */
export const UNPAID = ["CREATED", "PENDING_PAYMENT"];
/** Statuses of an order that came to nothing. */
export const DEAD = ["REJECTED", "CANCELLED", "EXPIRED"];
/** Less time than this is left of a hold: the shop starts no payment any more. */
export const PAY_MS_MIN = 60_000;

/** Statuses of a payment whose money may be moving: nobody may pay a second time. */
const CHECKING = ["REQUESTED", "UNKNOWN"];

/** @typedef {"due" | "checking" | "review" | "declined" | "expired" | "none" | "unpaid" | "part-paid" | "paid"
 *   | "part-refunded" | "refunded"} Standing */

/** @param {any} order @returns {Standing} */
export function standing({ status, payment, total, paid = 0, refunded = 0 }) {
  if (UNPAID.includes(status)) {
    if (CHECKING.includes(payment?.status)) return "checking";
    if (payment?.status === "MANUAL_REVIEW") return "review";
    return payment?.status === "DECLINED" ? "declined" : "due";
  }
  if (refunded > 0) return refunded >= paid ? "refunded" : "part-refunded";
  if (paid > 0) return paid >= total ? "paid" : "part-paid";
  if (status === "EXPIRED") return "expired";
  return DEAD.includes(status) || total === 0 ? "none" : "unpaid";
}

const SIGNS = /** @type {Record<string, string>} */ ({
  due: "clock",
  checking: "cycle",
  review: "hand",
  declined: "warning",
  expired: "cross",
  unpaid: "bill",
  "part-paid": "bill",
  paid: "check",
  "part-refunded": "back",
  refunded: "back",
});

/** Paid, unpaid, checking, refunded: as icon and text. @param {any} order */
export function mark(order) {
  const state = standing(order);
  if (state === "none") return null;
  return h("span", { class: `pill mark mark-${state}` }, icon(SIGNS[state]), t(`pay.mark.${state}`));
}

/** What has still to be paid for an order: what went back is a gift unless it is owed. @param {any} order */
export function due({ status, total, paid = 0, owed = 0 }) {
  return DEAD.includes(status) ? 0 : Math.max(0, total - paid + owed);
}

/**
 * What each line that is not cancelled costs after the order's discount; together its total.
 * @param {any} order @returns {Map<string, number>}
 */
export function netPrices({ lines, total, tax_free: free = 0 }) {
  /** @type {Map<string, number>} */
  const prices = new Map();
  for (const [isFree, net] of [
    [true, free],
    [false, total - free],
  ]) {
    const mine = lines.filter(
      (/** @type {any} */ line) => line.status !== "CANCELLED" && Boolean(line.tax_free) === isFree,
    );
    const cost = (/** @type {any} */ line) => line.price * line.quantity;
    const whole = mine.reduce((/** @type {number} */ sum, /** @type {any} */ line) => sum + cost(line), 0);
    let before = 0;
    let after = 0;
    for (const line of mine) {
      const last = after;
      before += cost(line);
      after = whole ? Math.floor((before * Number(net)) / whole) : 0;
      prices.set(line.line, after - last);
    }
  }
  return prices;
}

/** `09:41`, `1:02:09`. @param {number} ms */
export function minutesLeft(ms) {
  const seconds = Math.max(0, Math.ceil(ms / 1000));
  if (seconds >= 3600) return elapsed(seconds * 1000);
  const two = (/** @type {number} */ n) => String(n).padStart(2, "0");
  return `${two(Math.floor(seconds / 60))}:${two(seconds % 60)}`;
}

/**
 * Ms until a server time. @param {string | null | undefined} time
 * @param {import("../onda.js").Client} client
 */
export function msLeft(time, client) {
  return time ? Date.parse(time) - client.now() : Infinity;
}

/**
 * A countdown to a server time; `tickCountdowns` moves it on.
 * @param {string} until @param {import("../onda.js").Client} client @param {string} label
 */
export function countdown(until, client, label) {
  const left = msLeft(until, client);
  return h(
    "span",
    { class: `countdown${left < PAY_MS_MIN ? " countdown-short" : ""}`, "data-until": until },
    icon("clock"),
    h("span", null, label),
    h("time", { role: "timer" }, minutesLeft(left)),
  );
}

/** @param {import("../onda.js").Client} client */
export function tickCountdowns(client) {
  for (const element of document.querySelectorAll("[data-until]")) {
    const left = msLeft(element.getAttribute("data-until"), client);
    const time = element.querySelector("time");
    if (time) time.textContent = minutesLeft(left);
    element.classList.toggle("countdown-short", left < PAY_MS_MIN);
  }
}

/**
 * What an order costs and what was paid, line by line: discount, the VAT within, refund.
 * @param {any} order
 */
export function receipt(order) {
  const { total, vat = 0, discount = 0, tax_free: free = 0, paid = 0, refunded = 0, status } = order;
  const whole = order.lines
    .filter((/** @type {any} */ line) => line.status !== "CANCELLED")
    .reduce((/** @type {number} */ sum, /** @type {any} */ line) => sum + line.price * line.quantity, 0);
  const row = (/** @type {string} */ key, /** @type {number} */ amount, sign = "", look = "") => [
    h("dt", { class: look }, t(`pay.${key}`)),
    h("dd", { class: look }, sign + money(amount)),
  ];
  if (status === "EXPIRED") return null;
  return h(
    "dl",
    { class: "receipt" },
    discount > 0 && row("sum", whole),
    discount > 0 && row("discount", whole - total, "−"),
    row("total", total, "", "receipt-total"),
    vat > 0 && row("vat", vat, "", "receipt-small"),
    free > 0 && row("tax-free", free, "", "receipt-small"),
    paid > 0 && row("paid", paid),
    refunded > 0 && row("refunded", refunded, "−"),
  );
}

/** Why a payment did not work, in words. @param {any} payment */
export function declineText({ code = "", message = "" }) {
  return tOr(`pay.code.${code}`, message || t("pay.declined"));
}
