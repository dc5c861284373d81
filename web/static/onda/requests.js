/**
 * HTTP as the client needs it: every request has a deadline, and failures are of four kinds.
 */

import { retryAfterMs } from "./timing.js";

/** 401 or 403: this token may not do this. */
export class Denied extends Error {}

/** The server answered, but not with what was asked for. */
export class HttpError extends Error {
  /** @param {Response} response */
  constructor(response) {
    super(`HTTP ${response.status}`);
    this.status = response.status;
    this.retryAfterMs = retryAfterMs(response);
  }
}

/** Somebody wants the loop to go round at once: the device woke, the network came back, a new token. */
export class Restart extends Error {}

/** Nothing arrived for too long. */
export class Silence extends Error {}

/** @param {Response} response @returns {Response} */
export function checked(response) {
  if (response.status === 401 || response.status === 403) throw new Denied(`HTTP ${response.status}`);
  if (!response.ok) throw new HttpError(response);
  return response;
}

/**
 * A controller that aborts by itself with `Silence` after `ms`, unless `done()` is called before.
 * @param {number} ms
 */
export function deadline(ms) {
  const controller = new AbortController();
  const timer = setTimeout(() => controller.abort(new Silence(`nothing for ${ms} ms`)), ms);
  return { controller, signal: controller.signal, done: () => clearTimeout(timer) };
}

/** A fresh id, also where `crypto.randomUUID` is missing (plain http on a shop's network). */
export function uuid() {
  if (typeof crypto.randomUUID === "function") return crypto.randomUUID();
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const hex = [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}
