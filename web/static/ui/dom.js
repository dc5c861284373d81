/**
 * Builds elements, and turns the elements on the page into the ones that are wanted with the fewest changes.
 *
 * A page draws everything from the state each time; `morph` keeps what is there already, so that focus,
 * scroll and transitions survive. Listeners are never put on drawn elements: a click is looked up by its
 * `data-act`.
 */

const SVG = "http://www.w3.org/2000/svg";
const SVG_TAGS = new Set(["svg", "use", "path", "circle"]);

/** An element, text, nothing, or a list of these. @typedef {any} Child */

/**
 * @param {string} tag
 * @param {Record<string, any> | null} [props]  attributes; true is an empty one, null and false are none; `key`
 *   is for morph
 * @param {...Child} children
 * @returns {any} an element
 */
export function h(tag, props, ...children) {
  const element = SVG_TAGS.has(tag) ? document.createElementNS(SVG, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(props ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    element.setAttribute(name === "key" ? "data-key" : name, value === true ? "" : String(value));
  }
  element.append(...flat(children));
  return element;
}

/**
 * Stands for an element that is on the page already and needs no change.
 * @param {string} tag
 * @param {string} key
 */
export function asIs(tag, key) {
  return h(tag, { key, "data-as-is": true });
}

/** An icon of the sprite; silent for screen readers. @param {string} name */
export function icon(name) {
  return h(
    "svg",
    { class: `icon icon-${name}`, "aria-hidden": "true" },
    h("use", { href: `/static/icons.svg#${name}` }),
  );
}

/** @param {Child[]} children @returns {Array<Node | string>} */
function flat(children) {
  return /** @type {Child[]} */ (children.flat(Infinity))
    .filter((child) => child !== null && child !== undefined && child !== false && child !== "")
    .map((child) => (child instanceof Node ? child : String(child)));
}

/**
 * Make the children of `parent` look like `wanted`.
 * @param {Element} parent
 * @param {...Child} wanted
 */
export function draw(parent, ...wanted) {
  const focused = document.activeElement;
  const fragment = document.createDocumentFragment();
  fragment.append(...flat(wanted));
  morph(parent, [...fragment.childNodes]);
  if (focused instanceof HTMLElement && focused !== document.activeElement && parent.contains(focused))
    focused.focus();
}

/** @param {Node} parent @param {Node[]} wanted */
function morph(parent, wanted) {
  /** @type {Map<string, Node>} */
  const known = new Map();
  for (const child of parent.childNodes) {
    const key = keyOf(child);
    if (key !== null) known.set(key, child);
  }
  let at = parent.firstChild;
  for (const node of wanted) {
    const key = keyOf(node);
    const match = key === null ? at : (known.get(key) ?? null);
    if (match === null || !alike(match, node)) {
      parent.insertBefore(node, at);
      continue;
    }
    if (match === at) at = at.nextSibling;
    else parent.insertBefore(match, at);
    if (!(node instanceof Element && node.hasAttribute("data-as-is"))) update(match, node);
  }
  while (at !== null) {
    const next = at.nextSibling;
    at.remove();
    at = next;
  }
}

/** @param {Node} node */
function keyOf(node) {
  return node instanceof Element ? node.getAttribute("data-key") : null;
}

/** @param {Node} one @param {Node} other */
function alike(one, other) {
  return one.nodeName === other.nodeName && keyOf(one) === keyOf(other);
}

/** @param {Node} old @param {Node} wanted */
function update(old, wanted) {
  if (!(old instanceof Element) || !(wanted instanceof Element)) {
    if (old.nodeValue !== wanted.nodeValue) old.nodeValue = wanted.nodeValue;
    return;
  }
  for (const { name } of [...old.attributes]) {
    if (!wanted.hasAttribute(name)) old.removeAttribute(name);
  }
  for (const { name, value } of wanted.attributes) {
    if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
  if (old instanceof HTMLInputElement || old instanceof HTMLTextAreaElement) return; // what was typed stays
  morph(old, [...wanted.childNodes]);
}

/**
 * Call `handlers[act]` for clicks on elements with `data-act`.
 * @param {Element | Document} root
 * @param {Record<string, (data: any, element: HTMLElement) => void>} handlers
 */
export function onAct(root, handlers) {
  root.addEventListener("click", (event) => {
    const target = event.target instanceof Element ? event.target.closest("[data-act]") : null;
    if (target instanceof HTMLElement) handlers[target.dataset.act ?? ""]?.(target.dataset, target);
  });
}

/**
 * Draw soon, once, however often it is asked for.
 * @param {() => void} work
 */
export function drawer(work) {
  let asked = false;
  return () => {
    if (asked) return;
    asked = true;
    const run = () => {
      asked = false;
      work();
    };
    if (document.hidden)
      setTimeout(run, 50); // no frames while nobody looks
    else requestAnimationFrame(run);
  };
}
