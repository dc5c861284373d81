/**
 * Dialogs, toasts, and what screen readers are told: politely for news, at once for failures.
 */

import { draw, h, icon } from "./dom.js";
import { t } from "./i18n.js";

const TOAST_MS = 6_000;

/** @param {string} name @param {Record<string, string>} attributes */
function region(name, attributes) {
  const known = document.getElementById(name);
  if (known) return known;
  const made = h("div", { id: name, ...attributes });
  document.body.append(made);
  return made;
}

/** Put the live regions on the page before they are needed: readers only hear what changes in a known one. */
export function prepareRegions() {
  region("polite", { class: "unseen", "aria-live": "polite", role: "log" });
  region("assertive", { class: "unseen", "aria-live": "assertive", role: "alert" });
  region("toasts", { class: "toasts" });
}

/** @param {string} text @param {boolean} [urgent] */
export function announce(text, urgent = false) {
  const target = region(urgent ? "assertive" : "polite", {});
  const line = h("p", null, text);
  target.append(line);
  setTimeout(() => line.remove(), 10_000);
}

/**
 * @param {string} text
 * @param {{kind?: "plain" | "good" | "bad", act?: {label: string, run: () => void}}} [options]
 */
export function toast(text, { kind = "plain", act } = {}) {
  const signs = { plain: "info", good: "check", bad: "warning" };
  const button = act && h("button", { type: "button", class: "quiet" }, act.label);
  const made = h("div", { class: `toast toast-${kind}` }, icon(signs[kind]), h("p", null, text), button);
  button?.addEventListener("click", () => {
    made.remove();
    act?.run();
  });
  region("toasts", {}).append(made);
  announce(text, kind === "bad");
  setTimeout(() => made.remove(), kind === "bad" ? TOAST_MS * 2 : TOAST_MS);
}

/**
 * Show a modal dialog until it is answered. Resolves to the `value` of the button that was pressed, and null
 * for Escape.
 * @param {object} options
 * @param {string} options.title
 * @param {any[]} options.body
 * @param {Array<{value: string, label: string, kind?: string}>} options.buttons
 * @param {string} [options.look]  a class of the dialog
 * @param {(dialog: HTMLDialogElement) => void} [options.ready]  listen to what is inside
 * @returns {Promise<{value: string | null, form: FormData}>}
 */
export function ask({ title, body, buttons, look = "", ready }) {
  return new Promise((resolve) => {
    const heading = h("h2", { id: "dialog-title" }, title);
    const row = buttons.map(({ value, label, kind = "plain" }) =>
      h("button", { type: "submit", value, class: kind, formnovalidate: value === "no" }, label),
    );
    const form = h(
      "form",
      { method: "dialog" },
      heading,
      h("div", { class: "dialog-body" }, body),
      h("div", { class: "row end" }, row),
    );
    const dialog = h("dialog", { class: look, "aria-labelledby": "dialog-title" }, form);
    document.body.append(dialog);
    dialog.addEventListener("close", () => {
      resolve({ value: dialog.returnValue || null, form: new FormData(form) });
      dialog.remove();
    });
    dialog.addEventListener("click", (/** @type {MouseEvent} */ event) => {
      if (event.target === dialog) dialog.close(""); // on the backdrop
    });
    ready?.(dialog);
    dialog.showModal();
  });
}

/** @param {string} title @param {string} text @param {string} yes @returns {Promise<boolean>} */
export async function confirm(title, text, yes) {
  const { value } = await ask({
    title,
    body: [h("p", null, text)],
    buttons: [
      { value: "no", label: t("no"), kind: "quiet" },
      { value: "yes", label: yes, kind: "primary" },
    ],
  });
  return value === "yes";
}

/**
 * A panel at the side that is drawn anew with the page while it is open.
 * @param {string} id
 * @param {() => {title: string, body: any[]}} content
 */
export function panel(id, content) {
  const dialog = h("dialog", { id, class: "panel", "aria-labelledby": `${id}-title` });
  document.body.append(dialog);
  const show = () => {
    if (!dialog.open) return;
    const { title, body } = content();
    draw(
      dialog,
      h("header", { class: "row" }, h("h2", { id: `${id}-title` }, title), closeButton()),
      h("div", { class: "panel-body" }, body),
    );
  };
  dialog.addEventListener("click", (/** @type {any} */ event) => {
    if (event.target === dialog || event.target.closest("[data-act=close]")) dialog.close();
  });
  return {
    element: dialog,
    draw: show,
    open: () => {
      if (!dialog.open) dialog.showModal();
      show();
    },
  };
}

function closeButton() {
  return h(
    "button",
    { type: "button", class: "quiet square", "data-act": "close", "aria-label": t("close") },
    icon("cross"),
  );
}
