/**
 * The words of the pages, in Korean and English: the only place that knows which language is shown.
 */

import { en } from "./en.js";
import { ko } from "./ko.js";

/** @type {Record<string, Record<string, string | ((p: any) => string)>>} */
const DICTIONARIES = { ko, en };
const KEPT = "onda.language";

let language = kept() ?? (navigator.language.toLowerCase().startsWith("ko") ? "ko" : "en");

function kept() {
  try {
    const name = localStorage.getItem(KEPT) ?? "";
    return name in DICTIONARIES ? name : null;
  } catch {
    return null; // storage is refused: the browser's language will do
  }
}

export function currentLanguage() {
  return language;
}

/**
 * The text for a key. An unknown key is shown as it is, which a test looks for.
 * @param {string} key
 * @param {Record<string, any>} [values]
 * @returns {string}
 */
export function t(key, values = {}) {
  const text = DICTIONARIES[language][key] ?? key;
  if (typeof text === "function") return text(values);
  return text.replace(/\{(\w+)\}/g, (_, name) => String(values[name] ?? ""));
}

/** The text for a key if there is one. @param {string} key @param {string} otherwise */
export function tOr(key, otherwise) {
  return key in DICTIONARIES[language] ? t(key) : otherwise;
}

/** Switch between the two languages and keep it. */
export function switchLanguage() {
  language = language === "ko" ? "en" : "ko";
  try {
    localStorage.setItem(KEPT, language);
  } catch {
    // Not kept then: the switch still works for this page.
  }
  showLanguage();
}

/** Tell the browser (line breaking, voices, hyphens) which language this is. */
export function showLanguage() {
  document.documentElement.lang = language;
}

/** Won, as people here write it. @param {number} amount */
export function money(amount) {
  const digits = amount.toLocaleString("ko-KR");
  return language === "ko" ? `${digits}원` : `₩${digits}`;
}

/** `4:05`, `1:02:09`. @param {number} ms */
export function elapsed(ms) {
  const seconds = Math.max(0, Math.floor(ms / 1000));
  const two = (/** @type {number} */ n) => String(n).padStart(2, "0");
  const hours = Math.floor(seconds / 3600);
  const minutes = Math.floor(seconds / 60) % 60;
  return hours ? `${hours}:${two(minutes)}:${two(seconds % 60)}` : `${minutes}:${two(seconds % 60)}`;
}

/** A span in words: just now, 5 min ago, 3 h ago. @param {number} ms */
export function ago(ms) {
  const minutes = Math.floor(ms / 60_000);
  if (minutes < 1) return t("ago.now");
  return minutes < 60 ? t("ago.minutes", { n: minutes }) : t("ago.hours", { n: Math.floor(minutes / 60) });
}

/** A server time as day and time of day here. @param {string} time */
export function dayTime(time) {
  return new Date(time).toLocaleString(language === "ko" ? "ko-KR" : "en-GB", {
    month: "short",
    day: "numeric",
    hour: "2-digit",
    minute: "2-digit",
  });
}

/** A server time as time of day here: `18:05`. @param {string} time */
export function clock(time) {
  return new Date(time).toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit" });
}

/**
 * How long since a server time, at the server's time `now`.
 * @param {string | null} since
 * @param {number} now
 */
export function age(since, now) {
  return since === null ? 0 : Math.max(0, now - Date.parse(since));
}

/**
 * Why something was refused, in this language if the code is known.
 * @param {{code: string, detail?: string}} problem
 */
export function refusalText({ code, detail }) {
  return tOr(`refused.${code}`, detail || code);
}

/**
 * A reason as staff or guests gave it: one of ours by its code, or free text.
 * @param {string | null} reason
 */
export function reasonText(reason) {
  return reason === null ? "" : tOr(`reason.${reason}`, reason);
}
