/**
 * Dialogs for sound and for help with the keyboard.
 */

import { h, icon } from "../ui/dom.js";
import { t } from "../ui/i18n.js";
import { ask } from "../ui/speak.js";

/** @param {import("../ui/sound.js").Sound} sound @param {() => void} redraw */
export async function soundDialog(sound, redraw) {
  sound.enable(); // the tap that opened this is what browsers wait for
  redraw();
  const test = (/** @type {"new" | "call" | "void" | "late"} */ name) =>
    h("button", { type: "button", class: "plain", "data-test": name }, icon("sound"), t(`sound.${name}`));
  const { value } = await ask({
    title: t("sound.title"),
    body: [
      h("label", { for: "volume" }, t("sound.volume")),
      h("input", {
        id: "volume",
        type: "range",
        min: 0,
        max: 100,
        step: 5,
        value: Math.round(sound.volume * 100),
      }),
      h("p", null, t("sound.test")),
      h("div", { class: "row" }, test("new"), test("call"), test("void"), test("late")),
    ],
    buttons: [
      { value: "off", label: t("sound.off"), kind: "quiet" },
      { value: "on", label: t("sound.on"), kind: "primary" },
    ],
    ready: (dialog) => {
      dialog.addEventListener("input", (event) => {
        if (event.target instanceof HTMLInputElement) sound.volume = Number(event.target.value) / 100;
      });
      dialog.addEventListener("click", (event) => {
        const name =
          event.target instanceof Element && event.target.closest("[data-test]")?.getAttribute("data-test");
        if (name) sound.play(/** @type {any} */ (name));
      });
    },
  });
  if (value === "off") sound.disable();
  redraw();
}

const KEYS = [
  ["1 – 9", "help.1-9"],
  ["← →", "help.arrows"],
  ["Enter, Space", "help.enter"],
  ["R", "help.r"],
  ["A", "help.a"],
  ["M, T, P, D", "help.panels"],
  ["Esc", "help.escape"],
];

export async function helpDialog() {
  await ask({
    title: t("help.title"),
    body: [
      h(
        "dl",
        { class: "facts keys" },
        KEYS.map(([keys, key]) => [h("dt", null, h("kbd", null, keys)), h("dd", null, t(key))]),
      ),
      h("p", { class: "hint" }, t("help.wake")),
    ],
    buttons: [{ value: "yes", label: t("close"), kind: "primary" }],
  });
}
