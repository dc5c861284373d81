/**
 * Where a guest comes back to from the gateway's page: asks the shop to charge, and shows how it ends.
 *
 * What the gateway says in the address is only a reference: the order's copy on the stream is what counts. A
 * reload asks again for the same payment, which the shop charges once.
 */

import { open, QueueFull } from "./onda.js";
import { noteTrip, payFlow, tripOf } from "./pay/flow.js";
import { chooseMethod } from "./pay/methods.js";
import { providerRef } from "./pay/returned.js";
import { banner, chip, showConnection, tickChip } from "./ui/connection.js";
import { draw, drawer, h, icon, onAct } from "./ui/dom.js";
import { currentLanguage, money, refusalText, showLanguage, switchLanguage, t, tOr } from "./ui/i18n.js";
import { countdown, declineText, msLeft, PAY_MS_MIN, receipt } from "./ui/money.js";
import { pathParts, tokenOf } from "./ui/session.js";
import { announce, prepareRegions, toast } from "./ui/speak.js";

const [store, payment] = pathParts();
const app = /** @type {HTMLElement} */ (document.getElementById("app"));
const trip = tripOf(store, payment);
/** What the gateway appended to our address. */
const returned = trip && providerRef(trip.method, new URLSearchParams(location.search));
const client =
  trip && open({ feed: trip.feed, token: tokenOf(trip.page), settings: { unsentAgeMs: 15 * 60_000 } });
const flow =
  trip &&
  client &&
  payFlow({
    client,
    feed: trip.feed,
    page: trip.page,
    send,
    failed: () => toast(t("pay.no-page"), { kind: "bad" }),
  });
const redraw = drawer(show);
/** The approval of this page was answered. */
let answered = false;
let told = "";

/** @param {string} command @param {any} body @param {string} feed */
function send(command, body, feed) {
  try {
    return client?.send(command, body, { feed });
  } catch (error) {
    if (!(error instanceof QueueFull)) throw error;
    toast(t("queue-full"), { kind: "bad" });
    return null;
  }
}

function order() {
  return trip && client?.state.orders?.[trip.entity];
}

/** @returns {string} what to show: how the payment stands for this guest */
function stage() {
  if (!trip || !client) return "lost";
  if (client.cursor === null) return client.reason === "unauthorized" ? "lost" : "loading";
  const mine = order();
  if (!mine) return "gone";
  if (mine.payment?.payment !== payment) return mine.status === "EXPIRED" ? "expired" : "replaced";
  const { status } = mine.payment;
  if (status === "PAID") return "paid";
  if (status === "REQUESTED" || status === "UNKNOWN") return "checking";
  if (status === "MANUAL_REVIEW") return "review";
  const asking = returned?.ref && !trip.refused && !answered;
  if (mine.status === "EXPIRED" && !asking) return "expired";
  if (status === "DECLINED") return "declined";
  if (mine.closed_at && mine.status !== "EXPIRED") return "gone";
  if (trip.refused) return trip.refused.code === "hold_expired" ? "expired" : "refused";
  return returned?.ref ? "checking" : "unpaid";
}

/** Ask for the charge, unless that is done, under way or refused. */
function approve() {
  const mine = order();
  if (!trip || !client || !returned?.ref || trip.refused || answered) return;
  if (mine?.payment?.payment !== payment || mine.payment.status !== "PENDING") return;
  const asked = client.pending.some(
    ({ command, body }) => command === "approve-payment" && body.payment === payment,
  );
  if (asked) return;
  const body = { order: trip.order, payment, provider_ref: returned.ref };
  send("approve-payment", body, `stores/${store}`);
}

