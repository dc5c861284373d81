/**
 * The kitchen board: what is shown, what a tap does, and what makes a sound.
 */

import { listenToKeys } from "./board/keys.js";
import { arrivals } from "./board/arrivals.js";
import { callsStrip } from "./board/calls.js";
import { columns, lateOrders, tickTimers } from "./board/tickets.js";
import { billPanel, noteInput, settle, startBill } from "./board/bill.js";
import { donePanel, menuPanel, tablesPanel } from "./board/panels.js";
import { paymentActions, paymentsPanel } from "./board/payments.js";
import { refundNews } from "./board/refunds.js";
import { waitingStrip } from "./board/waiting.js";
import { shopActions } from "./board/shop.js";
import { statusToBe } from "./board/steps.js";
import { helpDialog, soundDialog } from "./board/settings.js";
import { chooseReason } from "./board/reasons.js";
import { open, QueueFull } from "./onda.js";
import { banner, chip, listenForToken, locked, showConnection, tickChip } from "./ui/connection.js";
import { draw, drawer, h, icon, onAct } from "./ui/dom.js";
import { refusalText, showLanguage, switchLanguage, t } from "./ui/i18n.js";
import { tickCountdowns } from "./ui/money.js";
import { claimsOf, pathParts, takeToken } from "./ui/session.js";
import { Sound } from "./ui/sound.js";
import { announce, panel, prepareRegions, toast } from "./ui/speak.js";
import { stayAwake } from "./ui/wake.js";

const [store] = pathParts();
const app = /** @type {HTMLElement} */ (document.getElementById("app"));
const token = takeToken();
const client = open({ feed: `stores/${store}`, token });
const sound = new Sound();
const news = arrivals(client);
const board = {
  client,
  store,
  sound,
  news,
  /** The ticket that the keyboard acts on. @type {string | null} */
  chosen: null,
  /** Staff see payments; owners give money back. The server has the last word. */
  mayRefund: claimsOf(token).role !== "staff",
  send,
  act,
  redraw: () => redraw(),
};
const panels = {
  menu: panel("menu-panel", () => menuPanel(board)),
  tables: panel("tables-panel", () => tablesPanel(board)),
  done: panel("done-panel", () => donePanel(board)),
  payments: panel("payments-panel", () => paymentsPanel(board)),
  bill: panel("bill-panel", () => billPanel(board)),
};
/** Late at the last look: each is told once. @type {Set<string>} */
let knownLate = new Set();
const redraw = drawer(show);

/**
 * Queue a command, and say so if it cannot be taken or is refused later.
 * @param {string} command @param {Record<string, any>} body @param {string} [feed]
 */
function send(command, body, feed) {
  try {
    return client.send(command, body, feed ? { feed } : {});
  } catch (error) {
    if (!(error instanceof QueueFull)) throw error;
    toast(t("queue-full"), { kind: "bad" });
    return null;
  }
}

/** What a button on a ticket does. @param {string} command @param {string} name of the order */
async function act(command, name) {
  const order = client.state.orders?.[name];
  if (!order) return;
  if (command === "reject-order" || command === "cancel-order") {
    const reason = await chooseReason(command, order);
    if (reason) send(command, { order: name, reason });
  } else if (command === "recall-order") {
    send(command, { order: name, status: statusToBe(client, order) });
  } else {
    const sent = send(command, { order: name });
    if (command === "mark-served" && sent) void offerUndo(sent.settled, order);
  }
}

/** @param {Promise<any>} settled @param {any} order */
async function offerUndo(settled, order) {
  const { ok } = await settled;
  if (!ok) return;
  const undo = () => send("recall-order", { order: order.order, status: "SERVED" });
  toast(t("done.served", { number: order.number }), {
    kind: "good",
    act: { label: t("do.recall-order"), run: undo },
  });
}

function show() {
  const shop = client.state.shop?.self;
  const waiting = news.unaccepted().length;
  document.title = `${waiting ? `(${waiting}) ` : ""}${shop?.name ?? t("board.title")}`;
  if (client.reason === "unauthorized" && !shop) {
    draw(app, locked());
    return;
  }
  draw(
    app,
    header(shop),
    banner(client),
    notices(shop),
    callsStrip(board),
    waitingStrip(board),
    columns(board),
  );
  for (const each of Object.values(panels)) each.draw();
}

