/**
 * Campaigns at a table: how long until one opens, and how long it goes on, on the shop's clock.
 */

import { h, icon } from "../ui/dom.js";
import { t } from "../ui/i18n.js";
import { countdown, msLeft } from "../ui/money.js";

/** A campaign further away than this is no news yet. */
const SOON_MS = 24 * 3_600_000;

/** @param {{client: import("../onda.js").Client}} page */
export function campaignsView({ client }) {
  const shown = Object.values(client.state.campaigns ?? {}).filter((each) => isNews(each, client));
  if (shown.length === 0) return null;
  return h(
    "ul",
    { class: "campaigns", "aria-label": t("campaign.title"), key: "campaigns" },
    shown.map((each) => one(each, client)),
  );
}

/** @param {any} campaign @param {import("../onda.js").Client} client */
function isNews({ open, opens_at: opens, closes_at: closes }, client) {
  return open ? msLeft(closes, client) > 0 : msLeft(opens, client) < SOON_MS;
}

/** @param {any} campaign @param {import("../onda.js").Client} client */
function one({ campaign, name, open, opens_at: opens, closes_at: closes }, client) {
  return h(
    "li",
    { class: `campaign${open ? " open" : ""}`, key: campaign },
    icon(open ? "fire" : "bell"),
    h(
      "span",
      { class: "grow" },
      h("b", null, name),
      h("small", null, t(open ? "campaign.open" : "campaign.soon")),
    ),
    open
      ? closes && countdown(closes, client, t("campaign.closes"))
      : countdown(opens, client, t("campaign.opens")),
  );
}
