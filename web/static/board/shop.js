/**
 * What staff can do to the shop itself: open, close, pause, sell out, count, and clear a table.
 */

import { money, t } from "../ui/i18n.js";
import { due } from "../ui/money.js";
import { confirm } from "../ui/speak.js";
import { tableOrders } from "./bill.js";
import { pauseReason } from "./reasons.js";

/**
 * @param {{send: (command: string, body: any, feed?: string) => any, store: string,
 *   client: import("../onda.js").Client}} board
 */
export function shopActions({ send, store, client }) {
  return /** @type {Record<string, (data: any) => void>} */ ({
    "open-store": () => send("open-store", {}),
    "close-store": async () => {
      if (await confirm(t("shop.close-title"), t("shop.close-help"), t("do.close-store")))
        send("close-store", {});
    },
    "pause-orders": async () => {
      const reason = await pauseReason();
      if (reason) send("pause-orders", { reason });
    },
    "resume-orders": () => send("resume-orders", {}),
    "sold-out": ({ product, to }) => send("set-sold-out", { product, sold_out: to === "true" }),
    "adjust-stock": ({ product, delta }) =>
      send("adjust-stock", { product, delta: Number(delta), reason: "counted" }),
    "close-table": async ({ table }) => {
      const since = client.state.tables?.[table]?.opened_at ?? "";
      const open = tableOrders(client, table, since).reduce((sum, order) => sum + due(order), 0);
      const unpaid = open > 0 ? `${t("tables.close-unpaid", { amount: money(open) })} ` : "";
      const sure = await confirm(
        t("tables.close-title", { table }),
        unpaid + t("tables.close-help"),
        t("do.close-table"),
      );
      if (sure) send("close-table", {}, `tables/${store}/${table}`);
    },
  });
}
