// @ts-check
// The events as a table, the newest first.
import { announce, byID, bytes, clock, element, soon } from "./dom.js";

/** @typedef {import("./feed.js").Entry} Entry */

/** How many events are kept and shown. */
const most = 500;

/** Groups of kinds that can be left out. @type {Record<string, string[]>} */
const groups = {
  calls: ["call"], store: ["signed", "stored", "store", "fetched", "refused"], frames: ["frame"], webhooks: ["exchange", "delivered"],
  messages: ["published", "message", "conversation"], faults: ["fault"],
};

/** What a row says of an event, by kind. @type {Record<string, (d: any) => string>} */
const summaries = {
  call: (d) => [d.method, d.phase, d.code, d.reason, d.name].filter(Boolean).join(" "),
  signed: (d) => `${d.method} ${short(d.path)}`,
  stored: (d) => `${bytes(d.size)} ${short(d.path)}`,
  store: (d) => `${d.method} ${d.phase === "begin" ? "begins" : (d.status || "cut")} ${d.received ? bytes(d.received) + " " : ""}${d.ms ? Math.round(d.ms) + " ms " : ""}${short(d.path)}`,
  published: (d) => `#${d.sequence} ${d.fileType} ${d.role.toLowerCase()} ${d.caption}`,
  message: (d) => `#${d.sequence} ${d.type} ${d.status ?? ""} ${d.role.toLowerCase()}`,
  conversation: (d) => `${d.id} ${d.state}`,
  fetched: (d) => `bytes ${d.from} to ${d.to} ${short(d.path)}`,
  refused: (d) => `${d.status} ${d.method} ${short(d.path)}`,
  frame: (d) => `${d.fromClient ? "→" : "←"} ${typeOf(d.text)} ${d.dialect} socket ${d.socket}, ${bytes(d.size)}`,
  exchange: (d) => `${d.endpoint} ${d.status}`,
  delivered: (d) => `${d.event} ${d.outcome} ${d.status}`,
  fault: (d) => `${d.on} ${d.change}${d.left === null ? "" : `, ${d.left} left`}`,
  gap: (d) => `${d.missed} events missed: the sandbox keeps the latest only`,
  restart: () => "the sandbox was restarted",
};

/** The end of a path, which differs. @param {string} path */
const short = (path) => "…" + path.slice(-36);

/** The type of a frame, whose text may be cut. @param {string} text */
function typeOf(text) {
  try {
    return String(JSON.parse(text).type ?? "");
  } catch {
    return /"type":\s*"([^"]*)"/.exec(text)?.[1] ?? "";
  }
}

/** Whether an event is one of trouble. @param {Entry} e */
const bad = (e) => e.kind === "refused" || e.kind === "gap" || (e.kind === "call" && e.data.phase === "end" && e.data.code !== "OK") ||
  (e.kind === "store" && e.data.phase === "end" && !(e.data.status < 400)) || (e.kind === "fault" && e.data.change === "struck");

export class Wire {
  constructor() {
    /** The latest events, oldest first, and the number of those before. @type {Entry[]} */
    this.entries = [];
    this.dropped = 0;
    /** @type {Entry[]} */
    this.fresh = [];
    /** @type {Set<string>} */
    this.hidden = new Set();
    this.flush = soon(() => this.show());
    this.rows = byID("wire-rows");
    this.filter = byID("wire-filter", HTMLInputElement);
    this.filter.addEventListener("input", () => this.redraw());
    for (const group of Object.keys(groups)) {
      const box = element("input", { type: "checkbox", checked: true });
      box.addEventListener("change", () => {
        for (const kind of groups[group] ?? []) if (box.checked) this.hidden.delete(kind); else this.hidden.add(kind);
        this.redraw();
      });
      byID("wire-kinds").append(element("label", {}, box, " " + group));
    }
    this.rows.addEventListener("click", ({ target }) => {
      const row = target instanceof Element ? target.closest("tr") : null;
      if (row) this.open(row);
    });
    byID("wire-close").addEventListener("click", () => this.close());
    byID("wire-copy").addEventListener("click", async () => {
      await navigator.clipboard.writeText(byID("wire-detail").querySelector("pre")?.textContent ?? "");
      announce("The event was copied");
    });
    setInterval(() => this.countDown(), 1000);
  }

