/**
 * What is new on the board: orders and calls as they come, and which of them came while nobody could see
 * them.
 */

import { Emitter } from "../onda/timing.js";
import { UNPAID } from "../ui/money.js";

/** An outage of this length is worth telling: what came in it is listed. */
const AWAY_MS = 3_000;

/** @param {import("../onda.js").Client} client */
export function arrivals(client) {
  const emitter = new Emitter();
  /** @type {Set<string>} */
  const known = new Set();
  /** @type {Set<string>} */
  const rang = new Set();
  /** @type {Set<string>} */
  const missed = new Set();
  let first = true;
  /** New at the last look, in case a resync says that they came while we were away. @type {string[]} */
  let latest = [];

  client.on("change", ({ collections }) => {
    if (collections.has("orders"))
      latest = look(placed(), known, "order", (order) => order.status === "PLACED");
    queueMicrotask(() => (latest = [])); // a resync that brought them says so right after the change
    if (collections.has("calls")) look(client.state.calls ?? {}, rang, "call", () => true);
    first = false;
  });
  client.on("resync", ({ awayMs }) => {
    if (awayMs >= AWAY_MS) for (const name of latest) missed.add(name);
  });

  /**
   * @param {Record<string, any>} entities
   * @param {Set<string>} seen
   * @param {string} what
   * @param {(entity: any) => boolean} wanted
   */
  function look(entities, seen, what, wanted) {
    const fresh = Object.keys(entities).filter((name) => !seen.has(name));
    for (const name of seen) if (!(name in entities)) seen.delete(name);
    for (const name of fresh) {
      seen.add(name);
      if (!first && wanted(entities[name])) emitter.emit(what, entities[name]);
    }
    return first ? [] : fresh;
  }

  /** Orders that the kitchen has: those that wait for their payment are none yet. */
  function placed() {
    return Object.fromEntries(Object.entries(orders()).filter(([, order]) => !UNPAID.includes(order.status)));
  }

  function orders() {
    return client.state.orders ?? {};
  }

  return {
    /** @param {"order" | "call"} name @param {(entity: any) => void} listener */
    on: (name, listener) => emitter.on(name, listener),
    /** Orders that nobody has accepted, and for which no tap is on its way. */
    unaccepted() {
      const touched = new Set(client.pending.map((entry) => entry.body.order));
      return Object.values(orders()).filter(
        (order) => order.status === "PLACED" && !touched.has(order.order),
      );
    },
    /** Orders that came while away and are still to be looked at. */
    away: () => [...missed].map((name) => orders()[name]).filter((order) => order && !order.closed_at),
    /** @param {string} name */
    isAway: (name) => missed.has(name),
    seen: () => missed.clear(),
  };
}
