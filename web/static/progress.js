/**
 * Orders a laptop and shows how far it is: first where it was (`recovery`), then each step as it is done.
 *
 * The browser's own EventSource comes back by itself and says what it saw last; only when it gives up, as
 * after an answer that is no stream, a new one is opened here.
 */

import { claimsOf, recall, remember, takeToken } from "./ui/session.js";

const AGAIN_MS = 2_000;
const PRODUCT = "노트북";
const LOST = "연결이 끊겼습니다. 다시 잇는 중입니다.";

const token = takeToken();
const user = userId();
/** The task that the page shows: the one that something was last heard of. */
let task = recall("progress.task");

const status = part("status");
const bar = /** @type {HTMLProgressElement} */ (part("progressBar"));
const notice = part("notice");
const list = part("history");
const order = /** @type {HTMLButtonElement} */ (part("order"));

/** @param {string} id */
function part(id) {
  return /** @type {HTMLElement} */ (document.getElementById(id));
}

/** Who this is: as the address or the token says, else somebody of this tab's own. */
function userId() {
  const given = new URLSearchParams(location.search).get("userId");
  const known = given ?? (token ? claimsOf(token).sub : null) ?? recall("progress.user");
  const id = known ?? `user${crypto.randomUUID().slice(0, 9)}`;
  remember("progress.user", id);
  return id;
}

/** @param {string} path @param {Record<string, string>} fields */
function address(path, fields = {}) {
  return `/api/v2/progress/${path}?${new URLSearchParams(fields)}`;
}

/** @param {string} url @param {RequestInit} [options] */
async function ask(url, options = {}) {
  const headers = { ...options.headers, ...(token && { Authorization: `Bearer ${token}` }) };
  const answer = await fetch(url, { ...options, headers });
  const body = await answer.json();
  if (!answer.ok) throw new Error(body.detail ?? String(answer.status));
  return body;
}

function follow() {
  const source = new EventSource(address("subscribe", { userId: user, ...(token && { token }) }));
  source.addEventListener("progress", (event) => show(JSON.parse(event.data), ""));
  source.addEventListener("recovery", (event) => show(JSON.parse(event.data), "[복구] "));
  source.addEventListener("error", () => {
    notice.textContent = LOST;
    if (source.readyState === EventSource.CLOSED) setTimeout(follow, AGAIN_MS * (0.5 + Math.random()));
  });
  source.addEventListener("open", () => {
    if (notice.textContent === LOST) notice.textContent = "";
  });
}

/** @param {any} event @param {string} prefix */
function show(event, prefix) {
  if (task !== event.taskId && prefix && task !== null && bar.value < 100) return; // of an older one
  see(event.taskId);
  status.textContent = `${prefix}${event.stepName}: ${event.percentage}%`;
  bar.value = event.percentage;
  document.body.classList.toggle("task-failed", event.eventType === "FAILED");
  if (list.childElementCount > 0) void loadHistory();
}

/** @param {string} id */
function see(id) {
  if (task !== id) list.replaceChildren();
  task = id;
  remember("progress.task", id);
}

async function createOrder() {
  order.disabled = true;
  await attempt(async () => {
    const fields = { userId: user, productName: PRODUCT, quantity: "1" };
    const key = crypto.randomUUID();
    see((await ask(address("orders", fields), { method: "POST", headers: { "Idempotency-Key": key } })).taskId);
  });
  order.disabled = false;
}

async function loadHistory() {
  if (task === null) {
    notice.textContent = "먼저 주문을 생성하세요";
    return;
  }
  await attempt(async () => {
    const events = await ask(address(`history/${encodeURIComponent(task)}`));
    list.replaceChildren(
      ...events.map((/** @type {any} */ event) => {
        const line = document.createElement("li");
        line.textContent = `${event.eventType}: ${event.stepName} (${event.percentage}%)`;
        return line;
      }),
    );
  });
}

/** @param {() => Promise<void>} work */
async function attempt(work) {
  notice.textContent = "";
  try {
    await work();
  } catch (error) {
    notice.textContent = error instanceof Error ? error.message : String(error);
  }
}

part("who").textContent = user;
order.addEventListener("click", () => void createOrder());
part("load").addEventListener("click", () => void loadHistory());
follow();
