/**
 * What operators look at, asked for again and again: the newest answers, how old they are, and what went
 * wrong.
 */

import { checked, deadline, Denied, uuid } from "../onda/requests.js";
import { ServerClock } from "../onda/timing.js";

/** Between two rounds of questions. */
const EVERY_MS = 5_000;
const ASK_MS = 10_000;
/** Answers older than this are told to be stale. */
const STALE_MS = 3 * EVERY_MS;
const PAGES = ["payments", "parked", "reactions", "streams"];

export class Source {
  /** The newest answer of each page. @type {Record<string, any>} */
  pages = {};
  /** When the last complete round came in, on this device's clock. @type {number | null} */
  heardAt = null;
  /** The token does not allow this. */
  denied = false;

  #token;
  #changed;
  #clock = new ServerClock();
  #asking = false;

  /** @param {string} token @param {() => void} changed */
  constructor(token, changed) {
    this.#token = token;
    this.#changed = changed;
  }

  start() {
    setInterval(() => void this.refresh(), EVERY_MS);
    document.addEventListener("visibilitychange", () => void this.refresh());
    addEventListener("online", () => void this.refresh());
    void this.refresh();
  }

  /** Ms since the last round; null before the first. */
  get age() {
    return this.heardAt === null ? null : Date.now() - this.heardAt;
  }

  get stale() {
    return this.age !== null && this.age > STALE_MS;
  }

  /** The server's time, in ms since 1970. */
  now() {
    return this.#clock.now();
  }

  /** Ask for everything now. */
  async refresh() {
    if (this.#asking || document.hidden) return;
    this.#asking = true;
    try {
      const answers = await Promise.all(PAGES.map((page) => this.#get(page)));
      this.pages = Object.fromEntries(PAGES.map((page, index) => [page, answers[index]]));
      this.heardAt = Date.now();
      this.denied = false;
    } catch (error) {
      this.denied = error instanceof Denied;
    } finally {
      this.#asking = false;
      this.#changed();
    }
  }

  /** @param {string} page */
  async #get(page) {
    const limit = deadline(ASK_MS);
    try {
      const response = checked(
        await fetch(`/v1/ops/${page}`, { headers: this.#headers(), cache: "no-store", signal: limit.signal }),
      );
      this.#clock.read(response.headers.get("Date"), false);
      return await response.json();
    } finally {
      limit.done();
    }
  }

  /**
   * Do something, and look at what became of it.
   * @param {string} path after `/v1/`
   * @param {any} [body]
   * @returns {Promise<{ok: boolean, problem: {code: string, detail: string}}>}
   */
  async post(path, body = {}) {
    const limit = deadline(ASK_MS);
    try {
      const response = await fetch(`/v1/${path}`, {
        method: "POST",
        headers: { ...this.#headers(), "Content-Type": "application/json", "Idempotency-Key": uuid() },
        body: JSON.stringify(body),
        signal: limit.signal,
      });
      const answer = await response.json().catch(() => ({}));
      return { ok: response.ok, problem: { code: answer.code ?? "", detail: answer.detail ?? "" } };
    } catch {
      return { ok: false, problem: { code: "lost", detail: "" } };
    } finally {
      limit.done();
      void this.refresh();
    }
  }

  #headers() {
    return /** @type {Record<string, string>} */ (
      this.#token ? { Authorization: `Bearer ${this.#token}` } : {}
    );
  }
}
