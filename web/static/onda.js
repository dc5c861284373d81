/**
 * The browser client: `open()` gives a live copy of one feed and a way to send commands that survives the
 * network.
 *
 *     import { open } from "/static/onda.js";
 *     const shop = open({ feed: "stores/s1", token });
 *     shop.on("change", () => draw(shop.state.orders));
 *     shop.send("accept-order", { order: "o17" });
 *
 * No build step, no dependencies. `docs/client.md` describes it.
 */

import { Feed, SETTINGS as FEED_SETTINGS } from "./onda/feed.js";
import { pageStorage } from "./onda/outbox.js";
import { Queue, QueueFull, SETTINGS as QUEUE_SETTINGS } from "./onda/queue.js";
import { Emitter, ServerClock } from "./onda/timing.js";

export { QueueFull };
export { SseParser } from "./onda/sse.js";
export const SETTINGS = { ...FEED_SETTINGS, ...QUEUE_SETTINGS };

/** A command that was acknowledged counts as pending until its events are here, or for so long. */
const SETTLE_MS = 2_000;
/** Commands whose events came lately, by key: as many as are remembered. */
const CAUSES_MAX = 500;

/**
 * @typedef {object} Options
 * @property {string} feed       `stores/s1`, `tables/s1/3` or `users/u1`
 * @property {string} [token]    sent as `Authorization: Bearer`; without one a cookie may do
 * @property {string} [base]     of the server, without a slash at the end; default: this page's own
 * @property {Storage} [storage] for unsent commands; default: `localStorage`
 * @property {Partial<typeof SETTINGS>} [settings]
 */

/** @param {Options} options @returns {Client} */
export function open(options) {
  return new Client(options);
}

/**
 * Events for `on`:
 *   change   `{collections: Set<string>}`       the state is another; once per batch
 *   event    `{envelope, live}`                 one event; `live` is false when sync brought it
 *   status   `{status, reason}`
 *   reset    `{reason}`                         the state was replaced: expired, epoch, ahead or snapshot
 *   resync   `{events, reset, awayMs}`          sync brought something; for `awayMs` nobody here could know
 *   queue    nothing                            `unsent` or `pending` is another
 *   sent     `{entry, answer, mine}`            a command was acknowledged (`mine`: sent from this page)
 *   refused  `{entry, problem, mine}`           a command was refused for good
 *   trouble  an Error                           for logs; the client goes on by itself
 */
export class Client {
  #emitter = new Emitter();
  #clock = new ServerClock();
  #token;
  #feedName;
  #feed;
  #queue;
  /**
   * Acknowledged, but their events are not here yet.
   * @type {Map<string, import("./onda/outbox.js").Entry>}
   */
  #settling = new Map();
  /** Keys of commands whose events are here: what they do shows, acknowledged or not. @type {Set<string>} */
  #causes = new Set();
  /** @type {AbortController} */
  #listening = new AbortController();
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #hiding;
  #hiddenAt = 0;

  /** When the last event was applied, on this device's clock. @type {number | null} */
  lastEventAt = null;
  /** Whether unsent commands outlive this page. */
  durable;

