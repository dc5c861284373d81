/**
 * The board by keyboard or bump bar.
 */

import { ringing } from "./calls.js";
import { helpDialog } from "./settings.js";
import { nextStep, statusToBe } from "./steps.js";
import { inOrder, KEYS_MAX } from "./tickets.js";

/**
 * @param {any} board
 * @param {Record<string, {open: () => void}>} panels
 */
export function listenToKeys(board, panels) {
  /** @type {Record<string, () => void>} */
  const keys = {
    ArrowRight: () => step(board, 1),
    ArrowDown: () => step(board, 1),
    ArrowLeft: () => step(board, -1),
    ArrowUp: () => step(board, -1),
    Enter: () => bump(board),
    " ": () => bump(board),
    r: () => turnBack(board),
    a: () => answer(board),
    m: () => panels.menu.open(),
    t: () => panels.tables.open(),
    p: () => panels.payments.open(),
    d: () => panels.done.open(),
    "?": () => void helpDialog(),
    Escape: () => choose(board, null),
  };
  document.addEventListener("keydown", (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey || document.querySelector("dialog[open]")) return;
    const target = /** @type {HTMLElement} */ (event.target);
    if (target.closest("input, textarea, select")) return;
    const digit = /^(?:Digit|Numpad)([1-9])$/.exec(event.code)?.[1];
    // Enter and Space belong to the button that has the focus, if there is one.
    if (!digit && (event.key === "Enter" || event.key === " ") && target.closest("button, a")) return;
    const work = digit
      ? () => pick(board, Number(digit))
      : (keys[event.key] ?? keys[event.key.toLowerCase()]);
    if (!work || event.repeat) return;
    event.preventDefault();
    work();
  });
}

/** @param {any} board @param {string | null} name */
function choose(board, name) {
  board.chosen = name;
  board.redraw();
  if (name === null) return;
  requestAnimationFrame(() => {
    const card = document.getElementById(`ticket-${name}`);
    card?.focus({ preventScroll: true });
    card?.scrollIntoView({ block: "nearest", inline: "nearest" });
  });
}

/** @param {any} board @param {number} digit */
function pick(board, digit) {
  const order = inOrder(board.client).slice(0, KEYS_MAX)[digit - 1];
  if (order) choose(board, order.order);
}

/** @param {any} board @param {number} by */
function step(board, by) {
  const names = inOrder(board.client).map((order) => order.order);
  if (names.length === 0) return;
  const at = names.indexOf(board.chosen);
  choose(
    board,
    names[at < 0 ? (by > 0 ? 0 : names.length - 1) : Math.min(Math.max(at + by, 0), names.length - 1)],
  );
}

/** @param {any} board */
function bump(board) {
  const order = board.client.state.orders?.[board.chosen];
  const command = order && nextStep(board.client, order);
  if (command) board.act(command, order.order);
}

/** @param {any} board */
function turnBack(board) {
  const order = board.client.state.orders?.[board.chosen];
  const status = order && statusToBe(board.client, order);
  if (status === "PLACED") board.act("reject-order", order.order);
  else if (status === "READY") board.act("recall-order", order.order);
}

/** @param {any} board */
function answer(board) {
  const [call] = ringing(board.client);
  if (call) board.send("answer-call", { call: call.call }, `tables/${board.store}/${call.table}`);
}
