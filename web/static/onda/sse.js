/**
 * Reads an SSE byte stream as WHATWG HTML §9.2 says, however the bytes are cut into chunks.
 *
 * Unlike a browser's EventSource it also tells of blocks that only carry an id: they move the cursor
 * without an event, which is how a server says "you are up to date" before anything happens.
 */

/** Longest line or data of one event, in UTF-16 units. A server that sends more is broken. */
const LENGTH_MAX = 64 * 1024 * 1024;
const LF = 10;
const CR = 13;

/**
 * @typedef {object} SseHandlers
 * @property {(type: string, data: string, id: string) => void} event  a complete event; its type is "message"
 *   when none was named
 * @property {(id: string) => void} [id]     a block without data set the last event id
 * @property {(ms: number) => void} [retry]  the server set the reconnection time
 */

export class SseParser {
  #decoder = new TextDecoder("utf-8"); // strips one leading BOM, and keeps split characters
  #rest = "";
  #afterCr = false;
  #type = "";
  /** @type {string[]} */
  #data = [];
  #dataLength = 0;
  #idSeen = false;
  /** @type {SseHandlers} */
  #on;

  /** The last event id, which persists from block to block. */
  lastEventId = "";

  /** @param {SseHandlers} handlers */
  constructor(handlers) {
    this.#on = handlers;
  }

  /**
   * Take the next bytes. What is not ended by an empty line is kept, and forgotten with the parser.
   * @param {Uint8Array} bytes
   */
  push(bytes) {
    const text = this.#decoder.decode(bytes, { stream: true });
    let start = 0;
    for (let i = 0; i < text.length; i += 1) {
      const unit = text.charCodeAt(i);
      const secondOfPair = this.#afterCr && unit === LF;
      this.#afterCr = false;
      if (secondOfPair) {
        start = i + 1;
      } else if (unit === LF || unit === CR) {
        this.#afterCr = unit === CR;
        this.#line(this.#rest + text.slice(start, i));
        this.#rest = "";
        start = i + 1;
      }
    }
    this.#rest += text.slice(start);
    if (this.#rest.length > LENGTH_MAX) throw new RangeError("SSE line is too long");
  }

  /** @param {string} line */
  #line(line) {
    if (line === "") return this.#dispatch();
    const colon = line.indexOf(":");
    if (colon === 0) return undefined; // a comment
    const name = colon < 0 ? line : line.slice(0, colon);
    let value = colon < 0 ? "" : line.slice(colon + 1);
    if (value.startsWith(" ")) value = value.slice(1);
    return this.#field(name, value);
  }

  /** @param {string} name @param {string} value */
  #field(name, value) {
    if (name === "data") {
      this.#data.push(value);
      this.#dataLength += value.length + 1;
      if (this.#dataLength > LENGTH_MAX) throw new RangeError("SSE event is too long");
    } else if (name === "event") {
      this.#type = value;
    } else if (name === "id" && !value.includes("\0")) {
      this.lastEventId = value;
      this.#idSeen = true;
    } else if (name === "retry" && /^[0-9]+$/.test(value)) {
      this.#on.retry?.(Number(value));
    }
  }

  #dispatch() {
    const type = this.#type || "message";
    const data = this.#data;
    const idSeen = this.#idSeen;
    this.#type = "";
    this.#data = [];
    this.#dataLength = 0;
    this.#idSeen = false;
    if (data.length > 0) this.#on.event(type, data.join("\n"), this.lastEventId);
    else if (idSeen) this.#on.id?.(this.lastEventId);
  }
}
