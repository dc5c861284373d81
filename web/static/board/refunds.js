/**
 * Says when money goes back, or an order that the kitchen had is taken back by somebody else.
 */

import { money, t } from "../ui/i18n.js";

/** How long a ticket or a row shows that something was taken back. */
const FLASH_MS = 4_000;

/**
 * @param {import("../onda.js").Client} client
 * @param {(text: string) => void} tell
 */
export function refundNews(client, tell) {
  client.on("event", ({ envelope, live }) => {
    if (!live) return;
    const { type, data } = envelope;
    const order = client.state.orders?.[data.order];
    const values = { number: order?.number ?? "–", amount: money(data.amount ?? data.refunded ?? 0) };
    if (type === "OrderRefunded") tell(t("refund.done", values));
    else if (type === "RefundFailed") tell(t("refund.failed", values));
    else if (type === "OrderCancelled" && order?.placed_at && !isOwn(envelope.by))
      tell(t("refund.void", values));
    else return;
    flash(data.order);
  });
}

/** Who cancelled here knows it already. @param {string} by */
function isOwn(by) {
  return by.startsWith("owner:") || by.startsWith("staff:");
}

/** @param {string | undefined} order */
function flash(order) {
  const card = order && document.getElementById(`ticket-${order}`);
  if (!card) return;
  card.classList.add("flash");
  setTimeout(() => card.classList.remove("flash"), FLASH_MS);
}
