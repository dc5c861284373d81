/**
 * Time for the client: the server's clock, waits that can be cut short, and pauses with full jitter.
 */

/** How many readings of the server's clock are kept. */
const READINGS = 8;
/** A reading that is later than the others by so much is not late: a clock was set. */
const CLOCK_SET_MS = 5_000;

/** The server's clock, told from the times that its messages carry. */
export class ServerClock {
  /** @type {number[]} */
  #offsets = [];
  #exact = false;

  /**
   * Take a reading. A message can only be late, never early, so the largest difference of the last few is the
   * best.
   * @param {string | null | undefined} time  RFC 3339, or an HTTP date
   * @param {boolean} [exact]  false for whole seconds (the `Date` header): used only until there is better
   */
  read(time, exact = true) {
    const server = Date.parse(time ?? "");
    if (Number.isNaN(server) || (this.#exact && !exact)) return;
    const offset = server + (exact ? 0 : 500) - Date.now();
    if (exact !== this.#exact || offset < this.offsetMs - CLOCK_SET_MS) this.#offsets = [];
    this.#exact = exact;
    this.#offsets.push(offset);
    if (this.#offsets.length > READINGS) this.#offsets.shift();
  }

  /** Server time minus this device's time, in ms. 0 while unknown. */
  get offsetMs() {
    return this.#offsets.length ? Math.max(...this.#offsets) : 0;
  }

  /** The server's time now, in ms since 1970. */
  now() {
    return Date.now() + this.offsetMs;
  }
}

/** A wait that others can end early: `poke()` ends the one that is going on. */
export class Pause {
  /** @type {(() => void) | null} */
  #end = null;

  /**
   * @param {number} ms  Infinity: until poked
   * @returns {Promise<void>}
   */
  wait(ms) {
    return new Promise((resolve) => {
      const timer = Number.isFinite(ms) ? setTimeout(() => this.poke(), ms) : undefined;
      this.#end = () => {
        clearTimeout(timer);
        this.#end = null;
        resolve();
      };
    });
  }

  poke() {
    this.#end?.();
  }
}

/**
 * How long to wait before try number `attempt` (from 0): full jitter, so that screens that lost the same
 * server do not come back in step.
 * @param {number} attempt
 * @param {number} baseMs
 * @param {number} capMs
 */
export function jitter(attempt, baseMs, capMs) {
  const ceiling = Math.min(capMs, baseMs * 2 ** Math.min(attempt, 20));
  return Math.max(Math.min(50, ceiling), Math.random() * ceiling);
}

/**
 * The wait that a `Retry-After` header asks for, in ms; 0 without one.
 * @param {Response} response
 */
export function retryAfterMs(response) {
  const text = response.headers.get("Retry-After");
  if (text === null) return 0;
  const ms = /^\s*\d+\s*$/.test(text) ? Number(text) * 1000 : Date.parse(text) - Date.now();
  return Number.isFinite(ms) ? Math.min(Math.max(ms, 0), 300_000) : 0;
}

/** Calls listeners by name. A listener that throws is reported, and harms nobody else. */
export class Emitter {
  /** @type {Map<string, Set<(detail: any) => void>>} */
  #listeners = new Map();

  /**
   * @param {string} name
   * @param {(detail: any) => void} listener
   * @returns {() => void} stops listening
   */
  on(name, listener) {
    const set = this.#listeners.get(name) ?? new Set();
    this.#listeners.set(name, set);
    set.add(listener);
    return () => set.delete(listener);
  }

  /** @param {string} name @param {any} [detail] */
  emit(name, detail) {
    for (const listener of [...(this.#listeners.get(name) ?? [])]) {
      try {
        listener(detail);
      } catch (error) {
        queueMicrotask(() => {
          throw error;
        });
      }
    }
  }
}
