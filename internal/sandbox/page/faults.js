// @ts-check
// Arms faults, and shows which are armed.
import { announce, button, byID, element, soon } from "./dom.js";

/** The faults that one click arms, by what they do. @type {Record<string, Record<string, unknown>>} */
const scenarios = {
  "lose the answer 1×": { on: "ms.PublishEvent", dropAfter: true, count: 1 },
  "store: 503 2×": { on: "store:PUT", status: 503, count: 2 },
  "slow store": { on: "store:PUT", bytesPerSecond: 15000 },
  "cut the PUT": { on: "store:PUT", cutAfter: 50000 },
  "URL expired 1×": { on: "store:PUT", expire: true, count: 1 },
  "LivePerson is silent 1×": { on: "ms.PublishEvent", mute: true, count: 1 },
};

/** @typedef {{id: number, on: string, struck: number, left: number | null} & Record<string, unknown>} Armed */

export class Faults {
  constructor() {
    /** @type {Armed[]} */
    this.armed = [];
    /** @type {Map<string, HTMLButtonElement>} */
    this.buttons = new Map();
    this.refresh = soon(() => this.load());
    for (const name of Object.keys(scenarios)) {
      const b = button(name, () => this.toggle(name));
      b.setAttribute("aria-pressed", "false");
      this.buttons.set(name, b);
      byID("scenarios").append(b);
    }
    byID("scenarios").append(button("Drop the sockets", () => this.dropSockets()));
    byID("faults-off").addEventListener("click", () => this.request("DELETE", ""));
    this.load();
  }

  /** @param {import("./feed.js").Entry} e */
  event(e) {
    if (e.kind === "fault" || e.kind === "restart") this.refresh();
  }

  async load() {
    const response = await fetch("/_sandbox/faults").catch(() => undefined);
    if (!response?.ok) return;
    this.armed = await response.json();
    for (const [name, b] of this.buttons) b.setAttribute("aria-pressed", String(this.find(name) !== undefined));
    byID("armed").textContent = this.armed.length === 0 ? "no fault is armed" : `armed: ${this.armed.length}`;
    byID("faults").replaceChildren(...this.armed.map((f) => element("li", {},
      `${f.on}, struck ${f.struck} times, ${f.left === null ? "until it is removed" : f.left + " left"} `,
      remove(f, () => this.request("DELETE", "/" + f.id)))));
  }

  /** The armed fault of a scenario. @param {string} name */
  find(name) {
    return this.armed.find((f) => Object.entries(scenarios[name] ?? {}).every(([k, v]) => f[k] === v));
  }

  /** @param {string} name */
  async toggle(name) {
    const armed = this.find(name);
    if (armed) await this.request("DELETE", "/" + armed.id);
    else await this.request("POST", "", scenarios[name]);
  }

  /** @param {string} method @param {string} path @param {object} [body] */
  async request(method, path, body) {
    const response = await fetch("/_sandbox/faults" + path, { method, ...(body ? { body: JSON.stringify(body) } : {}) }).catch(() => undefined);
    if (!response) announce("The sandbox cannot be reached");
    else if (!response.ok && response.status !== 404) announce(await response.text()); // 404: it has struck for the last time
    await this.load();
  }

  async dropSockets() {
    const response = await fetch("/_sandbox/sockets/drop", { method: "POST" }).catch(() => undefined);
    if (response?.ok) announce(`${(await response.json()).dropped} sockets were dropped`);
  }
}

/** @param {Armed} f @param {() => void} pressed */
function remove(f, pressed) {
  const b = button("Remove", pressed);
  b.setAttribute("aria-label", "Remove the fault on " + f.on);
  return b;
}