function show() {
  const now = stage();
  document.title = t(`pay.title.${now}`);
  if (told !== now && now !== "loading") {
    told = now;
    announce(t(`pay.title.${now}`), now !== "paid" && now !== "checking");
  }
  draw(
    app,
    h(
      "header",
      { class: "bar", key: "bar" },
      h("div", { class: "brand" }, icon("wave"), h("span", null, t("pay.page"))),
      client && chip(client),
      h(
        "button",
        { type: "button", class: "quiet square", "data-act": "language", "aria-label": t("other-language") },
        icon("globe"),
      ),
    ),
    client && banner(client),
    card(now),
  );
}

const SIGNS = /** @type {Record<string, string>} */ ({
  lost: "help",
  loading: "clock",
  gone: "info",
  replaced: "info",
  paid: "check",
  checking: "cycle",
  review: "hand",
  expired: "clock",
  declined: "warning",
  refused: "warning",
  unpaid: "info",
});

/** @param {string} now */
function card(now) {
  const mine = order();
  const again = now === "declined" || now === "unpaid";
  const left = msLeft(mine?.hold_expires_at, /** @type {any} */ (client));
  const number = mine?.number ? h("small", null, t("t.order-n", { number: mine.number })) : null;
  return h(
    "main",
    { class: `notice pay-stage stage-${now}`, key: now, lang: currentLanguage() },
    icon(SIGNS[now]),
    h("div", null, h("h1", null, t(`pay.title.${now}`)), number),
    h("p", null, helpText(now, mine)),
    mine && ["paid", "declined", "unpaid", "checking"].includes(now) && receipt(mine),
    again && mine.hold_expires_at && left > 0 && countdown(mine.hold_expires_at, client, t("pay.kept")),
    again && left >= PAY_MS_MIN && payAgain(mine),
    again && left > 0 && left < PAY_MS_MIN && h("p", { class: "pay-note" }, t("pay.soon-over")),
    trip &&
      h(
        "a",
        { class: `button ${again && left >= PAY_MS_MIN ? "plain" : "primary big"}`, href: trip.page },
        t(trip.feed.startsWith("users/") ? "pay.back-user" : "pay.back-table"),
      ),
  );
}

/** @param {string} now @param {any} mine */
function helpText(now, mine) {
  if (now === "declined") return declineText(mine.payment);
  if (now === "refused" && trip?.refused) return refusalText(trip.refused);
  if (now === "unpaid" && returned)
    return tOr(`pay.code.${returned.code}`, returned.message || t("pay.help.unpaid"));
  return t(`pay.help.${now}`);
}

/** @param {any} mine */
function payAgain(mine) {
  const starting = flow?.isStarting(store, mine);
  return h(
    "button",
    { type: "button", class: "primary big", "data-act": "pay", disabled: starting },
    icon(starting ? "clock" : "card"),
    starting ? t("pay.opening") : t("pay.again", { price: money(mine.total) }),
  );
}

prepareRegions();
showLanguage();
onAct(document, {
  pay: async () => {
    const method = trip && (await chooseMethod(tokenOf(trip.page)));
    const mine = order();
    if (trip && mine && method) flow?.start(store, mine, trip.payer, method);
    redraw();
  },
  connection: () => client && void showConnection(client),
  retry: () => client?.retry(),
  language: () => {
    switchLanguage();
    redraw();
  },
});
if (client && trip) {
  client.on("change", approve);
  client.on("sent", ({ entry }) => {
    if (entry.command === "approve-payment" && entry.body.payment === payment) answered = true;
  });
  client.on("refused", ({ entry, problem }) => {
    if (entry.command !== "approve-payment" || entry.body.payment !== payment) {
      toast(t("failed", { what: t(`do.${entry.command}`), why: refusalText(problem) }), { kind: "bad" });
      return;
    }
    trip.refused = { code: problem.code, detail: problem.detail };
    noteTrip(store, payment, trip);
    redraw();
  });
  for (const name of ["change", "status", "queue", "reset"]) client.on(name, redraw);
  setInterval(() => {
    tickChip(client);
    flow?.look();
    redraw();
  }, 1_000);
}
show();
