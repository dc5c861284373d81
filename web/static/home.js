/**
 * The links page: what this is, and the ways into the demo shop or another one. It holds no token and asks
 * for none.
 */

import { draw, h, icon, onAct } from "./ui/dom.js";
import { showLanguage, switchLanguage, t } from "./ui/i18n.js";

const DEMO = "demo";
const DEMO_TABLES = ["1", "2", "3", "4", "5", "6"];
/** Where guests pay first. */
const CAFE = "cafe";
const CAFE_TABLES = ["1", "2"];
const ID = "[A-Za-z0-9_.\\-]{1,64}";

const app = /** @type {HTMLElement} */ (document.getElementById("app"));

function show() {
  document.title = t("home.title");
  draw(app, header(), h("main", { class: "home" }, lead(), board(), tables(), other()), footer());
}

function header() {
  return h(
    "header",
    { class: "bar" },
    h("div", { class: "brand" }, icon("wave"), h("span", null, t("home.title"))),
    h(
      "button",
      { type: "button", class: "quiet", "data-act": "language" },
      icon("globe"),
      t("other-language"),
    ),
  );
}

function lead() {
  return h("section", { class: "lead" }, h("h1", null, t("home.lead")), h("p", null, t("home.what")));
}

function board() {
  return h(
    "a",
    { class: "door", href: `/board/${DEMO}` },
    icon("fire"),
    h("span", { class: "grow" }, h("b", null, t("home.board")), h("small", null, t("home.board-help"))),
    icon("arrow"),
  );
}

function tables() {
  const links = (/** @type {string} */ store, /** @type {string[]} */ names, label = "") =>
    h(
      "ul",
      { class: "row", "aria-label": label || null },
      label && h("li", { class: "hint" }, label),
      names.map((table) =>
        h(
          "li",
          null,
          h(
            "a",
            {
              class: "button",
              href: `/t/${store}/${table}`,
              "aria-label": `${label} ${t("table-n", { table })}`,
            },
            table,
          ),
        ),
      ),
    );
  return h(
    "section",
    { class: "door" },
    icon("menu"),
    h("span", { class: "grow" }, h("b", null, t("home.tables")), h("small", null, t("home.tables-help"))),
    links(DEMO, DEMO_TABLES),
    links(CAFE, CAFE_TABLES, t("home.cafe")),
    h("p", { class: "hint wide" }, icon("lock"), t("home.token-help")),
  );
}

function other() {
  const field = (/** @type {string} */ name, /** @type {string} */ label, /** @type {string} */ value) =>
    h(
      "label",
      null,
      label,
      h("input", { name, value, pattern: ID, required: true, autocomplete: "off", autocapitalize: "none" }),
    );
  return h(
    "form",
    { class: "door", id: "other" },
    h("b", { class: "wide" }, t("home.go")),
    field("store", t("home.store"), DEMO),
    field("table", t("table"), "1"),
    h(
      "div",
      { class: "row wide" },
      h("button", { class: "plain", value: "board" }, t("home.open-board")),
      h("button", { class: "plain", value: "table" }, t("home.open-table")),
    ),
  );
}

function footer() {
  return h(
    "footer",
    { class: "row" },
    h("a", { href: "/docs" }, t("home.docs")),
    h("a", { href: "/ops" }, t("home.ops")),
    h("a", { href: "/healthz" }, t("home.health")),
  );
}

document.addEventListener("submit", (event) => {
  event.preventDefault();
  const form = new FormData(/** @type {HTMLFormElement} */ (event.target));
  const [store, table] = [form.get("store"), form.get("table")];
  const button = /** @type {HTMLButtonElement | null} */ (event.submitter);
  location.href = button?.value === "table" ? `/t/${store}/${table}` : `/board/${store}`;
});
onAct(document, {
  language: () => {
    switchLanguage();
    show();
  },
});
showLanguage();
show();
