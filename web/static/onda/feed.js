/**
 * Follows one feed for ever: sync, then stream; when the stream ends, sync again, and poll until it is back.
 *
 * The order is the guarantee. A sync comes before every connect, so what was missed is known before anything
 * new arrives; events are counted by version, so a hole or a repeat sends us back to sync instead of onto the
 * screen; and the same sync, asked to wait, is the fallback while streams do not work. There is one loop and
 * no second path.
 */

import { Link } from "./link.js";
import { checked, deadline, Denied, HttpError, Restart, Silence } from "./requests.js";
import { Replica, VersionError } from "./replica.js";
import { SseParser } from "./sse.js";
import { jitter, Pause } from "./timing.js";

/** Every time is in ms. */
export const SETTINGS = {
  /** How long a lost stream goes unmentioned. */
  graceMs: 3_000,
  /** Silence that counts as a dead link: two pings of 15 s missed. */
  watchdogMs: 30_000,
  /** A stream that has not sent its first byte by then is given up. */
  openMs: 10_000,
  /** Deadline of a sync, beyond the wait that it asks for. */
  syncMs: 10_000,
  /** Longest wait of one poll (the server allows 30 s). Kept below half of `watchdogMs`. */
  pollWaitMs: 25_000,
  backoffBaseMs: 500,
  backoffCapMs: 10_000,
  /** A stream that lived this long was a good one: the next failure starts from the first step again. */
  stableMs: 5_000,
  /** How often a refused token, or a shop that does not exist, is tried again. */
  deniedMs: 60_000,
  /** Give the connection back when the page was hidden for so long. Infinity: never. */
  pauseHiddenMs: Infinity,
};

/** Shortest time between two polls that brought something, so that a busy feed is taken in batches. */
const POLL_GAP_MS = 250;
/** A timer that is late by so much means that this device slept. */
const SLEPT_MS = 5_000;
const SSE = "text/event-stream";

export class Feed {
  replica = new Replica();
  /** @type {import("./link.js").Status} */
  status = "reconnecting";
  /**
   * Why it is not live: `silent`, `late`, `unauthorized`, `not_found`; or, while it is, `read_only`: no
   * commands are taken at the moment.
   * @type {string | null}
   */
  reason = null;
  link;

  #options;
  #settings;
  #closed = false;
  #synced = false;
  #attempts = 0;
  #lastTick = Date.now();
  #lastPoke = 0;
  /** What goes on now, to be cut short. @type {AbortController | null} */
  #current = null;
  #pause = new Pause();
  #hurry = false;
  /** A ping named this cursor, which has not come by yet. @type {string | null} */
  #awaited = null;
  /** @type {ReturnType<typeof setInterval> | undefined} */
  #timer;

  /**
   * @param {object} options
   * @param {string} options.url  of the feed, without `/sync` or `/stream`
   * @param {() => Record<string, string>} options.headers
   * @param {Partial<typeof SETTINGS>} options.settings
   * @param {import("./timing.js").ServerClock} options.clock
   * @param {(name: string, detail?: any) => void} options.emit
   */
  constructor(options) {
    this.#options = options;
    this.#settings = { ...SETTINGS, ...options.settings };
    this.link = new Link(this.#settings);
  }

  start() {
    this.#timer = setInterval(() => this.#tick(), Math.min(1_000, this.#settings.watchdogMs / 4));
    void this.#run();
  }

  close() {
    this.#closed = true;
    clearInterval(this.#timer);
    this.#interrupt("closed");
  }

  /**
   * Go round now: look whether the stream is alive if it seems so, end any wait if it is not.
   * @param {boolean} [force]  drop even a stream that looks alive
   */
  poke(force = false) {
    const now = Date.now();
    const must = force || this.link.asleep;
    this.link.asleep = false;
    if (!must && now - this.#lastPoke < (this.link.refusal ? 5_000 : 1_000)) return;
    this.#lastPoke = now;
    if (this.link.streaming && !must && !this.link.silent()) {
      void this.#probe();
      return;
    }
    this.#hurry = true;
    this.#attempts = 0;
    this.#interrupt("poked");
  }

  /** Give the connection back until the next poke. */
  sleep() {
    this.link.asleep = true;
    this.#interrupt("asleep");
  }

  /** @param {string} why */
  #interrupt(why) {
    this.#current?.abort(new Restart(why));
    this.#pause.poke();
  }

  async #run() {
    while (!this.#closed) {
      if (this.link.asleep) {
        this.#assess();
        await this.#pause.wait(Infinity); // until the page is looked at again
      } else {
        await this.#bridge(await this.#attempt());
      }
    }
  }

  /** One round. Returns how long to wait before the next. */
  async #attempt() {
    this.#hurry = false;
    try {
      await this.#sync(0);
      return await this.#stream();
    } catch (error) {
      return this.#failed(error);
    } finally {
      this.#assess();
    }
  }

