/**
 * The bell: four things to ask for, and whether somebody heard it.
 */

import { h, icon } from "../ui/dom.js";
import { age, elapsed, t } from "../ui/i18n.js";
import { toast } from "../ui/speak.js";

const KINDS = ["water", "cutlery", "bill", "other"];
const SIGNS = /** @type {Record<string, string>} */ ({
  water: "water",
  cutlery: "cutlery",
  bill: "bill",
  other: "hand",
});
/** How long "somebody is on the way" stays. */
const COMING_MS = 60_000;

/** When each kind was answered, on this device's clock. @type {Map<string, number>} */
const answered = new Map();

/** @param {string} kind */
export function noteAnswer(kind) {
  answered.set(kind, Date.now());
  toast(`${t(`call.${kind}`)}: ${t("t.coming")}`, { kind: "good" });
}

/** @param {{client: import("../onda.js").Client}} page */
export function callView({ client }) {
  return [
    h("h2", { id: "h-call" }, t("t.call")),
    h("p", { class: "hint" }, t("t.call-title")),
    h(
      "ul",
      { class: "bells" },
      KINDS.map((kind) => bell(client, kind)),
    ),
  ];
}

/** @param {import("../onda.js").Client} client @param {string} kind */
function bell(client, kind) {
  const ringing = Object.values(client.state.calls ?? {}).find((call) => call.kind === kind);
  const waiting = client.pending.some((entry) => entry.command === "call-staff" && entry.body.kind === kind);
  const coming = !ringing && Date.now() - (answered.get(kind) ?? 0) < COMING_MS;
  const look = ringing ? "ringing" : waiting ? "is-waiting" : coming ? "coming" : "";
  const state = ringing
    ? [icon("bell"), t("t.calling", { time: elapsed(age(ringing.called_at, client.now())) })]
    : waiting
      ? [icon("clock"), t("t.call-sending")]
      : coming && [icon("check"), t("t.coming")];
  return h(
    "li",
    { key: kind },
    h(
      "button",
      {
        type: "button",
        class: `bell ${look}`,
        "data-act": "call",
        "data-kind": kind,
        disabled: Boolean(ringing) || waiting,
      },
      icon(SIGNS[kind]),
      h("b", null, t(`call.${kind}`)),
      h("span", { class: "bell-state" }, state || ""),
    ),
  );
}
