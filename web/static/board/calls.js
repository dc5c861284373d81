/**
 * Ringing calls from the tables, the longest wait first.
 */

import { h, icon } from "../ui/dom.js";
import { age, elapsed, t } from "../ui/i18n.js";

const SIGNS = /** @type {Record<string, string>} */ ({
  water: "water",
  cutlery: "cutlery",
  bill: "bill",
  other: "hand",
});

/** @param {import("../onda.js").Client} client */
export function ringing(client) {
  return Object.values(client.state.calls ?? {}).sort((one, other) =>
    one.called_at.localeCompare(other.called_at),
  );
}

/** @param {{client: import("../onda.js").Client}} board */
export function callsStrip({ client }) {
  const calls = ringing(client);
  if (calls.length === 0) return null;
  return h(
    "section",
    { class: "calls", "aria-label": t("calls.title"), key: "calls" },
    h(
      "h2",
      null,
      icon("bell"),
      h("span", null, t("calls.title")),
      h("span", { class: "count" }, calls.length),
    ),
    h(
      "ul",
      null,
      calls.map((call) => one(client, call)),
    ),
  );
}

/** @param {import("../onda.js").Client} client @param {any} call */
function one(client, call) {
  const waiting = client.pending.some(
    (entry) =>
      entry.command === "answer-call" &&
      entry.body.call === call.call &&
      entry.feed.endsWith(`/${call.table}`),
  );
  return h(
    "li",
    { class: "call", key: `${call.table}/${call.call}` },
    icon(SIGNS[call.kind] ?? "hand"),
    h(
      "span",
      { class: "call-what" },
      h("b", null, t("table-n", { table: call.table })),
      h("span", null, t(`call.${call.kind}`)),
    ),
    h(
      "span",
      { class: "timer", "data-since": call.called_at, "data-late": "0" },
      h("time", null, elapsed(age(call.called_at, client.now()))),
    ),
    h(
      "button",
      {
        type: "button",
        class: "plain",
        "data-act": "answer-call",
        "data-call": call.call,
        "data-table": call.table,
        disabled: waiting,
      },
      waiting && icon("clock"),
      t("do.answer-call"),
    ),
  );
}
