/**
 * Today's payments: how each stands, and what owners can do about it: refund, ask the gateway, decide.
 */

import { decideDialog, decideRefundDialog } from "../pay/decide.js";
import { h, icon } from "../ui/dom.js";
import { clock, money, reasonText, t } from "../ui/i18n.js";
import { ask } from "../ui/speak.js";
import { chosenReason, listenForOwn, refundReason } from "./reasons.js";

const SHOWN_MAX = 200;
const OPEN = ["REQUESTED", "UNKNOWN", "MANUAL_REVIEW"];

/** @typedef {{client: import("../onda.js").Client, mayRefund: boolean, send: any}} Board */

/** What is left to refund. @param {any} payment */
function rest({ amount, refunded = 0 }) {
  return amount - refunded;
}

/** @param {Board} board */
export function paymentsPanel(board) {
  const { client } = board;
  const midnight = new Date(client.now()).setHours(0, 0, 0, 0);
  const payments = Object.values(client.state.payments ?? {})
    .filter(({ status }) => status !== "PENDING" && status !== "DROPPED")
    .filter((payment) => OPEN.includes(payment.status) || Date.parse(payment.created_at) >= midnight)
    .sort(
      (one, other) =>
        Number(OPEN.includes(other.status)) - Number(OPEN.includes(one.status)) ||
        (other.paid_at ?? other.created_at).localeCompare(one.paid_at ?? one.created_at),
    );
  const paid = payments.filter(({ status }) => status === "PAID");
  const sum = paid.reduce((total, each) => total + each.amount, 0);
  const back = paid.reduce((total, each) => total + (each.refunded ?? 0), 0);
  return {
    title: t("payments.title"),
    body: [
      payments.length === 0 && h("p", { class: "empty" }, t("payments.none")),
      paid.length > 0 &&
        h(
          "p",
          { class: "row shop-row" },
          h("b", { class: "grow" }, t("payments.sum", { n: paid.length, sum: money(sum) })),
          back > 0 && h("span", null, t("payments.back", { sum: money(back) })),
        ),
      h(
        "ul",
        { class: "rows" },
        payments.slice(0, SHOWN_MAX).map((payment) => row(board, payment)),
      ),
    ],
  };
}

/** @param {Board} board @param {any} payment */
function row(board, payment) {
  const { client } = board;
  const orders = [payment.order, ...(payment.shares ?? []).map((/** @type {any} */ each) => each.order)]
    .filter(Boolean)
    .map((name) => client.state.orders?.[name]?.number)
    .filter(Boolean)
    .map((number) => `#${number}`);
  const facts = [
    t(`method.${payment.method}`),
    payment.table && t("table-n", { table: payment.table }),
    [...new Set(orders)].join(" "),
    clock(payment.paid_at ?? payment.created_at),
  ];
  const why = payment.attempt?.message || payment.attempt?.code;
  return h(
    "li",
    { class: "row payment-row", key: payment.payment },
    h(
      "span",
      { class: "grow" },
      h("b", null, money(payment.amount)),
      h("small", null, facts.filter(Boolean).join(" · ")),
      payment.status !== "PAID" && why && h("small", null, why),
      paymentMark(payment),
      (payment.refunds ?? []).map((/** @type {any} */ each) => refundLine(board, payment, each)),
    ),
    buttons(board, payment),
  );
}

/** @param {Board} board @param {any} payment @param {any} refund */
function refundLine({ mayRefund }, payment, { refund, amount, status, reason, message }) {
  const sign = status === "DONE" ? "check" : status === "FAILED" ? "warning" : "clock";
  const text = [
    `−${money(amount)}`,
    t(`refund.${status}`),
    reasonText(reason),
    status === "FAILED" && message,
  ];
  return h(
    "small",
    { class: `refund-line refund-${status.toLowerCase()}`, key: refund },
    icon(sign),
    h("span", null, text.filter(Boolean).join(" · ")),
    mayRefund &&
      ["MANUAL_REVIEW", "FAILED"].includes(status) &&
      h(
        "button",
        {
          type: "button",
          class: "plain",
          "data-act": "resolve-refund",
          "data-payment": payment.payment,
          "data-refund": refund,
        },
        t(status === "FAILED" ? "decide.by-hand" : "do.resolve-refund"),
      ),
  );
}

