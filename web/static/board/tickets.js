/**
 * Tickets in their columns: what the kitchen reads from two metres away.
 */

import { asIs, h, icon } from "../ui/dom.js";
import { age, currentLanguage, elapsed, t } from "../ui/i18n.js";
import { mark } from "../ui/money.js";
import { nextStep, OTHERS, pendingOf, statusToBe, STEPS } from "./steps.js";

/** Minutes after which a ticket is soon late, and late. */
const LATE_MS = [5 * 60_000, 8 * 60_000];
/** Most keys for tickets: 1 to 9. */
export const KEYS_MAX = 9;

const COLUMNS = [
  { name: "new", sign: "bell", statuses: ["PLACED"] },
  { name: "cooking", sign: "fire", statuses: ["ACCEPTED", "COOKING"] },
  { name: "ready", sign: "check", statuses: ["READY"] },
];

/** @typedef {{client: import("../onda.js").Client, news: any, chosen: string | null}} Board */

/** Orders on the board, oldest first: the order of the keys. @param {import("../onda.js").Client} client */
export function inOrder(client) {
  const shown = COLUMNS.flatMap(({ statuses }) => statuses);
  return Object.values(client.state.orders ?? {})
    .filter((order) => shown.includes(order.status))
    .sort(
      (one, other) => (one.placed_at ?? "").localeCompare(other.placed_at ?? "") || one.number - other.number,
    );
}

/** @param {Board} board */
export function columns(board) {
  const { client, news } = board;
  const orders = inOrder(client);
  for (const name of drawn.keys()) if (!(name in (client.state.orders ?? {}))) drawn.delete(name);
  const keys = new Map(orders.slice(0, KEYS_MAX).map((order, index) => [order.order, index + 1]));
  const known = client.cursor !== null;
  return h(
    "main",
    { class: "columns", key: "columns", "aria-busy": !known },
    COLUMNS.map(({ name, sign, statuses }) => {
      const mine = orders.filter((order) => statuses.includes(order.status));
      const alarm = name === "new" && news.unaccepted().length > 0;
      return h(
        "section",
        { class: `column column-${name}${alarm ? " alarm" : ""}`, "aria-labelledby": `h-${name}`, key: name },
        h(
          "h2",
          { id: `h-${name}` },
          icon(sign),
          t(`board.${name}`),
          h("span", { class: "count" }, mine.length),
          alarm && h("span", { class: "unseen" }, t("board.unaccepted", { n: mine.length })),
        ),
        mine.length === 0
          ? h("p", { class: "empty" }, known ? t(`board.empty.${name}`) : t("loading"))
          : h(
              "ol",
              { class: "tickets" },
              mine.map((order) => ticketOrAsIs(board, order, name, keys.get(order.order))),
            ),
      );
    }),
  );
}

/** What each ticket was last drawn from. @type {Map<string, {order: any, facts: string}>} */
const drawn = new Map();

/**
 * Leave a ticket alone that would look the same: with sixty on a kitchen tablet that is most of the work. A
 * patch replaces an order as a whole, so the same object is the same order.
 * @param {Board} board @param {any} order @param {string} column @param {number | undefined} keycap
 */
function ticketOrAsIs(board, order, column, keycap) {
  const { client, news, chosen } = board;
  const waiting = pendingOf(client, order.order).map((entry) => entry.key);
  const late = lateness(order.status === "READY" ? order.ready_at : order.placed_at, client.now());
  const guests = client.state.tables?.[order.table]?.guests;
  const flags = [chosen === order.order, news.isAway(order.order), client.status === "live"];
  const facts = JSON.stringify([keycap, late, guests, waiting, flags, currentLanguage()]);
  const before = drawn.get(order.order);
  if (before && before.order === order && before.facts === facts) {
    const element = document.getElementById(`ticket-${order.order}`);
    if (element?.closest(`.column-${column}`)) return asIs("li", order.order);
  }
  drawn.set(order.order, { order, facts });
  return ticket(board, order, keycap);
}

/** @param {Board} board @param {any} order @param {number | undefined} keycap */
function ticket(board, order, keycap) {
  const { client, news, chosen } = board;
  const waiting = pendingOf(client, order.order);
  const since = order.status === "READY" ? order.ready_at : order.placed_at;
  const late = lateness(since, client.now());
  const looks = [
    "ticket",
    `is-${order.status.toLowerCase()}`,
    late && `late-${late}`,
    waiting.length && "is-waiting",
  ];
  const where = order.table === null ? t("board.no-table") : t("table-n", { table: order.table });
  return h(
    "li",
    {
      key: order.order,
      class: [...looks, chosen === order.order && "chosen"].filter(Boolean).join(" "),
      id: `ticket-${order.order}`,
      tabindex: -1,
      "aria-label": `${where}, ${t("board.order", { number: order.number })}`,
      "aria-current": chosen === order.order ? "true" : null,
    },
    head(client, order, since, late, keycap),
    news.isAway(order.order) && h("p", { class: "flag" }, icon("info"), t("board.away")),
    h(
      "ul",
      { class: "lines" },
      order.lines.map((/** @type {any} */ line) => lineOf(client, order, line)),
    ),
    waiting.length > 0 &&
      h("p", { class: "flag flag-wary" }, icon("clock"), `${t("board.waiting")}: `, waitingText(waiting)),
    buttons(client, order, waiting),
  );
}

/** @param {any[]} waiting */
function waitingText(waiting) {
  return waiting.map((entry) => t(`do.${entry.command}`, { name: "" }).trim()).join(" → ");
}

