/**
 * Which step comes next for an order, also while taps are still on their way to the server.
 */

/**
 * The step that the big button offers, and what it makes of the order.
 * @type {Record<string, [string, string]>}
 */
export const STEPS = {
  PLACED: ["accept-order", "ACCEPTED"],
  ACCEPTED: ["start-cooking", "COOKING"],
  COOKING: ["mark-ready", "READY"],
  READY: ["mark-served", "SERVED"],
};
/** The other buttons. @type {Record<string, string[]>} */
export const OTHERS = {
  PLACED: ["reject-order"],
  ACCEPTED: ["mark-ready", "cancel-order"],
  COOKING: ["cancel-order"],
  READY: ["recall-order"],
};
/** What each tap makes of an order. @type {Record<string, string>} */
const LEADS_TO = {
  "accept-order": "ACCEPTED",
  "start-cooking": "COOKING",
  "mark-ready": "READY",
  "mark-served": "SERVED",
  "reject-order": "REJECTED",
  "cancel-order": "CANCELLED",
};

/**
 * The step that comes next for an order, counting taps that are still on their way while the server cannot be
 * reached.
 * @param {import("../onda.js").Client} client @param {any} order @returns {string | undefined}
 */
export function nextStep(client, order) {
  const waiting = pendingOf(client, order.order);
  if (waiting.length > 0 && client.status === "live") return undefined; // answered in a moment: no second tap
  return STEPS[statusToBe(client, order)]?.[0];
}

/**
 * The status that an order will have when the taps on their way are there.
 * @param {import("../onda.js").Client} client @param {any} order @returns {string}
 */
export function statusToBe(client, order) {
  const { status } = order;
  return pendingOf(client, order.order).reduce((now, { command }) => {
    if (command === "recall-order") return now === "SERVED" ? "READY" : "COOKING";
    return LEADS_TO[command] ?? now;
  }, status);
}

/** @param {import("../onda.js").Client} client @param {string} name */
export function pendingOf(client, name) {
  return client.pending.filter((entry) => entry.body.order === name);
}
