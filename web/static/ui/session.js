/**
 * The token of this tab: taken out of the address at once, so that it stays in no history, log or screenshot.
 *
 * Each tab has its own (an owner's board and a table's page may be open in one browser, where cookies would
 * clash), by path, so that following a link within a tab does not hand it on. "Keep" remembers it on this
 * device.
 */

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
  return read(() => sessionStorage) ?? read(() => localStorage) ?? "";
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

/** @param {() => Storage} storage */
function read(storage) {
  try {
    return storage().getItem(name(location.pathname));
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

/** The parts of `/board/{store}` or `/t/{store}/{table}` after the first. */
export function pathParts() {
  return location.pathname.split("/").filter(Boolean).slice(1).map(decodeURIComponent);
}
