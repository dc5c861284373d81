/**
 * What each gateway appends to the address that it sends a guest back to.
 */

/**
 * Read the reference with which the shop asks the gateway to charge; "" when the guest did not pay there.
 * @param {string} method
 * @param {URLSearchParams} query
 * @returns {{ref: string, code: string, message: string}}
 */
export function providerRef(method, query) {
  const get = (/** @type {string} */ name) => query.get(name) ?? "";
  const [code, message] = [get("code"), get("message")];
  switch (method) {
    case "toss":
      return { ref: get("paymentKey"), code, message };
    case "naverpay":
      return {
        ref: get("resultCode") === "Success" ? get("paymentId") : "",
        code: get("resultCode"),
        message: get("resultMessage"),
      };
    case "kakaopay":
      return { ref: get("pg_token"), code, message };
    default:
      return { ref: get("ref"), code, message };
  }
}