const LOOKS = /** @type {Record<string, [string, string]>} */ ({
  REQUESTED: ["checking", "cycle"],
  UNKNOWN: ["checking", "cycle"],
  MANUAL_REVIEW: ["review", "hand"],
  DECLINED: ["declined", "warning"],
});

/** @param {any} payment */
function paymentMark(payment) {
  const { status, amount, refunded = 0 } = payment;
  const [look, sign] =
    LOOKS[status] ??
    (refunded >= amount
      ? ["refunded", "back"]
      : refunded > 0
        ? ["part-refunded", "back"]
        : ["paid", "check"]);
  return h("span", { class: `pill mark mark-${look}` }, icon(sign), t(`pay.mark.${look}`));
}

/** @param {Board} board @param {any} payment */
function buttons({ client, mayRefund }, payment) {
  const waiting = client.pending.some(({ body }) => body.payment === payment.payment);
  const button = (/** @type {string} */ act, /** @type {string} */ label) =>
    h(
      "button",
      {
        type: "button",
        class: "plain",
        "data-act": act,
        "data-payment": payment.payment,
        disabled: waiting,
        key: act,
      },
      waiting && icon("clock"),
      label,
    );
  if (payment.status === "PAID")
    return mayRefund && rest(payment) > 0 && button("refund", t("do.refund-payment"));
  if (!OPEN.includes(payment.status)) return null;
  return [
    button("query-payment", t("do.query-payment")),
    mayRefund && payment.status !== "REQUESTED" && button("resolve-payment", t("do.resolve-payment")),
  ];
}

/** What the buttons here do. @param {Board} board */
export function paymentActions({ client, send }) {
  return {
    refund: async (/** @type {any} */ data) => {
      const payment = client.state.payments?.[data.payment];
      const wish = payment && (await refundDialog(payment));
      if (wish) send("refund-payment", { payment: payment.payment, ...wish });
    },
    "query-payment": (/** @type {any} */ data) => send("query-payment", { payment: data.payment }),
    "resolve-payment": async (/** @type {any} */ data) => {
      const payment = client.state.payments?.[data.payment];
      const decision = payment && (await decideDialog(payment));
      if (decision) send("resolve-payment", { payment: payment.payment, ...decision });
    },
    "resolve-refund": async (/** @type {any} */ data) => {
      const payment = client.state.payments?.[data.payment];
      const refund = payment?.refunds.find((/** @type {any} */ each) => each.refund === data.refund);
      const decision = refund && (await decideRefundDialog({ ...refund, method: payment.method }));
      if (decision) send("resolve-refund", { payment: payment.payment, refund: refund.refund, ...decision });
    },
  };
}

/**
 * Ask how much goes back and why, and then once more.
 * @param {any} payment
 * @returns {Promise<{amount: number, reason: string} | null>}
 */
async function refundDialog(payment) {
  const left = rest(payment);
  const { value, form } = await ask({
    title: t("refund.title"),
    body: [
      h("p", null, t("refund.of", { amount: money(payment.amount), method: t(`method.${payment.method}`) })),
      h("label", { for: "refund-amount" }, t("refund.amount", { left: money(left) })),
      h("input", {
        id: "refund-amount",
        name: "amount",
        type: "number",
        inputmode: "numeric",
        min: 1,
        max: left,
        step: 1,
        value: left,
        required: true,
      }),
      refundReason(),
      payment.provider === "till" &&
        h("label", { class: "check" }, h("input", { type: "checkbox", name: "owed" }), t("refund.owed")),
    ],
    buttons: [
      { value: "no", label: t("no"), kind: "quiet" },
      { value: "yes", label: t("next"), kind: "primary" },
    ],
    ready: listenForOwn,
  });
  if (value !== "yes") return null;
  const amount = Number(form.get("amount"));
  const reason = chosenReason(form);
  const owed = form.get("owed") === "on";
  const sure = await ask({
    title: t("refund.sure", { amount: money(amount) }),
    body: [h("p", null, t("refund.sure-help")), h("p", null, h("b", null, reasonText(reason)))],
    buttons: [
      { value: "no", label: t("no"), kind: "quiet" },
      { value: "yes", label: t("do.refund-payment"), kind: "danger" },
    ],
  });
  return sure.value === "yes" ? { amount, reason, owed } : null;
}
