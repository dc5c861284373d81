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
  const choice = (/** @type {string} */ value, /** @type {string} */ sign, /** @type {string} */ text) =>
    h(
      "label",
      { class: "choice" },
      h("input", { type: "radio", name: "paid", value, required: true }),
      icon(sign),
      text,
    );
  const { value, form } = await ask({
    title: t("decide.title", { amount: money(amount) }),
    body: [
      h("p", null, t("decide.help", { method: t(`method.${method}`) })),
      h("p", { class: "hint" }, payment),
      h(
        "fieldset",
        null,
        h("legend", { class: "unseen" }, t("decide.legend")),
        choice("yes", "check", t("decide.paid")),
        choice("no", "cross", t("decide.unpaid")),
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
      { value: "no", label: t("no"), kind: "quiet" },
      { value: "yes", label: t("do.resolve-payment"), kind: "danger" },
    ],
  });
  if (value !== "yes") return null;
  const charge = String(form.get("charge")).trim();
  const paid = form.get("paid") === "yes";
  return { paid, reason: String(form.get("reason")).trim(), ...(paid && charge ? { charge } : {}) };
}
