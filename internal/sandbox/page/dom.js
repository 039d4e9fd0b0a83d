// @ts-check
// Elements are made here and nowhere else: text is always text, never HTML.

/**
 * Makes an element. Children that are strings become text.
 * @template {keyof HTMLElementTagNameMap} T
 * @param {T} tag
 * @param {Record<string, string | boolean | undefined>} [attributes] An attribute that is true is empty, one that is false or undefined is left out.
 * @param {...(Node | string)} children
 * @returns {HTMLElementTagNameMap[T]}
 */
export function element(tag, attributes = {}, ...children) {
  const e = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === false || value === undefined) continue;
    e.setAttribute(name, value === true ? "" : value);
  }
  e.append(...children);
  return e;
}

/**
 * Returns the element of index.html with that id.
 * @template {HTMLElement} [T=HTMLElement]
 * @param {string} id
 * @param {new () => T} [kind]
 * @returns {T}
 */
export function byID(id, kind) {
  const e = document.getElementById(id);
  if (!e || (kind && !(e instanceof kind))) throw new Error("index.html has no " + id);
  return /** @type {T} */ (e);
}

/** A button that calls pressed. @param {string} text @param {() => void} pressed */
export function button(text, pressed) {
  const b = element("button", { type: "button" }, text);
  b.addEventListener("click", pressed);
  return b;
}

/** Reports an outcome to the reader, also to one who uses a screen reader. @param {string} text */
export function announce(text) {
  byID("status").textContent = text;
}

/** The time of day with milliseconds. @param {number} at milliseconds */
export function clock(at) {
  const d = new Date(at);
  return d.toLocaleTimeString("en-GB") + "." + String(d.getMilliseconds()).padStart(3, "0");
}

/** A size for people. @param {number} n bytes */
export function bytes(n) {
  if (n < 1000) return n + " bytes";
  return n < 1e6 ? (n / 1e3).toFixed(1) + " kB" : (n / 1e6).toFixed(1) + " MB";
}

/**
 * Returns a function that calls work soon, once for all calls until then. Timers also run in tabs that are not seen.
 * @param {() => void} work @param {number} [wait] milliseconds
 */
export function soon(work, wait = 50) {
  let waiting = false;
  return () => {
    if (waiting) return;
    waiting = true;
    setTimeout(() => { waiting = false; work(); }, wait);
  };
}
