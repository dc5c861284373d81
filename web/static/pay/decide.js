/**
 * Lets a person decide about a payment whose end nobody knows: paid, or not paid, and why.
 */

import { h, icon } from "../ui/dom.js";
import { money, t } from "../ui/i18n.js";
import { ask } from "../ui/speak.js";

/**
 * @param {{payment: string, amount: number, method: string}} payment
 * @returns {Promise<{paid: boolean, reason: string, charge?: string} | null>}
 */
export async function decideDialog({ payment, amount, method }) {
  const { value, form } = await ask({
    title: t("decide.title", { amount: money(amount) }),
    body: [
      h("p", null, t("decide.help", { method: t(`method.${method}`) })),
      h("p", { class: "hint" }, payment),
      h(
        "fieldset",
        null,
        h("legend", { class: "unseen" }, t("decide.legend")),
        choice("paid", "yes", "check", t("decide.paid")),
        choice("paid", "no", "cross", t("decide.unpaid")),
      ),
      h("label", { for: "decide-charge" }, t("decide.charge")),
      h("input", { id: "decide-charge", name: "charge", maxlength: 200, autocomplete: "off" }),
      h("label", { for: "decide-reason" }, t("decide.reason")),
      h("input", {
        id: "decide-reason",
        name: "reason",
        maxlength: 200,
        required: true,
        autocomplete: "off",
      }),
    ],
    buttons: [
      { value: "no", label: t("cancel"), kind: "quiet" },
      { value: "yes", label: t("do.resolve-payment"), kind: "danger" },
    ],
  });
  if (value !== "yes") return null;
  const charge = String(form.get("charge")).trim();
  const paid = form.get("paid") === "yes";
  return { paid, reason: String(form.get("reason")).trim(), ...(paid && charge ? { charge } : {}) };
}

/**
 * The same for a refund: whether the money went back. One that failed can only be given back by hand.
 * @param {{refund: string, amount: number, method: string, status: string}} refund
 * @returns {Promise<{done: boolean, reason: string} | null>}
 */
export async function decideRefundDialog({ refund, amount, method, status }) {
  const failed = status === "FAILED";
  const { value, form } = await ask({
    title: t(failed ? "decide.by-hand-title" : "decide.refund-title", { amount: money(amount) }),
    body: [
      h("p", null, failed ? t("decide.by-hand-help") : t("decide.help", { method: t(`method.${method}`) })),
      h("p", { class: "hint" }, refund),
      !failed &&
        h(
          "fieldset",
          null,
          h("legend", { class: "unseen" }, t("decide.refund-legend")),
          choice("done", "yes", "check", t("decide.done")),
          choice("done", "no", "cross", t("decide.not-done")),
        ),
      h("label", { for: "decide-reason" }, t("decide.reason")),
      h("input", {
        id: "decide-reason",
        name: "reason",
        maxlength: 200,
        required: true,
        autocomplete: "off",
      }),
    ],
    buttons: [
      { value: "no", label: t("cancel"), kind: "quiet" },
      { value: "yes", label: t("do.resolve-refund"), kind: "danger" },
    ],
  });
  if (value !== "yes") return null;
  return { done: failed || form.get("done") === "yes", reason: String(form.get("reason")).trim() };
}

/** @param {string} name @param {string} value @param {string} sign @param {string} text */
function choice(name, value, sign, text) {
  return h(
    "label",
    { class: "choice" },
    h("input", { type: "radio", name, value, required: true }),
    icon(sign),
    text,
  );
}
