/**
 * The operators' page: what must hold, what needs somebody, and how far everything is.
 */

import { parkedList, paymentsList, reactionsTable, refundsList, streamsTable } from "./ops/lists.js";
import { Source } from "./ops/source.js";
import { decideDialog, decideRefundDialog } from "./pay/decide.js";
import { listenForToken, locked } from "./ui/connection.js";
import { draw, drawer, h, icon, onAct } from "./ui/dom.js";
import { refusalText, showLanguage, switchLanguage, t } from "./ui/i18n.js";
import { takeToken } from "./ui/session.js";
import { confirm, prepareRegions, toast } from "./ui/speak.js";

const app = /** @type {HTMLElement} */ (document.getElementById("app"));
const redraw = drawer(show);
const source = new Source(takeToken(), redraw);
/** What somebody here has asked for, until it is answered. @type {Set<string>} */
const busy = new Set();
let wasStale = false;

/** Checks: the number of violations, which has to be 0. */
const CHECKS = [
  "paid_without_order",
  "refunded_too_much",
  "stock_mismatch",
  "holds_overdue",
  "coupons_overissued",
];

function show() {
  document.title = t("ops.title");
  if (source.denied && source.heardAt === null) return draw(app, locked());
  wasStale = source.stale;
  return draw(
    app,
    header(),
    source.stale &&
      h("p", { class: "banner banner-bad", role: "alert", key: "stale" }, icon("warning"), t("ops.stale")),
    source.heardAt === null
      ? h("p", { class: "empty", key: "loading", role: "status" }, t("loading"))
      : h("main", { class: source.stale ? "stale" : "", key: "main" }, tiles(), lists()),
  );
}

function header() {
  const { age, stale } = source;
  const look = stale ? "bad" : age === null ? "wary" : "good";
  return h(
    "header",
    { class: "bar", key: "bar" },
    h("div", { class: "brand" }, icon("wave"), h("h1", null, t("ops.title"))),
    h(
      "button",
      { type: "button", class: `chip chip-${look}`, "data-act": "refresh", title: t("ops.refresh") },
      icon(stale ? "warning" : "dot"),
      h("span", { class: "chip-age" }, ageText()),
    ),
    h(
      "button",
      { type: "button", class: "quiet", "data-act": "language" },
      icon("globe"),
      t("other-language"),
    ),
  );
}

function ageText() {
  return source.age === null ? t("never-heard") : t("heard", { n: Math.floor(source.age / 1000) });
}

function tiles() {
  const { checks = {}, counts = {} } = source.pages.payments ?? {};
  const parked = source.pages.parked?.parked?.length ?? 0;
  const reactions = source.pages.reactions?.reactions ?? [];
  const lag = Math.max(0, ...reactions.map((/** @type {any} */ each) => each.lag));
  const streams = Object.values(source.pages.streams?.open ?? {}).reduce(
    (sum, each) => Number(sum) + Number(each),
    0,
  );
  const tile = (/** @type {string} */ key, /** @type {any} */ value, /** @type {string} */ look) =>
    h(
      "li",
      { class: `tile tile-${look}`, key },
      h(
        "b",
        null,
        icon({ good: "check", bad: "warning", wary: "clock", plain: "dot" }[look] ?? "dot"),
        value,
      ),
      h("span", null, t(`ops.tile.${key}`)),
    );
  const wary = (/** @type {number} */ n) => (n > 0 ? "wary" : "good");
  return h(
    "ul",
    { class: "tiles", key: "tiles", "aria-label": t("ops.tiles") },
    CHECKS.map((key) => tile(key, checks[key] ?? 0, (checks[key] ?? 0) > 0 ? "bad" : "good")),
    tile("review", counts.review ?? 0, counts.review > 0 ? "bad" : "good"),
    tile("open", counts.open ?? 0, wary(counts.open ?? 0)),
    tile("refunds_pending", counts.refunds_pending ?? 0, wary(counts.refunds_pending ?? 0)),
    tile("refunds_failed", counts.refunds_failed ?? 0, counts.refunds_failed > 0 ? "bad" : "good"),
    tile("parked", parked, parked > 0 ? "bad" : "good"),
    tile("lag", lag, "plain"),
    tile("streams", streams, "plain"),
  );
}

function lists() {
  return h(
    "div",
    { class: "lists", key: "lists" },
    source.pages.payments?.more && h("p", { class: "banner banner-wary" }, icon("info"), t("ops.more")),
    paymentsList(source, busy),
    refundsList(source, busy),
    parkedList(source, busy),
    reactionsTable(source),
    streamsTable(source),
  );
}

/** @param {string} name  of what is busy @param {string} what @param {string} path @param {any} [body] */
async function act(name, what, path, body) {
  busy.add(name);
  redraw();
  const { ok, problem } = await source.post(path, body);
  busy.delete(name);
  if (ok) toast(t("ops.done", { what }), { kind: "good" });
  else toast(t("failed", { what, why: refusalText(problem) }), { kind: "bad" });
  redraw();
}

/** @param {string} payment */
function rowOf(payment) {
  return (source.pages.payments?.payments ?? []).find((/** @type {any} */ row) => row.payment === payment);
}

prepareRegions();
showLanguage();
listenForToken();
onAct(document, {
  refresh: () => void source.refresh(),
  language: () => {
    switchLanguage();
    redraw();
  },
  query: ({ payment, store }) =>
    void act(payment, t("do.query-payment"), `stores/${store}/query-payment`, { payment }),
  decide: async ({ payment, store }) => {
    const row = rowOf(payment);
    const decision = row && (await decideDialog(row));
    if (decision)
      await act(payment, t("do.resolve-payment"), `stores/${store}/resolve-payment`, {
        payment,
        ...decision,
      });
  },
  "decide-refund": async ({ refund, store }) => {
    const rows = source.pages.payments?.refunds ?? [];
    const row = rows.find((/** @type {any} */ each) => each.refund === refund);
    const decision = row && (await decideRefundDialog(row));
    const body = row && { payment: row.payment, refund, ...decision };
    if (decision) await act(refund, t("do.resolve-refund"), `stores/${store}/resolve-refund`, body);
  },
  replay: async ({ id }) => {
    if (await confirm(t("ops.replay-title"), t("ops.replay-help"), t("ops.replay")))
      await act(`parked ${id}`, t("ops.replay"), `ops/parked/${id}/replay`);
  },
  skip: async ({ id }) => {
    if (await confirm(t("ops.skip-title"), t("ops.skip-help"), t("ops.skip")))
      await act(`parked ${id}`, t("ops.skip"), `ops/parked/${id}/skip`);
  },
});
source.start();
setInterval(() => {
  for (const element of document.querySelectorAll(".chip-age")) element.textContent = ageText();
  if (source.stale !== wasStale) redraw();
}, 1_000);
show();
