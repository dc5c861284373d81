/**
 * The part of an order's card that is about money: what it costs, how long it is kept, and the way to pay.
 */

import { h, icon } from "../ui/dom.js";
import { money, t } from "../ui/i18n.js";
import {
  countdown,
  declineText,
  due,
  mark,
  msLeft,
  PAY_MS_MIN,
  receipt,
  standing,
  UNPAID,
} from "../ui/money.js";

/**
 * @param {object} card
 * @param {import("../onda.js").Client} card.client
 * @param {any} card.order
 * @param {string} card.store
 * @param {string} card.entity    id of the order in the page's feed
 * @param {ReturnType<typeof import("./flow.js").payFlow>} card.flow
 * @param {boolean} card.mayPay   the page's own order: nobody else pays for it
 */
export function payCard({ client, order, store, entity, flow, mayPay }) {
  const state = standing(order);
  if (!UNPAID.includes(order.status)) return receiptCard(order, state);
  const left = msLeft(order.hold_expires_at, client);
  const open = state === "due" || state === "declined";
  return h(
    "div",
    { class: `pay pay-${state}`, key: "pay" },
    receipt(order),
    notice(order, state),
    open && left > 0 && order.hold_expires_at && countdown(order.hold_expires_at, client, t("pay.kept")),
    open && left <= 0 && h("p", { class: "pay-note" }, icon("clock"), t("pay.over")),
    open && left > 0 && left < PAY_MS_MIN && mayPay && h("p", { class: "pay-note" }, t("pay.soon-over")),
    open && left >= PAY_MS_MIN && mayPay && payButton(flow, order, store, entity, state === "declined"),
    open && !mayPay && h("p", { class: "pay-note" }, icon("info"), t("pay.by-other")),
  );
}

/** @param {any} order @param {string} state */
function receiptCard(order, state) {
  if (state === "none" || state === "expired") return null;
  return h("div", { class: "pay", key: "pay" }, receipt(order), mark(order));
}

/** @param {any} order @param {string} state */
function notice(order, state) {
  if (state === "checking")
    return h(
      "p",
      { class: "pay-note pay-note-wary", role: "status" },
      icon("cycle"),
      h("span", null, h("b", null, t("pay.checking")), " ", t("pay.checking-help")),
    );
  if (state === "review")
    return h(
      "p",
      { class: "pay-note pay-note-wary", role: "status" },
      icon("hand"),
      h("span", null, h("b", null, t("pay.review")), " ", t("pay.review-help")),
    );
  if (state === "declined")
    return h(
      "p",
      { class: "pay-note pay-note-bad", role: "status" },
      icon("warning"),
      h("span", null, h("b", null, t("pay.declined")), " ", declineText(order.payment)),
    );
  return null;
}

/**
 * @param {ReturnType<typeof import("./flow.js").payFlow>} flow
 * @param {any} order @param {string} store @param {string} entity @param {boolean} again
 */
function payButton(flow, order, store, entity, again) {
  const starting = flow.isStarting(store, order);
  const price = money(due(order));
  return h(
    "button",
    {
      type: "button",
      class: "primary big",
      "data-act": "pay",
      "data-order": entity,
      disabled: starting,
      key: "pay-button",
    },
    icon(starting ? "clock" : "card"),
    starting ? t("pay.opening") : t(again ? "pay.again" : "pay.now", { price }),
  );
}
