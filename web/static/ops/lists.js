/**
 * The lists of the operators' page: payments and refunds to look after, parked records, reactions, streams.
 */

import { h, icon } from "../ui/dom.js";
import { age, ago, money, t, tOr } from "../ui/i18n.js";

const STREAMS_SHOWN = 20;
/** Of several nodes there are many: each partition has its own. */
const REACTIONS_SHOWN = 40;
const SIGNS = /** @type {Record<string, string>} */ ({
  REQUESTED: "cycle",
  UNKNOWN: "help",
  MANUAL_REVIEW: "hand",
  FAILED: "warning",
});

/** @typedef {import("./source.js").Source} Source */

/**
 * @param {string} key @param {string} sign @param {any[]} rows @param {any} list
 * @param {number} [count]
 */
function section(key, sign, rows, list, count = rows.length) {
  return h(
    "section",
    { class: `card card-${key}`, "aria-labelledby": `h-${key}`, key },
    h("h2", { id: `h-${key}` }, icon(sign), t(`ops.${key}`), h("span", { class: "count" }, count)),
    rows.length === 0 ? h("p", { class: "empty" }, t(`ops.none.${key}`)) : list,
  );
}

/** @param {string} act @param {string} label @param {Record<string, any>} data @param {boolean} busy @param {string} [look] */
function button(act, label, data, busy, look = "plain") {
  const named = Object.fromEntries(Object.entries(data).map(([name, value]) => [`data-${name}`, value]));
  return h(
    "button",
    { type: "button", class: look, "data-act": act, ...named, disabled: busy, key: act },
    busy && icon("clock"),
    label,
  );
}

/** @param {string} status */
function statusPill(status) {
  return h(
    "span",
    { class: `pill ops-${status.toLowerCase()}` },
    icon(SIGNS[status] ?? "clock"),
    tOr(`ops.status.${status}`, status),
  );
}

/** @param {Source} source @param {Set<string>} busy */
export function paymentsList(source, busy) {
  const rows = source.pages.payments?.payments ?? [];
  const one = (/** @type {any} */ row) => {
    const facts = [
      row.order && `${t("ops.order")} ${row.order}`,
      row.table && t("table-n", { table: row.table }),
      row.user,
      t(`method.${row.method}`),
      ago(age(row.requested_at, source.now())),
      row.queries > 0 && t("ops.queries", { n: row.queries }),
    ];
    const isBusy = busy.has(row.payment);
    const data = { payment: row.payment, store: row.store };
    return h(
      "li",
      { class: "row", key: row.payment },
      h("span", { class: "pill" }, row.store),
      h(
        "span",
        { class: "grow" },
        h("b", null, money(row.amount)),
        h("small", null, facts.filter(Boolean).join(" · ")),
        (row.code || row.message) && h("small", null, [row.code, row.message].filter(Boolean).join(": ")),
        h("small", { class: "id" }, row.attempt ?? row.payment),
      ),
      statusPill(row.status),
      button("query", t("do.query-payment"), data, isBusy || row.querying),
      row.status !== "REQUESTED" && button("decide", t("do.resolve-payment"), data, isBusy, "primary"),
    );
  };
  return section("payments", "card", rows, h("ul", { class: "rows" }, rows.map(one)));
}

/** @param {Source} source @param {Set<string>} busy */
export function refundsList(source, busy) {
  const rows = source.pages.payments?.refunds ?? [];
  const one = (/** @type {any} */ row) => {
    const facts = [
      row.order && `${t("ops.order")} ${row.order}`,
      t(`method.${row.method}`),
      ago(age(row.requested_at, source.now())),
      row.void && t("ops.void"),
      row.tries > 0 && t("ops.tries", { n: row.tries }),
      row.reason,
    ];
    return h(
      "li",
      { class: "row", key: row.refund },
      h("span", { class: "pill" }, row.store),
      h(
        "span",
        { class: "grow" },
        h("b", null, money(row.amount)),
        h("small", null, facts.filter(Boolean).join(" · ")),
        (row.code || row.message) && h("small", null, [row.code, row.message].filter(Boolean).join(": ")),
        h("small", { class: "id" }, row.refund),
      ),
      statusPill(row.status),
      row.status !== "UNKNOWN" && // then the gateway is still being asked
        button(
          "decide-refund",
          t(row.status === "FAILED" ? "decide.by-hand" : "do.resolve-refund"),
          { refund: row.refund, store: row.store },
          busy.has(row.refund),
          "primary",
        ),
    );
  };
  return section("refunds", "back", rows, h("ul", { class: "rows" }, rows.map(one)));
}

