/**
 * How a guest can pay: what the server offers, and the choice where there is more than one.
 */

import { deadline } from "../onda/requests.js";
import { h } from "../ui/dom.js";
import { t, tOr } from "../ui/i18n.js";
import { ask } from "../ui/speak.js";

const ASK_MS = 10_000;
/** What to try when the server does not say: it refuses what it does not have. */
const OTHERWISE = ["sandbox"];

/** @type {string[] | null} */
let known = null;

/** @param {string} token @returns {Promise<string[]>} */
async function offered(token) {
  if (known !== null) return known;
  const limit = deadline(ASK_MS);
  try {
    const headers = /** @type {Record<string, string>} */ (token ? { Authorization: `Bearer ${token}` } : {});
    const response = await fetch("/v1/payments/methods", { headers, signal: limit.signal });
    const { methods } = response.ok ? await response.json() : { methods: null };
    if (Array.isArray(methods) && methods.length > 0) known = methods;
  } catch {
    // Not to be reached just now: the payment itself will wait for the connection.
  } finally {
    limit.done();
  }
  return known ?? OTHERWISE;
}

/**
 * The method to pay with; null when the guest changed their mind.
 * @param {string} token @returns {Promise<string | null>}
 */
export async function chooseMethod(token) {
  const methods = await offered(token);
  if (methods.length === 1) return methods[0];
  const choice = (/** @type {string} */ method, /** @type {number} */ index) =>
    h(
      "label",
      { class: "choice" },
      h("input", { type: "radio", name: "method", value: method, checked: index === 0 }),
      tOr(`method.${method}`, method),
    );
  const { value, form } = await ask({
    title: t("pay.how"),
    body: [h("fieldset", null, h("legend", { class: "unseen" }, t("pay.how")), methods.map(choice))],
    buttons: [
      { value: "no", label: t("cancel"), kind: "quiet" },
      { value: "yes", label: t("next"), kind: "primary" },
    ],
  });
  return value === "yes" ? String(form.get("method")) : null;
}
