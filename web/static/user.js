/**
 * A customer's page: notices from shops, coupons, and orders wherever they were placed, with the way to pay.
 */

import { open, QueueFull } from "./onda.js";
import { payCard } from "./pay/card.js";
import { payFlow } from "./pay/flow.js";
import { chooseMethod } from "./pay/methods.js";
import { discountText } from "./table/coupons.js";
import { banner, chip, listenForToken, locked, showConnection, tickChip } from "./ui/connection.js";
import { draw, drawer, h, icon, onAct } from "./ui/dom.js";
import {
  age,
  ago,
  dayTime,
  money,
  reasonText,
  refusalText,
  showLanguage,
  switchLanguage,
  t,
} from "./ui/i18n.js";
import { mark, msLeft, standing, UNPAID } from "./ui/money.js";
import { pathParts, takeToken } from "./ui/session.js";
import { announce, confirm, prepareRegions, toast } from "./ui/speak.js";
import { taskCards } from "./user/tasks.js";

const [user] = pathParts();
const app = /** @type {HTMLElement} */ (document.getElementById("app"));
const token = takeToken();
const client = open({ feed: `users/${user}`, token, settings: { pauseHiddenMs: 60_000 } });
const redraw = drawer(show);
const tasks = taskCards({ client, redraw });
const flow = payFlow({
  client,
  feed: `users/${user}`,
  send,
  failed: () => toast(t("pay.no-page"), { kind: "bad" }),
});

/** @param {string} command @param {any} body @param {string} feed */
function send(command, body, feed) {
  try {
    return client.send(command, body, { feed });
  } catch (error) {
    if (!(error instanceof QueueFull)) throw error;
    toast(t("queue-full"), { kind: "bad" });
    return null;
  }
}

function show() {
  document.title = t("user.title");
  if (client.reason === "unauthorized" && client.cursor === null) return draw(app, locked());
  const notices = Object.values(client.state.notices ?? {}).sort((one, other) =>
    other.at.localeCompare(one.at),
  );
  const orders = Object.entries(client.state.orders ?? {}).sort(([, one], [, other]) =>
    when(other).localeCompare(when(one)),
  );
  const coupons = Object.values(client.state.coupons ?? {}).sort((one, other) =>
    (other.issued_at ?? "").localeCompare(one.issued_at ?? ""),
  );
  const working = tasks.section();
  const none = client.cursor === null ? t("loading") : t("user.none");
  return draw(
    app,
    h(
      "header",
      { class: "bar" },
      h("div", { class: "brand" }, icon("wave"), h("h1", null, t("user.title"))),
      chip(client),
      language(),
    ),
    banner(client),
    h(
      "main",
      { class: "home" },
      !working && notices.length + orders.length + coupons.length === 0 && h("p", { class: "empty" }, none),
      notices.length > 0 &&
        h(
          "section",
          { key: "notices" },
          h("h2", null, t("user.notices")),
          h("ul", { class: "rows" }, notices.map(notice)),
        ),
      working,
      coupons.length > 0 &&
        h(
          "section",
          { key: "coupons" },
          h("h2", null, t("coupon.mine")),
          h("ul", { class: "rows" }, coupons.map(coupon)),
        ),
      orders.length > 0 &&
        h(
          "section",
          { key: "orders" },
          h("h2", null, t("user.orders")),
          orders.map(([id, each]) => order(id, each)),
        ),
    ),
  );
}

function language() {
  return h(
    "button",
    { type: "button", class: "quiet square", "data-act": "language", "aria-label": t("other-language") },
    icon("globe"),
  );
}

/** @param {any} each */
function notice({ notice: id, title, body, at }) {
  return h(
    "li",
    { class: "row", key: id },
    h(
      "span",
      { class: "grow" },
      h("b", null, title),
      body && h("span", null, body),
      h("small", null, ago(age(at, client.now()))),
    ),
  );
}

/** @param {any} each */
function coupon({ coupon: id, store, name, discount, status, expires_at: until }) {
  const over = status !== "USED" && msLeft(until, client) <= 0;
  const state = status === "USED" ? "used" : over ? "expired" : "ready";
  const sign = state === "ready" ? "coupon" : state === "used" ? "check" : "clock";
  return h(
    "li",
    { class: `row coupon-row coupon-${state}`, key: `${store}/${id}` },
    icon("coupon"),
    h(
      "span",
      { class: "grow" },
      h("b", null, name),
      h("span", null, discountText(discount)),
      until && h("small", null, t("coupon.until", { time: dayTime(until) })),
    ),
    h("span", { class: `pill pill-coupon-${state}` }, icon(sign), t(`coupon.${state}`)),
  );
}

/** When an order was made, as far as it is known. @param {any} order */
function when({ placed_at: placed, hold_expires_at: hold, closed_at: closed }) {
  return placed ?? hold ?? closed ?? "";
}

/** @param {string} id @param {any} each */
function order(id, each) {
  const { number, store, status, reason, lines } = each;
  const state = standing(each);
  const unpaid = UNPAID.includes(status);
  const cancelling = client.pending.some(
    ({ command, body }) => command === "cancel-order" && body.order === each.order,
  );
  return h(
    "article",
    { class: `order is-${status.toLowerCase()}`, key: id, "aria-label": t("t.order-n", { number }) },
    h("header", { class: "row spread" }, h("h3", null, t("t.order-n", { number })), h("small", null, store)),
    h("p", { class: "now" }, unpaid ? mark(each) : t(`t.now.${status}`)),
    reason && status !== "EXPIRED" && h("small", null, reasonText(reason)),
    h(
      "ul",
      { class: "order-lines" },
      lines.map((/** @type {any} */ line) =>
        h(
          "li",
          { key: line.line, class: `line-${line.status.toLowerCase()}` },
          `${line.name} × ${line.quantity}`,
        ),
      ),
    ),
    payCard({ client, order: each, store, entity: id, flow, mayPay: true }),
    unpaid &&
      state !== "checking" &&
      state !== "review" &&
      h(
        "button",
        {
          type: "button",
          class: "quiet",
          "data-act": "cancel-order",
          "data-order": id,
          disabled: cancelling,
        },
        cancelling && icon("clock"),
        t("t.cancel"),
      ),
  );
}

prepareRegions();
showLanguage();
listenForToken();
onAct(document, {
  pay: async (data) => {
    const method = await chooseMethod(token);
    const each = client.state.orders?.[data.order];
    if (each && method) flow.start(each.store, each, user, method);
    redraw();
  },
  "cancel-order": async (data) => {
    const each = client.state.orders?.[data.order];
    const sure = each && (await confirm(t("t.cancel-title"), t("t.cancel-help"), t("t.cancel")));
    if (sure) send("cancel-order", { order: each.order, reason: "changed_mind" }, `stores/${each.store}`);
  },
  "task-history": (data) => tasks.toggle(/** @type {any} */ (data)),
  connection: () => void showConnection(client),
  retry: () => client.retry(),
  language: () => {
    switchLanguage();
    redraw();
  },
});
for (const name of ["change", "status", "queue", "reset"]) client.on(name, redraw);
client.on("event", ({ envelope }) => {
  for (const each of Object.values(envelope.patch?.notices ?? {})) if (each) announce(each.title);
});
client.on("refused", ({ entry, problem }) => {
  toast(t("failed", { what: t(`do.${entry.command}`), why: refusalText(problem) }), { kind: "bad" });
});
setInterval(() => {
  tickChip(client);
  flow.look();
  if (Object.values(client.state.orders ?? {}).some((each) => each.hold_expires_at)) redraw();
}, 1_000);
show();