/** @param {Source} source @param {Set<string>} busy */
export function parkedList(source, busy) {
  const rows = source.pages.parked?.parked ?? [];
  const one = (/** @type {any} */ row) => {
    const isBusy = busy.has(`parked ${row.id}`);
    const facts = [
      row.envelope?.type,
      `${t("ops.version")} ${row.version}`,
      ago(Math.max(0, source.now() - row.at_ms)),
      t("ops.tries", { n: row.attempts }),
    ];
    return h(
      "li",
      { class: "row", key: row.id },
      h("span", { class: "pill" }, row.reaction),
      h(
        "span",
        { class: "grow" },
        h("b", null, row.stream),
        h("small", null, facts.filter(Boolean).join(" · ")),
        h("small", null, row.error),
      ),
      button("replay", t("ops.replay"), { id: row.id }, isBusy, "primary"),
      button("skip", t("ops.skip"), { id: row.id }, isBusy),
    );
  };
  return section("parked", "pause", rows, h("ul", { class: "rows" }, rows.map(one)));
}

/** @param {string[]} heads @param {Array<{key: string, cells: any[]}>} rows */
function table(heads, rows) {
  return h(
    "table",
    null,
    h(
      "thead",
      null,
      h(
        "tr",
        null,
        heads.map((head) => h("th", { scope: "col" }, t(head))),
      ),
    ),
    h(
      "tbody",
      null,
      rows.map(({ key, cells: [first, ...rest] }) =>
        h(
          "tr",
          { key },
          h("th", { scope: "row" }, first),
          rest.map((cell) => h("td", null, cell)),
        ),
      ),
    ),
  );
}

/** @param {Source} source */
export function reactionsTable(source) {
  const rows = source.pages.reactions?.reactions ?? [];
  const slowest = [...rows].sort((one, other) => other.parked - one.parked || other.lag - one.lag);
  const cells = slowest.slice(0, REACTIONS_SHOWN).map((/** @type {any} */ { partition, node, reaction, position, lag, parked }) => ({
    key: `${partition} ${reaction}`,
    cells: [
      partition === undefined ? reaction : `${reaction} · ${partition} · ${node ?? "–"}`,
      position,
      lag,
      parked,
    ],
  }));
  return section(
    "reactions",
    "cycle",
    rows,
    table(["ops.reaction", "ops.position", "ops.lag", "ops.parked"], cells),
  );
}

/** @param {Source} source */
export function streamsTable(source) {
  const rows = source.pages.streams?.streams ?? [];
  const busiest = [...rows].sort(
    (one, other) =>
      Number(other.held_down) - Number(one.held_down) ||
      other.subscribers - one.subscribers ||
      other.version - one.version,
  );
  const cells = busiest
    .slice(0, STREAMS_SHOWN)
    .map(({ node, stream, version, subscribers, waiting, held_down: held }) => ({
      key: `${node} ${stream}`,
      cells: [
        node === undefined ? stream : `${stream} · ${node}`,
        version,
        subscribers,
        held ? h("span", { class: "pill pill-closed" }, icon("warning"), t("ops.held")) : waiting,
      ],
    }));
  const heads = ["ops.stream", "ops.version", "ops.subscribers", "ops.waiting"];
  return section("streams", "wave", rows, table(heads, cells));
}