  /** @param {Options} options */
  constructor({ feed, token = "", base = "", storage, settings = {} }) {
    const own = storage ? { storage, durable: true } : pageStorage();
    this.durable = own.durable;
    this.#token = token;
    this.#feedName = feed;
    const shared = {
      headers: () => this.#headers(),
      settings,
      emit: (/** @type {string} */ name, /** @type {any} */ detail) => this.#emit(name, detail),
    };
    this.#feed = new Feed({ ...shared, url: `${base}/v1/${feed}`, clock: this.#clock });
    this.#queue = new Queue({
      ...shared,
      name: `${base}|${feed}|${caller(token)}`,
      storage: own.storage,
      base,
    });
    this.#listen(settings.pauseHiddenMs ?? FEED_SETTINGS.pauseHiddenMs);
    // Not at once: whoever opened it may still want to say what they listen to.
    queueMicrotask(() => {
      this.#feed.start();
      this.#queue.start();
    });
  }

  /** `{collection: {id: entity}}`. Read it, do not change it. */
  get state() {
    return this.#feed.replica.state;
  }

  get cursor() {
    return this.#feed.replica.cursor;
  }

  get version() {
    return this.#feed.replica.version;
  }

  get status() {
    return this.#feed.status;
  }

  /**
   * Why the status is what it is, if there is more to say: `silent`, `late`, `unauthorized`, `not_found`, and
   * with `live` `read_only`.
   */
  get reason() {
    return this.#feed.reason;
  }

  /** Ms since the server was last heard; null before that. */
  get age() {
    const { heardAt } = this.#feed.link;
    return heardAt === null ? null : Date.now() - heardAt;
  }

  /** The server's time, in ms since 1970. */
  now() {
    return this.#clock.now();
  }

  /** Commands without an answer, oldest first, the one in flight included. */
  get unsent() {
    return this.#queue.unsent.length;
  }

  /** Commands whose effect is not to be seen in `state` yet. */
  get pending() {
    return [...this.#queue.unsent.filter(({ key }) => !this.#causes.has(key)), ...this.#settling.values()];
  }

  /**
   * @param {string} name
   * @param {(detail: any) => void} listener
   * @returns {() => void} stops listening
   */
  on(name, listener) {
    return this.#emitter.on(name, listener);
  }

  /**
   * Queue a command. It is kept until the server has answered, also through a reload.
   * @param {string} command  in kebab-case
   * @param {Record<string, any>} [body]
   * @param {{feed?: string}} [options]  for a command to another stream than this feed's
   * @returns {{entry: import("./onda/outbox.js").Entry, settled: Promise<import("./onda/queue.js").Settled>}}
   * @throws {QueueFull} it was not taken
   */
  send(command, body = {}, { feed = this.#feedName } = {}) {
    return this.#queue.add(command, body, feed);
  }

  /** Try now, whatever is being waited for. */
  retry() {
    this.#feed.poke(true);
    this.#queue.poke();
  }

  /** @param {string} token */
  setToken(token) {
    this.#token = token;
    this.retry();
  }

  close() {
    clearTimeout(this.#hiding);
    this.#listening.abort();
    this.#feed.close();
    this.#queue.close();
  }

  #headers() {
    return /** @type {Record<string, string>} */ (
      this.#token ? { Authorization: `Bearer ${this.#token}` } : {}
    );
  }

  /** @param {string} name @param {any} detail */
  #emit(name, detail) {
    if (name === "event") this.#arrived(detail.envelope);
    if (name === "sent") this.#acknowledged(detail);
    this.#emitter.emit(name, detail);
    if (name !== "status" || detail.reason === "read_only") return;
    if (detail.status === "live" || detail.status === "polling") this.#queue.poke();
  }

  /** @param {{entry: import("./onda/outbox.js").Entry, answer: any}} sent */
  #acknowledged({ entry, answer }) {
    if (this.#causes.has(entry.key) || (answer.events ?? []).length === 0) return;
    this.#settling.set(entry.key, entry);
    setTimeout(() => {
      if (this.#settling.delete(entry.key)) this.#emitter.emit("queue");
    }, SETTLE_MS);
  }

  /**
   * An event's cause is the idempotency key of its command.
   * @param {import("./onda/replica.js").Envelope} envelope
   */
  #arrived({ cause }) {
    this.lastEventAt = Date.now();
    if (!cause) return;
    this.#settling.delete(cause);
    this.#causes.add(cause);
    if (this.#causes.size > CAUSES_MAX)
      this.#causes.delete(/** @type {string} */ (this.#causes.values().next().value));
  }

  /** @param {number} pauseHiddenMs */
  #listen(pauseHiddenMs) {
    const { signal } = this.#listening;
    const awake = () => {
      this.#feed.poke();
      this.#queue.poke();
    };
    globalThis.addEventListener?.("online", awake, { signal });
    globalThis.addEventListener?.("pageshow", (event) => event.persisted && awake(), { signal });
    globalThis.addEventListener?.("storage", (event) => this.#queue.noticed(event.key), { signal });
    globalThis.document?.addEventListener("resume", awake, { signal });
    globalThis.document?.addEventListener("visibilitychange", () => this.#looked(pauseHiddenMs, awake), {
      signal,
    });
  }

  /** @param {number} pauseHiddenMs @param {() => void} awake */
  #looked(pauseHiddenMs, awake) {
    clearTimeout(this.#hiding);
    if (document.hidden) {
      this.#hiddenAt = Date.now();
      if (Number.isFinite(pauseHiddenMs)) this.#hiding = setTimeout(() => this.#feed.sleep(), pauseHiddenMs);
    } else if (Date.now() - this.#hiddenAt > 5_000 || this.status !== "live") {
      awake();
    }
  }
}

/**
 * Who a token speaks for. Two people at one device must not send each other's commands.
 * @param {string} token
 */
function caller(token) {
  try {
    const claims = JSON.parse(atob(token.split(".")[1].replaceAll("-", "+").replaceAll("_", "/")));
    return [claims.role, claims.sub, claims.store, claims.table].map((part) => part ?? "").join(",");
  } catch {
    return token ? "token" : "";
  }
}