  /** @param {Entry} e */
  event(e) {
    this.fresh.push(e);
    this.flush();
  }

  show() {
    const fresh = this.fresh.splice(0);
    this.entries.push(...fresh);
    const over = Math.max(0, this.entries.length - most);
    this.entries.splice(0, over);
    this.dropped += over;
    this.rows.prepend(...fresh.slice(-most).filter((e) => this.matches(e)).map(row).reverse());
    while (this.rows.children.length > most) this.rows.lastElementChild?.remove();
    const more = byID("wire-more");
    more.hidden = this.dropped === 0;
    more.replaceChildren(`${this.dropped} earlier events are not shown; `, element("a", { href: "/_sandbox/journal", download: "journal.json" }, "the journal"), " has them.");
  }

  redraw() {
    this.rows.replaceChildren(...this.entries.filter((e) => this.matches(e)).map(row).reverse());
  }

  /** @param {Entry} e */
  matches(e) {
    const text = this.filter.value.toLowerCase();
    return !this.hidden.has(e.kind) && (text === "" || (e.kind + JSON.stringify(e.data)).toLowerCase().includes(text));
  }

  clear() {
    this.entries = [];
    this.dropped = 0;
    this.close();
    this.redraw();
    byID("wire-more").hidden = true;
  }

  /** Moves the selection. @param {1 | -1} by */
  move(by) {
    const now = this.rows.querySelector("tr:focus, tr.selected");
    const next = now ? (by > 0 ? now.nextElementSibling : now.previousElementSibling) : this.rows.firstElementChild;
    if (next instanceof HTMLElement) {
      now?.classList.remove("selected");
      next.classList.add("selected");
      next.focus();
    }
  }

  /** Shows all of an event. @param {HTMLTableRowElement} row */
  open(row) {
    const entry = this.entries.find((e) => key(e) === row.dataset["key"]);
    const detail = byID("wire-detail"), text = detail.querySelector("pre");
    if (!entry || !text) return;
    for (const r of this.rows.querySelectorAll(".selected")) r.classList.remove("selected");
    row.classList.add("selected");
    text.textContent = pretty(entry);
    detail.hidden = false;
  }

  close() {
    byID("wire-detail").hidden = true;
  }

  countDown() {
    for (const left of this.rows.querySelectorAll("[data-until]")) {
      if (!(left instanceof HTMLElement)) continue;
      const seconds = Math.ceil((Number(left.dataset["until"]) - Date.now()) / 1000);
      left.textContent = seconds > 0 ? ` ${seconds} s left` : " expired";
      if (seconds <= 0) delete left.dataset["until"];
    }
  }
}

/** Identifies an event among those that are kept. @param {Entry} e */
const key = (e) => `${e.kind} ${e.at} ${e.id}`;

/** @param {Entry} e */
function row(e) {
  const details = element("td", { dir: "auto" }, summaries[e.kind]?.(e.data) ?? "");
  if (e.kind === "signed") {
    const until = Date.parse(e.data.expires);
    details.append(` expires ${clock(until).slice(0, 8)}`, element("span", { "data-until": String(until), "aria-hidden": "true" }));
  }
  return element("tr", { tabindex: "-1", class: bad(e) ? "bad" : "", "data-key": key(e), "data-id": String(e.id), "data-kind": e.kind },
    element("td", {}, clock(Date.parse(e.at))), element("td", {}, e.kind), details);
}

/** An event in full; the JSON in a frame is shown as JSON. @param {Entry} e */
function pretty(e) {
  return JSON.stringify(e, (name, value) => {
    if (name !== "text" || typeof value !== "string") return value;
    try {
      return JSON.parse(value);
    } catch {
      return value;
    }
  }, 2);
}
