/**
 * What is being done for the customer: a bar for each task, and its history when it is asked for.
 */

import { h, icon } from "../ui/dom.js";
import { ago, age, t } from "../ui/i18n.js";
import { tokenOf } from "../ui/session.js";

const OVER = new Set(["COMPLETED", "FAILED"]);

/**
 * The tasks of a page. `redraw` is called when a history has come.
 * @param {{client: any, redraw: () => void}} page
 */
export function taskCards({ client, redraw }) {
  /** Histories that are open, with the task's event up to which they are. @type {Map<string, any>} */
  const open = new Map();

  /** @param {string} id @param {string} event */
  async function load(id, event) {
    const held = open.get(id) ?? { marks: null };
    open.set(id, { ...held, event });
    try {
      const token = tokenOf(location.pathname);
      const headers = token ? { Authorization: `Bearer ${token}` } : undefined;
      const answer = await fetch(`/api/v2/progress/history/${encodeURIComponent(id)}`, { headers });
      if (!answer.ok) throw new Error(String(answer.status));
      const marks = await answer.json();
      if (open.has(id)) open.set(id, { event, marks });
    } catch {
      if (open.has(id)) open.set(id, { event, marks: held.marks }); // the task's next event asks again
    }
    redraw();
  }

  /** @param {any} task */
  function card(task) {
    const held = open.get(task.task);
    if (held && held.event !== task.event) void load(task.task, task.event);
    const failed = task.status === "FAILED";
    const step = failed ? task.reason : task.status === "COMPLETED" ? t("task.done") : task.step_name;
    const sign = failed ? "warning" : task.status === "COMPLETED" ? "check" : "clock";
    return h(
      "article",
      { class: `task task-${task.status.toLowerCase()}`, key: task.task, "data-task": task.task },
      h(
        "header",
        null,
        h("h3", null, task.name || t("task.title")),
        h("small", null, ago(age(task.updated_at, client.now()))),
      ),
      h("progress", { max: 100, value: task.percentage, "aria-label": task.name || t("task.title") }),
      h("p", { class: "task-step" }, icon(sign), ` ${step || t("task.begun")} · ${task.percentage}%`),
      h(
        "button",
        {
          type: "button",
          class: "quiet",
          "data-act": "task-history",
          "data-task": task.task,
          "aria-expanded": held ? "true" : "false",
        },
        t(held ? "task.hide" : "task.history"),
      ),
      held?.marks &&
        h(
          "ol",
          { class: "task-marks" },
          held.marks.map((/** @type {any} */ mark) =>
            h("li", { key: mark.eventId }, `${mark.stepName} (${mark.percentage}%)`),
          ),
        ),
    );
  }

  return {
    /** The section of the page, `false` when there is nothing in it. */
    section() {
      const tasks = Object.values(client.state.tasks ?? {});
      if (tasks.length === 0) return false;
      tasks.sort(
        (one, other) =>
          Number(OVER.has(one.status)) - Number(OVER.has(other.status)) ||
          other.updated_at.localeCompare(one.updated_at),
      );
      return h("section", { key: "tasks" }, h("h2", null, t("task.all")), tasks.map(card));
    },
    /** Show a task's history, or hide it. @param {{task: string}} data */
    toggle({ task }) {
      if (open.delete(task)) redraw();
      else void load(task, client.state.tasks?.[task]?.event ?? null);
    },
  };
}
