/**
 * How the page shows its connection: a chip with state, age and unsent count, a banner when it is really
 * gone, and a screen for tokens that do not work. Never a green light for a socket: green means heard from,
 * and all sent.
 */

import { h, icon } from "./dom.js";
import { t } from "./i18n.js";
import { keepToken } from "./session.js";
import { ask } from "./speak.js";

const SIGNS = { live: "dot", polling: "cycle", reconnecting: "cycle", offline: "warning", paused: "dot" };

/** @param {import("../onda.js").Client} client */
function look(client) {
  if (client.status === "offline") return "bad";
  if (client.status !== "live" || client.reason !== null || client.unsent > 0) return "wary";
  return "good";
}

/** @param {import("../onda.js").Client} client */
export function chip(client) {
  const { age, unsent, status } = client;
  const state = standing(client);
  return h(
    "button",
    { type: "button", class: `chip chip-${look(client)}`, "data-act": "connection", "data-status": status },
    icon(SIGNS[status]),
    h("span", { class: "chip-state" }, t(`status.${state}`)),
    h("span", { class: "chip-age", "data-age": true }, ageText(age)),
    unsent > 0 && h("span", { class: "chip-unsent" }, icon("clock"), t("unsent", { n: unsent })),
  );
}

/**
 * The status, but `read_only` where that is what matters: it is live, and takes no orders.
 * @param {import("../onda.js").Client} client
 */
function standing({ status, reason }) {
  return status === "live" && reason === "read_only" ? reason : status;
}

/** @param {number | null} age  in ms */
function ageText(age) {
  return age === null ? t("never-heard") : t("heard", { n: Math.floor(age / 1000) });
}

/** Move the chip's seconds on without drawing the page. @param {import("../onda.js").Client} client */
export function tickChip(client) {
  for (const element of document.querySelectorAll("[data-age]")) {
    const text = ageText(client.age);
    if (element.textContent !== text) element.textContent = text;
  }
}

/** What is wrong and what to do, when there is something. @param {import("../onda.js").Client} client */
export function banner(client) {
  if (standing(client) === "read_only") {
    return h(
      "div",
      { class: "banner banner-wary", role: "status", key: "banner" },
      icon("warning"),
      h("p", null, h("strong", null, t("read-only")), " ", t("read-only-help")),
    );
  }
  if (client.status !== "offline" || client.reason === "unauthorized") return null;
  const missing = client.reason === "not_found";
  return h(
    "div",
    { class: "banner banner-bad", role: "alert", key: "banner" },
    icon("warning"),
    h(
      "p",
      null,
      h("strong", null, t(missing ? "not-found" : "lost")),
      " ",
      t(missing ? "not-found-help" : "lost-help"),
    ),
    h("button", { type: "button", class: "plain", "data-act": "retry" }, t("retry")),
  );
}

/** Details for the person who is called when it does not work. @param {import("../onda.js").Client} client */
export async function showConnection(client) {
  const rows = [
    [t("connection-state"), t(`status.${standing(client)}`)],
    [t("connection-heard"), ageText(client.age)],
    [t("connection-version"), client.version ?? client.cursor ?? "–"],
    [t("connection-unsent"), client.unsent],
  ];
  const list = rows.map(([name, value]) => [h("dt", null, name), h("dd", null, value)]);
  const { value } = await ask({
    title: t("connection"),
    body: [h("dl", { class: "facts" }, list), h("p", null, t(`status-help.${standing(client)}`))],
    buttons: [
      { value: "retry", label: t("retry"), kind: "plain" },
      { value: "yes", label: t("close"), kind: "primary" },
    ],
  });
  if (value === "retry") client.retry();
}

/** The page of someone without a (good) token. */
export function locked() {
  return h(
    "form",
    { class: "notice", id: "token-form", key: "locked" },
    icon("lock"),
    h("h1", null, t("locked")),
    h("p", null, t("locked-help")),
    h("label", { for: "token" }, t("token")),
    h("input", { id: "token", name: "token", type: "password", autocomplete: "off", required: true }),
    h("label", { class: "check" }, h("input", { type: "checkbox", name: "keep" }), t("token-keep")),
    h("button", { class: "primary" }, t("token-use")),
  );
}

/** Take the token that is typed into `locked()`, and start again with it. */
export function listenForToken() {
  document.addEventListener("submit", (event) => {
    if (!(event.target instanceof HTMLFormElement) || event.target.id !== "token-form") return;
    event.preventDefault();
    const form = new FormData(event.target);
    keepToken(String(form.get("token")).trim(), form.has("keep"));
    location.reload();
  });
}