/**
 * @param {any} client
 * @param {any} order
 * @param {string} since
 * @param {number} late
 * @param {number | undefined} keycap
 */
function head(client, order, since, late, keycap) {
  const channel = order.by.split(":")[0];
  const guests = order.table !== null ? client.state.tables?.[order.table]?.guests : null;
  const stage =
    order.status === "ACCEPTED" ? "board.accepted" : order.status === "COOKING" ? "board.in-kitchen" : null;
  return h(
    "header",
    { class: "ticket-head" },
    keycap && h("kbd", { "aria-hidden": "true" }, keycap),
    h(
      "strong",
      { class: `place${(order.table ?? "").length > 3 ? " place-long" : ""}`, "aria-hidden": "true" },
      order.table ?? icon("cart"),
    ),
    h(
      "span",
      { class: "meta" },
      h("b", null, `#${order.number}`),
      h(
        "span",
        null,
        [t(`channel.${channel}`), guests && t("board.guests", { n: guests })].filter(Boolean).join(" · "),
      ),
      h(
        "span",
        { class: "marks" },
        stage && h("span", { class: `stage stage-${order.status.toLowerCase()}` }, t(stage)),
        mark(order),
      ),
    ),
    h(
      "span",
      { class: "timer", "data-since": since, "data-late": late },
      icon(late ? "warning" : "clock"),
      h("time", { "aria-label": t("board.elapsed") }, elapsed(age(since, client.now()))),
      h("small", null, late ? t(`board.late.${late}`) : ""),
    ),
  );
}

/** @param {any} client @param {any} order @param {any} line */
function lineOf(client, order, line) {
  const product = client.state.products?.[line.product];
  const choices = (product?.options ?? []).flatMap((/** @type {any} */ option) => option.choices);
  const named = line.options.map(
    (/** @type {string} */ id) => choices.find((/** @type {any} */ c) => c.choice === id)?.name ?? id,
  );
  const tappable = (order.status === "ACCEPTED" || order.status === "COOKING") && line.status === "WAITING";
  const waiting = client.pending.some(
    (/** @type {any} */ entry) => entry.body.line === line.line && entry.body.order === order.order,
  );
  const sign =
    line.status === "READY" ? "done" : line.status === "CANCELLED" ? "cross" : waiting ? "clock" : "ring";
  const inside = [
    order.status === "PLACED" ? null : icon(sign),
    h("b", { class: "quantity" }, line.quantity, h("i", null, "×")),
    h(
      "span",
      { class: "what" },
      line.name,
      named.map((/** @type {string} */ name) => h("span", { class: "option" }, name)),
    ),
  ];
  const looks = `line line-${line.status.toLowerCase()}`;
  return h(
    "li",
    { key: line.line, class: looks },
    tappable
      ? h(
          "button",
          {
            type: "button",
            class: "tap",
            "data-act": "line",
            "data-order": order.order,
            "data-line": line.line,
            disabled: waiting,
            title: t("do.mark-item-ready", { name: line.name }),
          },
          inside,
        )
      : h(
          "div",
          { class: "tap" },
          inside,
          line.status === "READY" && h("span", { class: "unseen" }, t("t.line.READY")),
        ),
    line.note && h("p", { class: "note" }, icon("warning"), line.note),
  );
}

/** @param {any} client @param {any} order @param {any[]} waiting */
function buttons(client, order, waiting) {
  const step = nextStep(client, order);
  const status = statusToBe(client, order);
  const locked = waiting.length > 0 && client.status === "live";
  const shown = step ?? STEPS[order.status]?.[0];
  const button = (/** @type {string} */ command, /** @type {string} */ look) =>
    h(
      "button",
      {
        type: "button",
        class: look,
        "data-act": "order",
        "data-command": command,
        "data-order": order.order,
        disabled: locked,
        key: command,
      },
      t(`do.${command}`),
    );
  if (!(status in STEPS)) return null; // a rejection or the last step is on its way
  return h(
    "div",
    { class: "ticket-buttons", "aria-busy": locked },
    (OTHERS[status] ?? []).map((command) => button(command, command === "cancel-order" ? "quiet" : "plain")),
    shown && button(shown, "primary"),
  );
}

/** 0, 1 (soon late) or 2 (late). @param {string | null} since @param {number} now */
function lateness(since, now) {
  const ms = age(since, now);
  return LATE_MS.filter((limit) => ms >= limit).length;
}

/** Orders that are late and not ready. @param {import("../onda.js").Client} client @returns {string[]} */
export function lateOrders(client) {
  const now = client.now();
  return inOrder(client)
    .filter((order) => order.status !== "READY" && lateness(order.placed_at, now) === 2)
    .map((order) => order.order);
}

/** Move all timers on without drawing the page. @param {import("../onda.js").Client} client */
export function tickTimers(client) {
  const now = client.now();
  for (const timer of document.querySelectorAll(".timer[data-since]")) {
    const { since = "", late = "0" } = /** @type {HTMLElement} */ (timer).dataset;
    const time = timer.querySelector("time");
    if (time) time.textContent = elapsed(age(since, now));
    const level = lateness(since, now);
    if (String(level) === late) continue;
    timer.setAttribute("data-late", String(level));
    const card = timer.closest(".ticket");
    card?.classList.remove("late-1", "late-2");
    if (level) card?.classList.add(`late-${level}`);
    timer.querySelector("use")?.setAttribute("href", `/static/icons.svg#${level ? "warning" : "clock"}`);
    const label = timer.querySelector("small");
    if (label) label.textContent = level ? t(`board.late.${level}`) : "";
  }
}
