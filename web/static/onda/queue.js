/**
 * Sends commands in order and gives up on none: each waits in storage until the server has answered it.
 *
 * A command leaves the queue by a 2xx, by a definite refusal (handed back to the page), or because it grew so
 * old that its sender cannot mean it any more. Network errors, 408, 425, 429 and 5xx are retried with the
 * same idempotency key, so that a try whose answer was lost is not a second order.
 */

import { Outbox } from "./outbox.js";
import { deadline, uuid } from "./requests.js";
import { jitter, Pause, retryAfterMs } from "./timing.js";
import { inTurn } from "./turn.js";

/** Every time is in ms. */
export const SETTINGS = {
  /** Most commands that wait at once. */
  unsentMax: 500,
  /** Older ones are handed back instead of sent. Below 24 h, for which the server keeps idempotency keys. */
  unsentAgeMs: 12 * 3_600_000,
  sendMs: 15_000,
  sendBackoffBaseMs: 500,
  sendBackoffCapMs: 15_000,
  /** Tries of a command at which the server itself crashes, before it stops holding up the others. */
  crashTriesMax: 5,
  /** How often a token that was refused is tried again. */
  deniedMs: 60_000,
};

const RETRIED = new Set([408, 425, 429]);
/** How many answered commands are remembered, against tabs whose view of storage is a moment old. */
const ANSWERED_MAX = 200;

/** @typedef {import("./outbox.js").Entry} Entry */
/** @typedef {{status: number, code: string, detail: string}} Problem  as in the server's problem+json */
/** @typedef {{ok: true, answer: any} | {ok: false, problem: Problem}} Settled */

/** There are too many unsent commands, or the browser cannot store one more: this one was not taken. */
export class QueueFull extends Error {}

export class Queue {
  #options;
  #settings;
  #name;
  #outbox;
  #closed = false;
  #running = false;
  #pause = new Pause();
  #hurry = false;
  #tries = 0;
  #crashes = 0;
  /** Of commands that this page added. @type {Map<string, (settled: Settled) => void>} */
  #waiting = new Map();
  /** What `unsent` said; null when storage has to be read again. @type {Entry[] | null} */
  #known = null;
  /** Keys of commands that were answered lately. @type {Set<string>} */
  #answeredKeys = new Set();
  /** Tells this queue's other tabs what became of a command. @type {BroadcastChannel | null} */
  #channel = null;

  /**
   * @param {object} options
   * @param {string} options.name      whose queue it is: one per caller and feed
   * @param {Storage} options.storage
   * @param {string} options.base      where `/v1/…` is
   * @param {() => Record<string, string>} options.headers
   * @param {Partial<typeof SETTINGS>} options.settings
   * @param {(name: string, detail?: any) => void} options.emit
   */
  constructor(options) {
    this.#options = options;
    this.#settings = { ...SETTINGS, ...options.settings };
    this.#name = `onda.queue|${options.name}`;
    this.#outbox = new Outbox(options.name, options.storage);
    if (typeof BroadcastChannel !== "undefined") {
      this.#channel = new BroadcastChannel(this.#name);
      this.#channel.onmessage = ({ data }) => this.#settle(data.entry, data.settled);
    }
  }

  /** Commands without an answer, oldest first, the one in flight included. @returns {readonly Entry[]} */
  get unsent() {
    this.#known ??= this.#outbox.list().map(({ entry }) => entry);
    return this.#known;
  }

