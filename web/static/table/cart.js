/**
 * The shared cart: what everyone put in, what is still on its way, and what the shop gave back.
 */

import { h, icon } from "../ui/dom.js";
import { money, refusalText, t } from "../ui/i18n.js";
import { chosenCoupon, couponsView, takesOff } from "./coupons.js";
import { chosenNames, unitPrice } from "./menu.js";
import { nameOf } from "./names.js";

/**
 * @typedef {object} Shown  a line of the cart as it is shown
 * @property {string} line
 * @property {string} product
 * @property {number} quantity
 * @property {string[]} options
 * @property {string} note
 * @property {string} by
 * @property {{code: string, detail: string} | null} refused
 * @property {boolean} waiting  something about it is not confirmed yet
 * @property {boolean} leaving  it is to be removed
 */

/**
 * Lines of the cart with what was tapped but is not confirmed.
 * @param {import("../onda.js").Client} client
 * @returns {Shown[]}
 */
export function linesToShow(client) {
  const { pending } = client;
  const lines = Object.values(client.state.cart ?? {}).map((line) => {
    const mine = pending.filter((entry) => entry.body.line === line.line);
    const change = mine.filter((entry) => entry.command === "change-quantity").at(-1);
    const leaving = mine.some((entry) => entry.command === "remove-from-cart");
    return { ...line, quantity: change?.body.quantity ?? line.quantity, waiting: mine.length > 0, leaving };
  });
  const adding = pending.filter((entry) => entry.command === "add-to-cart");
  return lines.concat(
    adding.map(({ key, body }) => ({
      line: key,
      options: [],
      note: "",
      refused: null,
      ...body,
      waiting: true,
      leaving: false,
      unborn: true,
    })),
  );
}

/** @param {{client: import("../onda.js").Client, coupon: string | null}} page */
export function cartView(page) {
  const { client } = page;
  const lines = linesToShow(client);
  const name = nameOf(client);
  const sum = sumOf(client, lines);
  const refusal = lines.find((line) => line.refused !== null)?.refused;
  return [
    h("h2", { id: "h-cart" }, t("t.cart")),
    h(
      "div",
      { class: "row spread" },
      h("p", { class: "hint grow" }, t("t.shared")),
      h(
        "button",
        { type: "button", class: "plain me", "data-act": "name" },
        icon("person"),
        name || t("t.me"),
      ),
    ),
    refusal &&
      h(
        "div",
        { class: "banner banner-bad", role: "alert", key: "refusal" },
        icon("warning"),
        h("p", null, h("strong", null, t("t.refused")), h("br"), refusalText(refusal)),
      ),
    lines.length === 0
      ? h("div", { class: "empty" }, h("b", null, t("t.cart-empty")), h("p", null, t("t.cart-empty-help")))
      : h(
          "ul",
          { class: "cart" },
          lines.map((line) => one(client, line)),
        ),
    couponsView(page, sum),
    lines.length > 0 && footer(page, sum),
  ];
}

/** @param {import("../onda.js").Client} client @param {any} line */
function one(client, line) {
  const item = client.state.menu?.[line.product];
  const name = item?.name ?? line.product;
  const options = chosenNames(item, line.options).join(" · ");
  const soldOut = item?.sold_out === true;
  const step = (/** @type {number} */ by, /** @type {string} */ sign, /** @type {string} */ label) =>
    h(
      "button",
      {
        type: "button",
        class: "quiet square",
        "data-act": "quantity",
        "data-line": line.line,
        "data-by": by,
        "aria-label": `${name}: ${label}`,
        disabled: line.unborn || line.leaving,
      },
      icon(sign),
    );
  return h(
    "li",
    { key: line.line, class: `cart-line${line.leaving ? " leaving" : ""}${soldOut ? " off" : ""}` },
    h(
      "div",
      { class: "grow" },
      h("b", null, name),
      options && h("small", null, options),
      line.note && h("small", { class: "cart-note" }, icon("pencil"), line.note),
      h("small", { class: "by" }, icon("person"), line.by || t("t.guest")),
      soldOut && h("span", { class: "pill pill-closed" }, t("t.sold-out")),
      line.waiting && h("span", { class: "waiting" }, icon("clock"), t("t.line-waiting")),
    ),
    h(
      "div",
      { class: "row stepper" },
      step(
        -1,
        line.quantity > 1 ? "minus" : "cross",
        line.quantity > 1 ? t("t.less") : t("do.remove-from-cart"),
      ),
      h("output", { class: "count-big" }, line.quantity),
      step(1, "plus", t("t.more")),
    ),
    h("span", { class: "price" }, item ? money(unitPrice(item, line.options) * line.quantity) : "–"),
  );
}

/** What the cart costs. @param {import("../onda.js").Client} client @param {any[]} lines */
export function sumOf(client, lines) {
  return lines.reduce((total, line) => {
    const item = client.state.menu?.[line.product];
    return item && !line.leaving ? total + unitPrice(item, line.options) * line.quantity : total;
  }, 0);
}

/** @param {{client: import("../onda.js").Client, coupon: string | null}} page @param {number} sum */
function footer({ client, coupon }, sum) {
  const shop = client.state.shop?.self;
  const chosen = chosenCoupon(client, coupon, sum);
  const off = chosen ? takesOff(chosen.discount, sum) : 0;
  const submitting = client.pending.some((entry) => entry.command === "submit-cart");
  const shut = shop && (!shop.open || shop.paused);
  const key = shop?.payment_mode === "prepay" ? "t.submit-pay" : "t.submit";
  const text = submitting ? t("t.submit-pending") : t(key, { price: money(sum - off) });
  return h(
    "div",
    { class: "submit", key: "submit" },
    submitting &&
      client.status !== "live" &&
      h("p", { class: "waiting", role: "status" }, icon("clock"), t("t.submit-waiting")),
    off > 0 &&
      h(
        "p",
        { class: "row spread submit-off" },
        h("span", null, chosen.name),
        h("b", null, `−${money(off)}`),
      ),
    h(
      "button",
      { type: "button", class: "primary big", "data-act": "submit", disabled: submitting || shut },
      submitting && icon("clock"),
      text,
    ),
  );
}
