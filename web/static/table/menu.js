/**
 * The menu, and the dialog in which one product is chosen with its options.
 */

import { h, icon } from "../ui/dom.js";
import { money, t } from "../ui/i18n.js";
import { ask } from "../ui/speak.js";
import { campaignsView } from "./campaigns.js";

const QUANTITY_MAX = 99;
const HUES = 6;

/** @param {{client: import("../onda.js").Client}} page */
export function menuView({ client }) {
  const items = Object.values(client.state.menu ?? {});
  return [
    h("h2", { id: "h-menu" }, t("t.menu")),
    h("p", { class: "hint" }, t("t.vat")),
    campaignsView({ client }),
    items.length === 0 && h("p", { class: "empty" }, t("loading")),
    h("ul", { class: "products" }, items.map(product)),
  ];
}

/** @param {any} item */
function product({ product: id, name, price, was, sold_out: off, options }) {
  const asks = options.some((/** @type {any} */ option) => option.min > 0);
  const extras = options.map((/** @type {any} */ option) => option.name).join(" · ");
  return h(
    "li",
    { class: `product${off ? " off" : ""}`, key: id },
    h(
      "button",
      { type: "button", class: "product-main", "data-act": "product", "data-product": id, disabled: off },
      h("span", { class: `tile hue-${hue(id)}`, "aria-hidden": "true" }, [...name][0]),
      h(
        "span",
        { class: "product-text" },
        h("b", null, name),
        h(
          "span",
          { class: "price" },
          was && [h("s", { class: "was", "aria-label": t("t.was", { price: money(was) }) }, money(was)), " "],
          money(price),
        ),
        extras && h("small", null, extras),
        off && h("span", { class: "pill pill-closed" }, t("t.sold-out")),
      ),
    ),
    !off &&
      !asks &&
      h(
        "button",
        {
          type: "button",
          class: "square add",
          "data-act": "quick",
          "data-product": id,
          "aria-label": `${name}: ${t("do.add-to-cart")}`,
        },
        icon("plus"),
      ),
  );
}

/** A colour that stays with the product. @param {string} id */
function hue(id) {
  let sum = 0;
  for (const unit of id) sum += unit.charCodeAt(0);
  return sum % HUES;
}

/** What one piece costs with its options. @param {any} item @param {string[]} chosen */
export function unitPrice(item, chosen) {
  const choices = item.options.flatMap((/** @type {any} */ option) => option.choices);
  return choices
    .filter((/** @type {any} */ choice) => chosen.includes(choice.choice))
    .reduce((/** @type {number} */ sum, /** @type {any} */ choice) => sum + choice.price, item.price);
}

/** Names of what was chosen. @param {any} item @param {string[]} chosen @returns {string[]} */
export function chosenNames(item, chosen) {
  const choices = item?.options.flatMap((/** @type {any} */ option) => option.choices) ?? [];
  return chosen.map((id) => choices.find((/** @type {any} */ choice) => choice.choice === id)?.name ?? id);
}

/**
 * @param {any} item
 * @returns {Promise<{product: string, quantity: number, options: string[], note: string} | null>}
 */
export async function productDialog(item) {
  let quantity = 1;
  const count = h("output", { class: "count-big", "aria-label": t("t.quantity") }, "1");
  const step = (/** @type {string} */ by, /** @type {string} */ sign, /** @type {string} */ label) =>
    h("button", { type: "button", class: "plain square", "data-by": by, "aria-label": label }, icon(sign));
  const { value, form } = await ask({
    title: item.name,
    look: "product-dialog",
    body: [
      item.options.map(optionGroup),
      h(
        "div",
        { class: "row spread" },
        h("span", null, t("t.quantity")),
        h(
          "div",
          { class: "row stepper" },
          step("-1", "minus", t("t.less")),
          count,
          step("1", "plus", t("t.more")),
        ),
      ),
      h("label", { for: "note" }, t("t.note")),
      h("textarea", { id: "note", name: "note", rows: 2, maxlength: 200, placeholder: t("t.note-hint") }),
    ],
    buttons: [
      { value: "no", label: t("cancel"), kind: "quiet" },
      { value: "yes", label: "", kind: "primary" },
    ],
    ready: (dialog) => {
      const update = () => check(dialog, item, quantity);
      dialog.addEventListener("change", update);
      dialog.addEventListener("click", (event) => {
        const by =
          event.target instanceof Element && event.target.closest("[data-by]")?.getAttribute("data-by");
        if (!by) return;
        quantity = Math.min(Math.max(quantity + Number(by), 1), QUANTITY_MAX);
        count.textContent = String(quantity);
        update();
      });
      update();
    },
  });
  if (value !== "yes") return null;
  const options = item.options.flatMap((/** @type {any} */ option) => form.getAll(option.option).map(String));
  return { product: item.product, quantity, options, note: String(form.get("note")).trim() };
}

/** @param {any} option */
function optionGroup({ option, name, min, max, choices }) {
  const single = max === 1 && min === 1;
  const rule =
    min === 0
      ? t("t.optional", { n: max })
      : min === max
        ? t("t.required", { n: min })
        : t("t.range", { min, max });
  return h(
    "fieldset",
    { class: "options", "data-option": option, "data-min": min, "data-max": max },
    h("legend", null, h("b", null, name), h("span", { class: min > 0 ? "pill pill-need" : "pill" }, rule)),
    choices.map((/** @type {any} */ choice) =>
      h(
        "label",
        { class: "choice" },
        h("input", { type: single ? "radio" : "checkbox", name: option, value: choice.choice }),
        h("span", { class: "grow" }, choice.name),
        choice.price > 0 && h("span", { class: "price" }, `+${money(choice.price)}`),
      ),
    ),
  );
}

/**
 * Allow what the options allow, and put the price on the button.
 * @param {HTMLElement} dialog
 * @param {any} item
 * @param {number} quantity
 */
function check(dialog, item, quantity) {
  /** @type {string[]} */
  const chosen = [];
  let complete = true;
  for (const group of dialog.querySelectorAll("fieldset")) {
    const boxes = /** @type {HTMLInputElement[]} */ ([...group.querySelectorAll("input")]);
    const picked = boxes.filter((box) => box.checked);
    chosen.push(...picked.map((box) => box.value));
    if (picked.length < Number(group.dataset.min)) complete = false;
    const full = picked.length >= Number(group.dataset.max);
    for (const box of boxes) if (box.type === "checkbox") box.disabled = full && !box.checked;
  }
  const button = /** @type {HTMLButtonElement} */ (dialog.querySelector("button[value=yes]"));
  button.disabled = !complete;
  button.textContent = complete
    ? t("t.add", { price: money(unitPrice(item, chosen) * quantity) })
    : t("t.choose-first");
}
