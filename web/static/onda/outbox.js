/**
 * Where unsent commands are kept: one storage entry per command, so that tabs never overwrite each other's.
 *
 * An entry's name sorts by when it was added, which is the order of sending. It goes only when the server has
 * answered, whatever happens to the page in between.
 */

import { uuid } from "./requests.js";

/**
 * @typedef {object} Entry
 * @property {string} key      the idempotency key: the same in every try
 * @property {string} feed     `stores/s1`, `tables/s1/3`, `users/u1`
 * @property {string} command  in kebab-case
 * @property {Record<string, any>} body
 * @property {number} at       when it was added, on this device's clock
 */

/** Storage that forgets with the page: for browsers that refuse the real one. @returns {Storage} */
export function memoryStorage() {
  /** @type {Map<string, string>} */
  const items = new Map();
  return /** @type {Storage} */ ({
    get length() {
      return items.size;
    },
    key: (index) => [...items.keys()][index] ?? null,
    getItem: (name) => items.get(name) ?? null,
    setItem: (name, value) => void items.set(name, String(value)),
    removeItem: (name) => void items.delete(name),
    clear: () => items.clear(),
  });
}

/**
 * This browser's storage, and whether it outlives the page.
 * @returns {{storage: Storage, durable: boolean}}
 */
export function pageStorage() {
  try {
    const probe = "onda.probe";
    localStorage.setItem(probe, "1");
    localStorage.removeItem(probe);
    return { storage: localStorage, durable: true };
  } catch {
    return { storage: memoryStorage(), durable: false };
  }
}

export class Outbox {
  #prefix;
  #storage;
  #last = "";
  #count = 0;

  /** @param {string} name @param {Storage} storage */
  constructor(name, storage) {
    this.#prefix = `onda.queue|${name}|`;
    this.#storage = storage;
  }

  /** @param {string | null} name  of a storage entry */
  owns(name) {
    return name === null || name.startsWith(this.#prefix);
  }

  /** Unsent commands, oldest first. @returns {Array<{name: string, entry: Entry}>} */
  list() {
    const names = [];
    for (let i = 0; i < this.#storage.length; i += 1) {
      const name = this.#storage.key(i);
      if (name?.startsWith(this.#prefix)) names.push(name);
    }
    return names.sort().flatMap((name) => {
      const entry = this.#read(name);
      return entry ? [{ name, entry }] : [];
    });
  }

  /** @param {Entry} entry @throws {DOMException} the browser's storage is full */
  add(entry) {
    this.#storage.setItem(this.#name(entry.at), JSON.stringify(entry));
  }

  /** @param {string} name */
  remove(name) {
    this.#storage.removeItem(name);
  }

  /**
   * Names sort by time; within this tab strictly, even if the clock stands still or goes back.
   * @param {number} at
   */
  #name(at) {
    const time = Math.floor(at).toString(36).padStart(9, "0");
    if (time > this.#last) {
      this.#last = time;
      this.#count = 0;
    }
    this.#count += 1;
    return `${this.#prefix}${this.#last}-${String(this.#count).padStart(4, "0")}-${uuid().slice(0, 8)}`;
  }

  /** @param {string} name @returns {Entry | null} */
  #read(name) {
    try {
      return JSON.parse(this.#storage.getItem(name) ?? "null");
    } catch {
      this.#storage.removeItem(name); // not written by us: nobody could ever send it
      return null;
    }
  }
}
