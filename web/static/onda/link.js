/**
 * What is known about the way to the server, and the one word that a screen shows for it.
 */

/** @typedef {"live" | "polling" | "reconnecting" | "offline" | "paused"} Status */

/** Part of the watchdog's time after which a silent stream is called late: one ping was missed. */
const LATE = 0.6;

export class Link {
  /** When the server was last heard, on this device's clock. @type {number | null} */
  heardAt = null;
  /** A stream is open and has sent something. */
  streaming = false;
  /** The last plain request was answered. */
  reachable = false;
  /** Nobody looks: the connection was given back. */
  asleep = false;
  /** The server takes commands; a stream says so at its beginning, and when it changes, if it does not. */
  writable = true;
  /** `unauthorized` or `not_found`. @type {string | null} */
  refusal = null;

  #graceMs;
  #watchdogMs;
  #everLive = false;
  #startedAt = Date.now();
  #downSince = Date.now();
  #contactAt = Date.now();

  /** @param {{graceMs: number, watchdogMs: number}} settings */
  constructor({ graceMs, watchdogMs }) {
    this.#graceMs = graceMs;
    this.#watchdogMs = watchdogMs;
  }

  heard() {
    this.heardAt = this.#contactAt = Date.now();
    this.refusal = null;
  }

  answered() {
    this.heard();
    this.reachable = true;
  }

  opened() {
    this.heard();
    this.streaming = true;
    this.writable = true;
    this.#everLive = true;
  }

  /** @param {boolean} silent  it was not ended, it went dumb: contact was lost when it was last heard */
  lost(silent) {
    if (!this.streaming) return;
    this.streaming = false;
    this.#downSince = Date.now();
    if (!silent) this.#contactAt = this.#downSince;
  }

  /** @param {string} reason */
  refused(reason) {
    this.refusal = reason;
    this.reachable = false;
  }

  /** For how long this screen could not have known what happened. */
  awayMs() {
    return this.#everLive ? Date.now() - this.#contactAt : 0;
  }

  /** Whether the watchdog's time has passed without a sign of life. */
  silent() {
    return this.#silentMs() >= this.#watchdogMs;
  }

  /**
   * Short cuts are nobody's business: a stream that was lost moments ago still counts as live.
   * @returns {[Status, string | null]}
   */
  judge() {
    if (this.refusal !== null) return ["offline", this.refusal];
    if (this.asleep) return ["paused", null];
    if (this.silent()) return ["offline", "silent"];
    const live = /** @type {[Status, string | null]} */ (["live", this.writable ? null : "read_only"]);
    if (this.streaming) return this.#silentMs() > this.#watchdogMs * LATE ? ["reconnecting", "late"] : live;
    if (Date.now() - this.#downSince < this.#graceMs) return this.#everLive ? live : ["reconnecting", null];
    return [this.reachable ? "polling" : "reconnecting", null];
  }

  #silentMs() {
    return Date.now() - (this.heardAt ?? this.#startedAt);
  }
}