  /** Another tab changed what is in storage. @param {string | null} name */
  noticed(name) {
    if (!this.#outbox.owns(name)) return;
    this.#changed();
    this.start();
  }

  /**
   * @param {string} command
   * @param {Record<string, any>} body
   * @param {string} feed
   * @returns {{entry: Entry, settled: Promise<Settled>}}
   * @throws {QueueFull}
   */
  add(command, body, feed) {
    if (this.unsent.length >= this.#settings.unsentMax) {
      throw new QueueFull(`${this.#settings.unsentMax} commands are waiting to be sent already`);
    }
    const entry = { key: uuid(), feed, command, body, at: Date.now() };
    try {
      this.#outbox.add(entry);
    } catch (error) {
      throw new QueueFull("the browser's storage is full", { cause: error });
    }
    const settled = new Promise((resolve) => this.#waiting.set(entry.key, resolve));
    this.#changed();
    this.start();
    return { entry, settled };
  }

  /** Send what there is, if that is not going on already. */
  start() {
    if (!this.#running && !this.#closed && this.#outbox.list().length > 0) void this.#run();
  }

  /** The server is back, or the token is new: do not wait for the next try. */
  poke() {
    this.#hurry = true; // also for a try whose answer is still to come
    this.#pause.poke();
    this.start();
  }

  close() {
    this.#closed = true;
    this.#pause.poke();
    this.#channel?.close();
  }

  async #run() {
    this.#running = true;
    try {
      while (!this.#closed && this.#outbox.list().length > 0) {
        let wait = 0;
        this.#hurry = false;
        await inTurn(`${this.#name}|turn`, this.#options.storage, this.#settings.sendMs * 2, async () => {
          wait = await this.#sendFirst();
        });
        if (wait > 0 && !this.#closed && !this.#hurry) await this.#pause.wait(wait);
      }
    } finally {
      this.#running = false;
    }
  }

  /** Send the oldest command. Returns how long to wait before the next try; 0 when it is done with. */
  async #sendFirst() {
    const first = this.#outbox.list()[0];
    if (!first || this.#closed) return 0;
    const { name, entry } = first;
    if (this.#answeredKeys.has(entry.key)) {
      this.#outbox.remove(name); // by another tab, while we waited for our turn
      this.#changed();
      return 0;
    }
    if (Date.now() - entry.at > this.#settings.unsentAgeMs) {
      return this.#done(
        name,
        entry,
        refusal(0, "stale", "It waited too long to be sent and was given back."),
      );
    }
    const limit = deadline(this.#settings.sendMs);
    try {
      const response = await this.#post(entry, limit.signal);
      const body = await response.json().catch(() => null);
      return this.#answered(name, entry, response, body);
    } catch (error) {
      this.#options.emit("trouble", error);
      return this.#backoff(0);
    } finally {
      limit.done();
    }
  }

  /** @param {string} name @param {Entry} entry @param {Response} response @param {any} body */
  #answered(name, entry, response, body) {
    const { status } = response;
    if (response.ok) return this.#done(name, entry, { ok: true, answer: body ?? {} });
    if (status === 401) {
      this.#options.emit("unauthorized");
      return this.#settings.deniedMs;
    }
    if (status >= 500 && body?.code === "internal") this.#crashes += 1;
    const hopeless = this.#crashes >= this.#settings.crashTriesMax;
    if ((status >= 500 || RETRIED.has(status)) && !hopeless) return this.#backoff(retryAfterMs(response));
    return this.#done(
      name,
      entry,
      refusal(status, body?.code ?? `http_${status}`, body?.detail ?? body?.title ?? ""),
    );
  }

  /** @param {number} askedMs */
  #backoff(askedMs) {
    const { sendBackoffBaseMs, sendBackoffCapMs } = this.#settings;
    const wait = jitter(this.#tries, sendBackoffBaseMs, sendBackoffCapMs);
    this.#tries += 1;
    return Math.max(wait, askedMs);
  }

  /** @param {string} name @param {Entry} entry @param {Settled} settled */
  #done(name, entry, settled) {
    this.#tries = 0;
    this.#crashes = 0;
    this.#outbox.remove(name);
    this.#known = null;
    this.#settle(entry, settled);
    this.#channel?.postMessage({ entry, settled });
    return 0;
  }

  /** @param {Entry} entry @param {Settled} settled */
  #settle(entry, settled) {
    if (this.#answeredKeys.has(entry.key)) return;
    this.#answeredKeys.add(entry.key);
    if (this.#answeredKeys.size > ANSWERED_MAX) {
      this.#answeredKeys.delete(/** @type {string} */ (this.#answeredKeys.values().next().value));
    }
    const mine = this.#waiting.has(entry.key);
    if (settled.ok) this.#options.emit("sent", { entry, answer: settled.answer, mine });
    else this.#options.emit("refused", { entry, problem: settled.problem, mine });
    this.#waiting.get(entry.key)?.(settled);
    this.#waiting.delete(entry.key);
    this.#changed();
  }

  #changed() {
    this.#known = null;
    this.#options.emit("queue");
  }

  /** @param {Entry} entry @param {AbortSignal} signal */
  #post(entry, signal) {
    return fetch(`${this.#options.base}/v1/${entry.feed}/${entry.command}`, {
      method: "POST",
      headers: {
        ...this.#options.headers(),
        "Content-Type": "application/json",
        "Idempotency-Key": entry.key,
      },
      body: JSON.stringify(entry.body),
      credentials: "same-origin",
      signal,
    });
  }
}

/** @param {number} status @param {string} code @param {string} detail @returns {Settled} */
function refusal(status, code, detail) {
  return { ok: false, problem: { status, code, detail } };
}
