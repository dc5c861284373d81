/**
 * A customer's page: notices from shops, and orders wherever they were placed.
 */

import { open } from "./onda.js";
import { banner, chip, listenForToken, locked, showConnection, tickChip } from "./ui/connection.js";
import { draw, drawer, h, icon, onAct } from "./ui/dom.js";
import { age, ago, money, reasonText, showLanguage, switchLanguage, t } from "./ui/i18n.js";
import { pathParts, takeToken } from "./ui/session.js";
import { announce, prepareRegions } from "./ui/speak.js";

const [user] = pathParts();
const app = /** @type {HTMLElement} */ (document.getElementById("app"));
const client = open({ feed: `users/${user}`, token: takeToken(), settings: { pauseHiddenMs: 60_000 } });
const redraw = drawer(show);

function show() {
  document.title = t("user.title");
  if (client.reason === "unauthorized" && client.cursor === null) return draw(app, locked());
  const notices = Object.values(client.state.notices ?? {}).sort((one, other) =>
    other.at.localeCompare(one.at),
  );
  const orders = Object.values(client.state.orders ?? {}).sort((one, other) =>
    (other.placed_at ?? "").localeCompare(one.placed_at ?? ""),
  );
  const none = client.cursor === null ? t("loading") : t("user.none");
  return draw(
    app,
    h(
      "header",
      { class: "bar" },
      h("div", { class: "brand" }, icon("wave"), h("h1", null, t("user.title"))),
      chip(client),
      language(),
    ),
    banner(client),
    h(
      "main",
      { class: "home" },
      notices.length + orders.length === 0 && h("p", { class: "empty" }, none),
      notices.length > 0 &&
        h("section", null, h("h2", null, t("user.notices")), h("ul", { class: "rows" }, notices.map(notice))),
      orders.length > 0 &&
        h("section", null, h("h2", null, t("t.orders")), h("ul", { class: "rows" }, orders.map(order))),
    ),
  );
}

function language() {
  return h(
    "button",
    { type: "button", class: "quiet square", "data-act": "language", "aria-label": t("other-language") },
    icon("globe"),
  );
}

/** @param {any} each */
function notice({ notice: id, title, body, at }) {
  return h(
    "li",
    { class: "row", key: id },
    h(
      "span",
      { class: "grow" },
      h("b", null, title),
      body && h("span", null, body),
      h("small", null, ago(age(at, client.now()))),
    ),
  );
}

/** @param {any} each */
function order({ order: id, number, store, status, total, reason, lines }) {
  const what = lines.map((/** @type {any} */ line) => `${line.name} × ${line.quantity}`).join(", ");
  return h(
    "li",
    { class: "row", key: `${store}/${id}` },
    h(
      "span",
      { class: "grow" },
      h("b", null, `${t("t.order-n", { number })} · ${t(`t.now.${status}`)}`),
      h("span", null, what),
      reason && h("small", null, reasonText(reason)),
    ),
    h("b", null, money(total)),
  );
}

prepareRegions();
showLanguage();
listenForToken();
onAct(document, {
  connection: () => void showConnection(client),
  retry: () => client.retry(),
  language: () => {
    switchLanguage();
    redraw();
  },
});
for (const name of ["change", "status", "queue", "reset"]) client.on(name, redraw);
client.on("event", ({ envelope }) => {
  for (const each of Object.values(envelope.patch?.notices ?? {})) if (each) announce(each.title);
});
setInterval(() => tickChip(client), 1_000);
show();