  /** @param {unknown} error @returns {number} */
  #failed(error) {
    if (this.#closed || error instanceof Restart) return 0;
    if (error instanceof Denied) {
      this.link.refused("unauthorized");
      return this.#settings.deniedMs;
    }
    this.#options.emit("trouble", error);
    const wait = this.#backoff();
    if (!(error instanceof HttpError)) return wait;
    if (error.status === 404) {
      this.link.refused("not_found");
      return this.#settings.deniedMs;
    }
    if (error.status === 400) this.replica.cursor = null; // not a cursor to this server
    return Math.max(wait, error.retryAfterMs);
  }

  #backoff() {
    const { backoffBaseMs, backoffCapMs } = this.#settings;
    this.#attempts += 1;
    return jitter(this.#attempts - 1, backoffBaseMs, backoffCapMs);
  }

  /**
   * Get up to date, waiting up to `waitMs` on the server if there is nothing new yet.
   * @param {number} waitMs
   * @returns {Promise<number>} how many events came; 1 for a snapshot
   */
  async #sync(waitMs) {
    let taken = 0;
    for (let more = true; more;) {
      const awayMs = this.link.awayMs();
      const waitS = taken ? 0 : Math.floor(waitMs / 1000);
      const limit = deadline(this.#settings.syncMs + waitS * 1000);
      this.#current = limit.controller;
      try {
        const page = await this.#page(waitS, limit.signal);
        this.link.answered();
        more = page.mode === "delta" && page.more === true;
        taken += this.#take(page, awayMs);
      } catch (error) {
        if (!(error instanceof Restart)) this.link.reachable = false;
        throw error;
      } finally {
        limit.done();
      }
    }
    return taken;
  }

  /** @param {number} waitS @param {AbortSignal} signal @returns {Promise<any>} */
  async #page(waitS, signal) {
    const query = new URLSearchParams();
    if (this.replica.cursor !== null) query.set("after", this.replica.cursor);
    if (waitS > 0) query.set("wait", String(waitS));
    const response = checked(await this.#get(`/sync?${query}`, signal, "application/json"));
    this.#options.clock.read(response.headers.get("Date"), false);
    return response.json();
  }

