/**
 * One tab at a time: a lock that all tabs of this browser share.
 *
 * Web Locks where there are any. They need a secure context, which plain http on a shop's network is not;
 * there a lease in storage does: written, and read back after a moment. Storage has no compare-and-set, so
 * two tabs could hold it for an instant. What they then send twice carries the same idempotency key.
 */

import { uuid } from "./requests.js";

const SETTLE_MS = 40;
const ASK_AGAIN_MS = 150;

/**
 * Run `work` while no other tab runs with the same name.
 * @param {string} name
 * @param {Storage} storage
 * @param {number} leaseMs  longer than `work` can take
 * @param {() => Promise<void>} work
 */
export async function inTurn(name, storage, leaseMs, work) {
  if (globalThis.navigator?.locks) {
    await navigator.locks.request(name, work);
    return;
  }
  const me = uuid();
  while (!(await taken(name, storage, leaseMs, me))) await sleep(ASK_AGAIN_MS * (0.5 + Math.random()));
  try {
    await work();
  } finally {
    if (holder(name, storage)?.me === me) storage.removeItem(name);
  }
}

/** @param {string} name @param {Storage} storage @param {number} leaseMs @param {string} me */
async function taken(name, storage, leaseMs, me) {
  const held = holder(name, storage);
  if (held && held.until > Date.now() && held.until < Date.now() + leaseMs * 2) return false;
  storage.setItem(name, JSON.stringify({ me, until: Date.now() + leaseMs }));
  await sleep(SETTLE_MS);
  return holder(name, storage)?.me === me;
}

/** @param {string} name @param {Storage} storage @returns {{me: string, until: number} | null} */
function holder(name, storage) {
  try {
    return JSON.parse(storage.getItem(name) ?? "null");
  } catch {
    return null; // not ours to read: as good as free
  }
}

/** @param {number} ms */
function sleep(ms) {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
