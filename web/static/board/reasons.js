/**
 * Asks for a reason. Ours go out as codes, so that each guest reads them in their own language.
 */

import { h } from "../ui/dom.js";
import { t } from "../ui/i18n.js";
import { ask } from "../ui/speak.js";

const REJECT = ["sold_out", "too_busy", "closing"];
const CANCEL = ["guest_asked", "sold_out", "mistake"];
const REFUND = ["guest_asked", "sold_out", "quality", "mistake"];
const PAUSE = ["too_busy", "break", "sold_out"];

/**
 * @param {string} command `reject-order` or `cancel-order`
 * @param {any} order
 * @returns {Promise<string | null>}
 */
export function chooseReason(command, order) {
  const rejecting = command === "reject-order";
  const title = t(rejecting ? "reject.title" : "cancel.title", { number: order.number });
  return choose(title, t("reject.help"), rejecting ? REJECT : CANCEL, t(`do.${command}`), "danger");
}

/** @returns {Promise<string | null>} */
export function pauseReason() {
  return choose(t("shop.pause-title"), t("shop.pause-help"), PAUSE, t("do.pause-orders"), "primary");
}

/** The reasons for a refund, as a part of a dialog. */
export function refundReason() {
  return reasonFields(REFUND);
}

/** @param {string[]} reasons */
function reasonFields(reasons) {
  const choice = (/** @type {string} */ code, /** @type {number} */ index) =>
    h(
      "label",
      { class: "choice" },
      h("input", { type: "radio", name: "reason", value: code, checked: index === 0 }),
      t(`reason.${code}`),
    );
  return [
    h("fieldset", null, h("legend", { class: "unseen" }, t("reason")), [...reasons, "other"].map(choice)),
    h("input", {
      name: "own",
      maxlength: 200,
      placeholder: t("reason.own"),
      "aria-label": t("reason.own"),
    }),
  ];
}

/** "Another reason" is chosen by writing one, and needs one. @param {HTMLDialogElement} dialog */
export function listenForOwn(dialog) {
  const own = /** @type {HTMLInputElement} */ (dialog.querySelector("[name=own]"));
  const other = /** @type {HTMLInputElement} */ (dialog.querySelector("[value=other]"));
  own.addEventListener("input", () => (other.checked = own.value.trim() !== ""));
  dialog.addEventListener("change", () => (own.required = other.checked));
}

/** The reason that was chosen: one of ours by its code, or free text. @param {FormData} form */
export function chosenReason(form) {
  const own = String(form.get("own")).trim();
  const code = String(form.get("reason"));
  return code === "other" ? own || "other" : code;
}

/**
 * @param {string} title @param {string} hint @param {string[]} reasons
 * @param {string} yes @param {string} kind  of the button
 * @returns {Promise<string | null>}
 */
async function choose(title, hint, reasons, yes, kind) {
  const { value, form } = await ask({
    title,
    body: [h("p", { class: "hint" }, hint), reasonFields(reasons)],
    buttons: [
      { value: "no", label: t("no"), kind: "quiet" },
      { value: "yes", label: yes, kind },
    ],
    ready: listenForOwn,
  });
  return value === "yes" ? chosenReason(form) : null;
}