  /**
   * Apply a page of sync.
   * @param {any} page
   * @param {number} awayMs
   * @returns {number}
   */
  #take(page, awayMs) {
    const first = !this.#synced;
    try {
      if (page.mode === "snapshot") this.replica.replace(page);
      else for (const envelope of page.events) this.#apply(envelope, false);
      this.#synced = true;
      this.replica.cursor = page.cursor;
    } catch (error) {
      this.replica.cursor = null; // even sync has a hole: only a snapshot can be trusted now
      throw error;
    } finally {
      this.#changed();
    }
    const reset = page.mode === "snapshot";
    const events = reset ? 0 : page.events.length;
    if (reset && !first) this.#options.emit("reset", { reason: page.reset?.reason ?? "snapshot" });
    if (!first && (reset || events > 0)) this.#options.emit("resync", { events, reset, awayMs });
    return reset ? 1 : events;
  }

  /** Poll, or just wait, until the stream is to be tried again. @param {number} ms */
  async #bridge(ms) {
    const end = Date.now() + ms;
    const { pollWaitMs, watchdogMs } = this.#settings;
    while (!this.#closed && !this.link.asleep && !this.#hurry && Date.now() < end) {
      this.#assess();
      const left = end - Date.now();
      if (!this.link.reachable) {
        await this.#pause.wait(left);
        continue;
      }
      const began = Date.now();
      const taken = await this.#poll(Math.min(left, pollWaitMs, watchdogMs / 2));
      const gap = taken > 0 ? POLL_GAP_MS : 1_000 - (Date.now() - began);
      if (!this.#hurry) await this.#pause.wait(Math.max(0, Math.min(gap, end - Date.now())));
    }
  }

  /** @param {number} waitMs */
  async #poll(waitMs) {
    try {
      return await this.#sync(waitMs);
    } catch (error) {
      if (error instanceof Denied) this.link.refused("unauthorized");
      return 0;
    }
  }

  /**
   * The stream looks alive: ask sync whether it is. If there is something that the stream did not bring, it
   * is not.
   */
  async #probe() {
    const before = this.replica.cursor;
    const limit = deadline(this.#settings.syncMs);
    try {
      const page = await this.#page(0, limit.signal);
      if (page.mode === "delta" && page.events.length === 0) return;
    } catch {
      // No answer: the round that follows will say why.
    } finally {
      limit.done();
    }
    if (this.link.streaming && this.replica.cursor === before) this.poke(true);
  }

  /** Read the stream to its end. Returns how long to wait before the next one. */
  async #stream() {
    const limit = deadline(this.#settings.openMs);
    this.#current = limit.controller;
    /** @type {{bye: any, retryMs: number}} */
    const end = { bye: null, retryMs: 0 };
    const parser = new SseParser({
      event: (type, data) => {
        if (type === "bye") end.bye = JSON.parse(data);
        else this.#message(type, JSON.parse(data));
      },
      id: (id) => (this.replica.cursor = id || this.replica.cursor),
      retry: (ms) => (end.retryMs = ms),
    });
    const began = Date.now();
    try {
      const reader = await this.#open(limit.signal);
      while (end.bye === null) {
        const { done, value } = await reader.read();
        if (done) break;
        limit.done();
        this.#hear(parser, value);
      }
    } finally {
      limit.done();
      this.link.lost(limit.signal.reason instanceof Silence);
      limit.controller.abort(new Restart("done"));
      this.#awaited = null;
      if (Date.now() - began >= this.#settings.stableMs) this.#attempts = 0;
    }
    if (end.bye?.reason === "unauthorized") throw new Denied("the token was revoked or has expired");
    const asked = end.bye?.retry_ms ?? end.retryMs;
    return Date.now() - began >= this.#settings.stableMs ? asked : Math.max(asked, this.#backoff());
  }

  /** @param {AbortSignal} signal */
  async #open(signal) {
    const query = new URLSearchParams({ after: this.replica.cursor ?? "" });
    const response = checked(await this.#get(`/stream?${query}`, signal, SSE));
    const type = response.headers.get("Content-Type") ?? "";
    if (!type.startsWith(SSE) || !response.body) throw new HttpError(response);
    return response.body.getReader();
  }

  /** @param {SseParser} parser @param {Uint8Array} bytes */
  #hear(parser, bytes) {
    if (this.link.streaming) this.link.heard();
    else this.link.opened();
    try {
      parser.push(bytes);
    } finally {
      this.#changed();
      this.#assess();
    }
  }

  /** @param {string} type @param {any} data */
  #message(type, data) {
    if (type === "message") {
      this.#apply(data, true);
    } else if (type === "snapshot" || type === "reset") {
      this.replica.replace(data);
      this.#awaited = null;
      this.#options.emit("reset", { reason: data.reason ?? "snapshot" });
    } else if (type === "ping") {
      this.#options.clock.read(data.time);
      this.link.writable = data.writable !== false;
      // A ping names the head. One that was not reached by the next ping was lost on the way.
      if (this.#awaited !== null) throw new VersionError(`${this.#awaited} never came`);
      if (data.cursor && data.cursor !== this.replica.cursor) this.#awaited = data.cursor;
    }
  }

  /** @param {import("./replica.js").Envelope} envelope @param {boolean} live */
  #apply(envelope, live) {
    this.replica.apply(envelope);
    if (envelope.cursor === this.#awaited) this.#awaited = null;
    this.#options.emit("event", { envelope, live });
  }

  #changed() {
    const collections = this.replica.takeChanges();
    if (collections.size > 0) this.#options.emit("change", { collections });
  }

  #tick() {
    const now = Date.now();
    const slept = now - this.#lastTick > 1_000 + SLEPT_MS;
    this.#lastTick = now;
    if (this.link.streaming && this.link.silent())
      this.#current?.abort(new Silence("the stream went silent"));
    else if (slept && !this.link.asleep) this.poke();
    this.#assess();
  }

  #assess() {
    const [status, reason] = this.link.judge();
    if (this.#closed || (status === this.status && reason === this.reason)) return;
    this.status = status;
    this.reason = reason;
    this.#options.emit("status", { status, reason });
  }

  /** @param {string} path @param {AbortSignal} signal @param {string} accept */
  #get(path, signal, accept) {
    return fetch(this.#options.url + path, {
      headers: { ...this.#options.headers(), Accept: accept },
      cache: "no-store",
      credentials: "same-origin",
      signal,
    });
  }
}
