/**
 * The token of this tab: taken out of the address at once, so that it stays in no history, log or screenshot.
 *
 * Each tab has its own (an owner's board and a table's page may be open in one browser, where cookies would
 * clash), by path, so that following a link within a tab does not hand it on. "Keep" remembers it on this
 * device.
 */

/** What `remember` keeps where storage is refused. @type {Map<string, any>} */
const memory = new Map();

/** @param {string} path */
function name(path) {
  return `onda.token|${path}`;
}

/** Read the token of this page, from the address (`?token=` or `#token=`) or as kept before. */
export function takeToken() {
  const url = new URL(location.href);
  const fragment = new URLSearchParams(url.hash.slice(1));
  const given = fragment.get("token") ?? url.searchParams.get("token");
  if (given !== null) {
    fragment.delete("token");
    url.searchParams.delete("token");
    url.hash = fragment.toString();
    history.replaceState(null, "", url);
    keepToken(given, false);
    return given;
  }
  return tokenOf(location.pathname);
}

/** The token of another page of ours that was open in this tab. @param {string} path */
export function tokenOf(path) {
  return read(() => sessionStorage, path) ?? read(() => localStorage, path) ?? "";
}

/** Whose token it is: its claims, unchecked, for what to show. @param {string} token @returns {any} */
export function claimsOf(token) {
  try {
    return JSON.parse(atob(token.split(".")[1].replaceAll("-", "+").replaceAll("_", "/")));
  } catch {
    return {}; // no token, or none of ours: the server knows better
  }
}

/** @param {string} token @param {boolean} onDevice  also for other days, not only for this tab */
export function keepToken(token, onDevice) {
  try {
    sessionStorage.setItem(name(location.pathname), token);
    if (onDevice) localStorage.setItem(name(location.pathname), token);
  } catch {
    // Storage is refused: the token lives as long as this page.
  }
}

/** @param {() => Storage} storage @param {string} path */
function read(storage, path) {
  try {
    return storage().getItem(name(path));
  } catch {
    return null; // refused, so nothing was kept there
  }
}

/** A setting of this device. @param {string} key */
export function setting(key) {
  try {
    return localStorage.getItem(`onda.${key}`);
  } catch {
    return null; // refused, so nothing was kept there
  }
}

/** @param {string} key @param {string} value */
export function setSetting(key, value) {
  try {
    localStorage.setItem(`onda.${key}`, value);
  } catch {
    // Storage is refused: it holds for this page only.
  }
}

/** What this tab remembers, also through a reload and a trip to another site. @param {string} key */
export function recall(key) {
  try {
    return JSON.parse(sessionStorage.getItem(`onda.${key}`) ?? "null");
  } catch {
    return memory.get(key) ?? null; // refused: it was kept in this page
  }
}

/** @param {string} key @param {any} value */
export function remember(key, value) {
  memory.set(key, value);
  try {
    sessionStorage.setItem(`onda.${key}`, JSON.stringify(value));
  } catch {
    // Storage is refused: it holds for this page only.
  }
}

/** @param {string} key */
export function forget(key) {
  memory.delete(key);
  try {
    sessionStorage.removeItem(`onda.${key}`);
  } catch {
    // Storage is refused, so nothing is kept there.
  }
}

/** The parts of `/board/{store}` or `/t/{store}/{table}` after the first. */
export function pathParts() {
  return location.pathname.split("/").filter(Boolean).slice(1).map(decodeURIComponent);
}
