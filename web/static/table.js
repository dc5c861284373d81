/**
 * A table's page: menu, the cart that everyone at the table shares, orders as they come along, and the bell.
 */

import { open, QueueFull } from "./onda.js";
import { payFlow } from "./pay/flow.js";
import { chooseMethod } from "./pay/methods.js";
import { callView, noteAnswer } from "./table/calls.js";
import { cartView, linesToShow, sumOf } from "./table/cart.js";
import { chosenCoupon } from "./table/coupons.js";
import { menuView, productDialog } from "./table/menu.js";
import { ordersView, progressNews } from "./table/orders.js";
import { askName, nameOf } from "./table/names.js";
import { thanks, welcome } from "./table/welcome.js";
import { banner, chip, listenForToken, locked, showConnection, tickChip } from "./ui/connection.js";
import { draw, drawer, h, icon, onAct } from "./ui/dom.js";
import { reasonText, refusalText, showLanguage, switchLanguage, t } from "./ui/i18n.js";
import { forget, pathParts, recall, remember, takeToken } from "./ui/session.js";
import { confirm, prepareRegions, toast } from "./ui/speak.js";

const MINUTE = 60_000;

const [store, table] = pathParts();
/** Where this tab remembers the chosen coupon. */
const COUPON = `coupon|${store}/${table}`;
const app = /** @type {HTMLElement} */ (document.getElementById("app"));
const token = takeToken();
const client = open({
  feed: `tables/${store}/${table}`,
  token,
  // Phones in pockets need no stream, and nobody means an order that is a quarter of an hour old.
  settings: { pauseHiddenMs: MINUTE, unsentAgeMs: 15 * MINUTE },
});
/** This page has seen its party: when the table closes now, it says goodbye. */
let sawParty = false;
const flow = payFlow({
  client,
  feed: `tables/${store}/${table}`,
  send,
  failed: () => toast(t("pay.no-page"), { kind: "bad" }),
});
const page = {
  client,
  store,
  table,
  flow,
  /** What is shown beside (on phones: instead of) the menu. @type {"menu" | "cart" | "orders" | "call"} */
  view: "menu",
  /** The coupon for the next order. @type {string | null} */
  coupon: recall(COUPON),
  send,
};
const redraw = drawer(show);

/**
 * Queue a command, and say so if it cannot be taken.
 * @param {string} command @param {Record<string, any>} [body] @param {string} [feed]
 */
function send(command, body = {}, feed) {
  try {
    return client.send(command, body, feed ? { feed } : {});
  } catch (error) {
    if (!(error instanceof QueueFull)) throw error;
    toast(t("queue-full"), { kind: "bad" });
    return null;
  }
}

function show() {
  const shop = client.state.shop?.self;
  const seat = client.state.table?.self;
  document.title = `${t("table-n", { table })}${shop ? ` · ${shop.name}` : ""}`;
  if (client.reason === "unauthorized" && client.cursor === null) return draw(app, locked());
  if (client.cursor === null)
    return draw(app, header(shop), banner(client), h("p", { class: "empty", role: "status" }, t("loading")));
  if (!seat?.open) {
    const body = sawParty ? thanks() : welcome(page);
    return draw(app, header(shop), banner(client), body);
  }
  sawParty = true;
  return draw(app, header(shop), banner(client), shopNotice(shop), views(), tabs());
}

/** @param {any} shop */
function header(shop) {
  return h(
    "header",
    { class: "bar", key: "bar" },
    h("strong", { class: "seat" }, table),
    h(
      "div",
      { class: "brand" },
      h("h1", null, shop?.name ?? t("table-n", { table })),
      h("small", null, t("table-n", { table })),
    ),
    chip(client),
    h(
      "button",
      {
        type: "button",
        class: "quiet square",
        "data-act": "language",
        "aria-label": t("other-language"),
        title: t("other-language"),
      },
      icon("globe"),
    ),
  );
}

/** @param {any} shop */
function shopNotice(shop) {
  if (!shop || (shop.open && !shop.paused)) return null;
  const text = shop.open ? t("t.paused", { reason: reasonText(shop.pause_reason) }) : t("t.closed");
  return h(
    "p",
    { class: "banner banner-wary", role: "status", key: "shop" },
    icon("pause"),
    h("span", null, text),
  );
}

function views() {
  const side = page.view === "menu" ? "cart" : page.view;
  const sides = { cart: cartView, orders: ordersView, call: callView };
  return h(
    "main",
    { class: "views", "data-view": page.view, key: "views" },
    h("section", { class: "view view-menu", "aria-labelledby": "h-menu", key: "menu" }, menuView(page)),
    h("section", { class: "view view-side", "aria-labelledby": `h-${side}`, key: side }, sides[side](page)),
  );
}

