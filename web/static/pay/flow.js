/**
 * Paying from a page: ask the shop to prepare a payment, and go to the gateway's page when it is ready.
 *
 * What a tap began is kept for this tab, so that it survives a reload; the order's copy on the stream is what
 * counts. The gateway sends the guest back to `/pay/{store}/{payment}`, which finds here whose order it is.
 */

import { recall, remember, forget } from "../ui/session.js";

/** The gateway's page should be known by then; after that the guest may try again. */
const READY_MS = 20_000;

/** @param {string} store @param {string} order */
const wishName = (store, order) => `paying|${store}/${order}`;
/** @param {string} store @param {string} payment */
const tripName = (store, payment) => `pay|${store}/${payment}`;

/**
 * @typedef {object} Trip  to a gateway's page and back
 * @property {string} feed   that has the order's copy
 * @property {string} page   where the guest came from
 * @property {string} entity id of the order in that feed
 * @property {string} order
 * @property {string} payer
 * @property {string} method
 * @property {{code: string, detail: string} | null} [refused]  what the shop said to the approval
 */

/** @param {string} store @param {string} payment @returns {Trip | null} */
export function tripOf(store, payment) {
  return recall(tripName(store, payment));
}

/** @param {string} store @param {string} payment @param {Trip} trip */
export function noteTrip(store, payment, trip) {
  remember(tripName(store, payment), trip);
}

/**
 * @param {object} options
 * @param {import("../onda.js").Client} options.client
 * @param {string} options.feed
 * @param {string} [options.page]  to come back to
 * @param {(command: string, body: any, feed: string) => any} options.send
 * @param {() => void} options.failed  the gateway's page did not become ready
 */
export function payFlow({ client, feed, page = location.pathname, send, failed }) {
  client.on("sent", ({ entry, answer }) => {
    if (entry.command !== "prepare-payment") return;
    const name = wishName(entry.feed.split("/")[1], entry.body.order);
    const wish = recall(name);
    if (wish) remember(name, { ...wish, payment: answer.result?.payment });
    look();
  });
  client.on("refused", ({ entry }) => {
    if (entry.command === "prepare-payment") forget(wishName(entry.feed.split("/")[1], entry.body.order));
  });
  client.on("change", () => look());

  /** Go, if a payment that was asked for is ready. */
  function look() {
    for (const [entity, order] of Object.entries(client.state.orders ?? {})) {
      const store = order.store ?? feed.split("/")[1];
      const wish = recall(wishName(store, order.order));
      if (!wish) continue;
      const { payment } = order;
      const ready = payment?.status === "PENDING" && payment.payment === wish.payment && payment.checkout;
      if (ready) leave(store, entity, order, wish.payer);
      else if (Date.now() - wish.at > READY_MS && !isPreparing(order.order)) {
        forget(wishName(store, order.order));
        failed();
      }
    }
  }

  /** @param {string} store @param {string} entity @param {any} order @param {string} payer */
  function leave(store, entity, order, payer) {
    const { payment, checkout, method } = order.payment;
    forget(wishName(store, order.order));
    noteTrip(store, payment, { feed, page, entity, order: order.order, payer, method });
    if (isPage(checkout)) location.assign(checkout);
    else failed();
  }

  /** @param {string} order */
  function isPreparing(order) {
    return client.pending.some(({ command, body }) => command === "prepare-payment" && body.order === order);
  }

  /** @param {string} payment */
  function isApproving(payment) {
    return client.pending.some(
      ({ command, body }) => command === "approve-payment" && body.payment === payment,
    );
  }

  return {
    look,
    /** @param {string} store @param {any} order @param {string} payer @param {string} method */
    start(store, order, payer, method) {
      remember(wishName(store, order.order), { at: Date.now(), payer });
      const before = order.payment?.status === "PENDING" ? order.payment.payment : null;
      // A page that this guest has seen already takes nobody any more: ask for another one.
      const left = before !== null && tripOf(store, before) !== null && !isApproving(before);
      const instead = left ? { instead_of: before } : {};
      const body = { order: order.order, amount: order.total, payer, method, ...instead };
      if (!send("prepare-payment", body, `stores/${store}`)) forget(wishName(store, order.order));
    },
    /** A tap on "pay" is being worked on. @param {string} store @param {any} order */
    isStarting: (store, order) => recall(wishName(store, order.order)) !== null || isPreparing(order.order),
  };
}

/** A gateway's page, if that is an address to go to. @param {string} checkout */
function isPage(checkout) {
  return URL.canParse(checkout) && ["https:", "http:"].includes(new URL(checkout).protocol);
}
