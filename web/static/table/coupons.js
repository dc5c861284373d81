/**
 * Coupons at a table: what the shop offers, what the party has, and the one that is used with the next order.
 */

import { h, icon } from "../ui/dom.js";
import { money, t } from "../ui/i18n.js";
import { countdown, msLeft } from "../ui/money.js";

/** @typedef {{amount?: number, percent?: number, cap?: number | null, minimum?: number}} Discount */

/** What a discount takes off an order of `whole` won. @param {Discount} discount @param {number} whole */
export function takesOff({ amount = 0, percent = 0, cap = null }, whole) {
  const off = amount || Math.floor((whole * percent) / 100);
  return Math.min(off, cap ?? whole, whole);
}

/** @param {Discount} discount */
export function discountText({ amount = 0, percent = 0, cap, minimum = 0 }) {
  const parts = [
    amount ? t("coupon.amount", { amount: money(amount) }) : t("coupon.percent", { n: percent }),
    cap && t("coupon.cap", { amount: money(cap) }),
    minimum > 0 && t("coupon.minimum", { amount: money(minimum) }),
  ];
  return parts.filter(Boolean).join(" · ");
}

/** The party's own, not used and not expired. @param {import("../onda.js").Client} client */
function usable(client) {
  return Object.values(client.state.coupons ?? {}).filter(
    (coupon) => coupon.held && !coupon.used && msLeft(coupon.expires_at, client) > 0,
  );
}

/**
 * The coupon that the next order uses, if it is still good for it.
 * @param {import("../onda.js").Client} client @param {string | null} chosen @param {number} sum
 */
export function chosenCoupon(client, chosen, sum) {
  const coupon = usable(client).find((each) => each.coupon === chosen);
  return coupon && sum >= (coupon.discount.minimum ?? 0) ? coupon : null;
}

/** @param {{client: import("../onda.js").Client, coupon: string | null}} page @param {number} sum */
export function couponsView({ client, coupon: chosen }, sum) {
  const all = Object.values(client.state.coupons ?? {}).filter(
    (each) => (each.held && !each.used) || (!each.held && each.remaining > 0),
  );
  const shown = all.filter((each) => msLeft(each.expires_at, client) > 0);
  if (shown.length === 0) return null;
  return h(
    "section",
    { class: "coupons", "aria-labelledby": "h-coupons", key: "coupons" },
    h("h3", { id: "h-coupons" }, icon("coupon"), t("coupon.title")),
    h(
      "ul",
      null,
      shown.map((each) => one(client, each, chosen, sum)),
    ),
  );
}

/** @param {import("../onda.js").Client} client @param {any} coupon @param {string | null} chosen @param {number} sum */
function one(client, coupon, chosen, sum) {
  const { coupon: id, name, discount, remaining, held, starts_at: starts } = coupon;
  const early = msLeft(starts, client) > 0 && starts;
  return h(
    "li",
    { class: `coupon${held ? " held" : ""}`, key: id },
    h(
      "span",
      { class: "grow" },
      h("b", null, name),
      h("span", null, discountText(discount)),
      !held && !early && h("small", null, t("coupon.left", { n: remaining })),
    ),
    early
      ? countdown(starts, client, t("coupon.starts"))
      : held
        ? useButton(id, chosen, sum, discount)
        : takeButton(client, id),
  );
}

/** @param {string} id @param {string | null} chosen @param {number} sum @param {Discount} discount */
function useButton(id, chosen, sum, { minimum = 0 }) {
  const missing = minimum - sum;
  if (missing > 0)
    return h("small", { class: "coupon-missing" }, t("coupon.missing", { amount: money(missing) }));
  const on = chosen === id;
  return h(
    "button",
    {
      type: "button",
      class: on ? "primary" : "plain",
      "data-act": "use-coupon",
      "data-coupon": id,
      "aria-pressed": String(on),
    },
    icon(on ? "check" : "coupon"),
    t(on ? "coupon.using" : "coupon.use"),
  );
}

/** @param {import("../onda.js").Client} client @param {string} id */
function takeButton(client, id) {
  const waiting = client.pending.some(
    ({ command, body }) => command === "issue-coupon" && body.coupon === id,
  );
  return h(
    "button",
    { type: "button", class: "plain", "data-act": "take-coupon", "data-coupon": id, disabled: waiting },
    icon(waiting ? "clock" : "plus"),
    t("coupon.take"),
  );
}