function tabs() {
  const orders = Object.values(client.state.orders ?? {}).filter((order) => order.closed_at === null).length;
  const sending = Object.keys(client.state.sending ?? {}).length;
  const calls = Object.keys(client.state.calls ?? {}).length;
  const tab = (/** @type {string} */ name, /** @type {string} */ sign, /** @type {number} */ count) =>
    h(
      "button",
      {
        type: "button",
        class: `tab tab-${name}`,
        "data-act": "view",
        "data-view": name,
        "aria-current": page.view === name ? "page" : null,
      },
      icon(sign),
      h("span", null, t(`t.${name}`)),
      count > 0 && h("b", { class: "badge" }, count),
    );
  return h(
    "nav",
    { class: "tabs", "aria-label": t("table-n", { table }), key: "tabs" },
    tab("menu", "menu", 0),
    tab("cart", "cart", linesToShow(client).length),
    tab("orders", "receipt", orders + sending),
    tab("call", "bell", calls),
  );
}

/** @param {string} view */
function go(view) {
  page.view = /** @type {any} */ (view);
  redraw();
  scrollTo({ top: 0 });
}

/** @param {string} product */
async function add(product) {
  const item = client.state.menu?.[product];
  if (!item || item.sold_out) return;
  const wish = await productDialog(item);
  if (wish) addWish(wish);
}

/** @param {any} wish */
function addWish(wish) {
  if (send("add-to-cart", { ...wish, by: nameOf(client) || t("t.guest") })) redraw();
}

/** @param {string | null} coupon  for the next order */
function choose(coupon) {
  page.coupon = coupon;
  if (coupon === null) forget(COUPON);
  else remember(COUPON, coupon);
  redraw();
}

function submit() {
  const coupon = chosenCoupon(client, page.coupon, sumOf(client, linesToShow(client)));
  if (!send("submit-cart", coupon ? { coupon: coupon.coupon } : {})) return;
  choose(null);
  go("orders");
}

/** @param {{line: string, by: string}} data */
function changeQuantity({ line, by }) {
  const shown = linesToShow(client).find((each) => each.line === line);
  if (!shown) return;
  const quantity = shown.quantity + Number(by);
  if (quantity < 1) send("remove-from-cart", { line });
  else send("change-quantity", { line, quantity });
}

/** Something on this page counts down. */
function isCounting() {
  const { orders = {}, campaigns = {}, coupons = {} } = client.state;
  return (
    Object.values(orders).some((order) => order.hold_expires_at) ||
    Object.keys(campaigns).length + Object.keys(coupons).length > 0
  );
}

/** @param {any} detail */
function refused({ entry, problem }) {
  toast(t("failed", { what: t(`do.${entry.command}`), why: refusalText(problem) }), { kind: "bad" });
}

prepareRegions();
showLanguage();
listenForToken();
onAct(document, {
  open: (data) => void send("open-table", data.guests ? { guests: Number(data.guests) } : {}),
  again: () => {
    sawParty = false;
    redraw();
  },
  view: (data) => go(data.view),
  product: (data) => void add(data.product),
  quick: (data) => addWish({ product: data.product, quantity: 1 }),
  quantity: changeQuantity,
  remove: (data) => void send("remove-from-cart", { line: data.line }),
  submit,
  "take-coupon": (data) => void send("issue-coupon", { coupon: data.coupon, table }, `stores/${store}`),
  "use-coupon": (data) => choose(page.coupon === data.coupon ? null : data.coupon),
  name: async () => {
    await askName(client);
    redraw();
  },
  pay: async (data) => {
    const method = await chooseMethod(token);
    const order = client.state.orders?.[data.order];
    if (order && method) flow.start(store, order, table, method);
    redraw();
  },
  "cancel-order": async (data) => {
    const sure = await confirm(t("t.cancel-title"), t("t.cancel-help"), t("t.cancel"));
    if (sure) send("cancel-order", { order: data.order, reason: "changed_mind" }, `stores/${store}`);
  },
  call: (data) => void send("call-staff", { kind: data.kind }),
  connection: () => void showConnection(client),
  retry: () => client.retry(),
  language: () => {
    switchLanguage();
    redraw();
  },
});
for (const name of ["change", "status", "queue", "reset"]) client.on(name, redraw);
client.on("refused", refused);
client.on("event", ({ envelope }) => {
  if (envelope.type === "CallAnswered") noteAnswer(envelope.data.kind);
  if (envelope.type === "CartReturned") {
    toast(`${t("t.refused")}: ${refusalText(envelope.data)}`, { kind: "bad" });
    go("cart");
  }
});
progressNews(client);
setInterval(() => {
  tickChip(client);
  flow.look();
  if (page.view === "call" || isCounting()) redraw();
}, 1_000);
show();