/** @param {any} shop */
function header(shop) {
  const tool = (/** @type {string} */ act_, /** @type {string} */ sign, /** @type {string} */ label) =>
    h("button", { type: "button", class: "tool", "data-act": act_ }, icon(sign), h("span", null, label));
  const state = shop && (!shop.open ? "closed" : shop.paused ? "paused" : "open");
  return h(
    "header",
    { class: "bar", key: "bar" },
    h(
      "div",
      { class: "brand" },
      icon("wave"),
      h("h1", null, shop?.name ?? t("loading")),
      state && h("span", { class: `pill pill-${state}` }, t(`shop.${state}`)),
    ),
    chip(client),
    h(
      "nav",
      { class: "tools", "aria-label": t("board.title") },
      tool("panel-menu", "menu", t("menu.title")),
      tool("panel-tables", "tables", t("tables.title")),
      tool("panel-payments", "card", t("payments.title")),
      tool("panel-done", "back", t("done.title")),
      tool("sound", sound.on ? "sound" : "mute", t("sound.title")),
      tool("help", "help", t("help")),
      tool("language", "globe", t("other-language")),
    ),
  );
}

/** @param {any} shop */
function notices(shop) {
  const away = news.away();
  const numbers = away.map((order) => `#${order.number}`).join(" ");
  return h(
    "div",
    { class: "notices", key: "notices" },
    !sound.on &&
      h(
        "button",
        { type: "button", class: "gate", "data-act": "sound-on", key: "gate" },
        icon("sound"),
        h("strong", null, t("sound.start")),
        h("span", null, t("sound.why")),
      ),
    !client.durable && h("p", { class: "banner banner-wary" }, icon("warning"), t("not-durable")),
    shop && !shop.open && shopNotice("board.closed", "open-store"),
    shop?.open && shop.paused && shopNotice("board.paused", "resume-orders", shop.pause_reason),
    away.length > 0 &&
      h(
        "div",
        { class: "banner banner-news", key: "away" },
        icon("info"),
        h("p", null, h("strong", null, t("board.away-list", { n: away.length })), ` ${numbers}`),
        h("button", { type: "button", class: "plain", "data-act": "seen" }, t("ok")),
      ),
  );
}

/** @param {string} key @param {string} command @param {string} [reason] */
function shopNotice(key, command, reason = "") {
  const why = reason && (t(`reason.${reason}`) === `reason.${reason}` ? reason : t(`reason.${reason}`));
  return h(
    "div",
    { class: "banner banner-wary", key },
    icon("pause"),
    h("p", null, t(key, { reason: why })),
    h("button", { type: "button", class: "plain", "data-act": command }, t(`do.${command}`)),
  );
}

function soundOn() {
  sound.enable();
  sound.play("new");
  redraw();
}

/** @param {any} detail */
function refused({ entry, problem }) {
  const what = t(`do.${entry.command}`, { name: "" }).trim();
  toast(t("failed", { what, why: refusalText(problem) }), { kind: "bad" });
}

function tick() {
  tickChip(client);
  tickTimers(client);
  tickCountdowns(client);
  if (news.unaccepted().length > 0) sound.repeat("new");
  const late = lateOrders(client);
  if (late.some((name) => !knownLate.has(name))) sound.play("late");
  knownLate = new Set(late);
}

prepareRegions();
showLanguage();
listenForToken();
listenToKeys(board, panels);
stayAwake();
onAct(document, {
  order: (data) => void act(data.command, data.order),
  line: (data) => send("mark-item-ready", { order: data.order, line: data.line }),
  choose: (data) => {
    board.chosen = data.order;
    redraw();
  },
  "answer-call": (data) => send("answer-call", { call: data.call }, `tables/${store}/${data.table}`),
  ...shopActions(board),
  ...paymentActions(board),
  bill: (data) => {
    startBill(data.table ?? null, data.order ?? null);
    panels.bill.open();
  },
  settle: () => {
    if (settle(board)) redraw();
  },
  "panel-menu": () => panels.menu.open(),
  "panel-tables": () => panels.tables.open(),
  "panel-done": () => panels.done.open(),
  "panel-payments": () => panels.payments.open(),
  sound: () => void soundDialog(sound, redraw),
  "sound-on": soundOn,
  seen: () => {
    news.seen();
    redraw();
  },
  help: () => void helpDialog(),
  connection: () => void showConnection(client),
  retry: () => client.retry(),
  language: () => {
    switchLanguage();
    redraw();
  },
});
panels.bill.element.addEventListener("input", (event) => {
  if (event.target instanceof HTMLInputElement && noteInput(event.target)) redraw();
});
for (const name of ["change", "status", "queue", "reset"]) client.on(name, redraw);
client.on("refused", refused);
news.on("order", (order) => {
  const where = order.table ? t("table-n", { table: order.table }) : t("board.no-table");
  announce(t("board.arrived", { where, number: order.number }));
  sound.repeat("new");
});
refundNews(client, (text) => {
  toast(text);
  sound.play("void");
});
news.on("call", (call) => {
  announce(t("calls.arrived", { table: call.table, kind: t(`call.${call.kind}`) }));
  sound.play("call");
});
setInterval(tick, 1_000);
show();
