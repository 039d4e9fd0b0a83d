// @ts-check
// One conversation, as the consumer and as the agent see it.
import { announce, button, byID, bytes, clock, element, soon } from "./dom.js";
import { stream } from "./rpc.js";

/**
 * @typedef {import("./session.js").Side} Side
 *
 * @typedef {object} Message
 * @property {number} sequence
 * @property {string} at
 * @property {string} from
 * @property {string} role
 * @property {boolean} [agentsOnly]
 * @property {"file" | "text" | "rich"} kind
 * @property {string} [text]
 * @property {{path: string, type: string, caption?: string}} [file]
 * @property {Record<string, string[]>} [receipts]
 */

/** @type {Side[]} */
export const sides = ["consumer", "agent"];

/** How many messages are shown at first, and how many more each time. */
const portion = 50;

export class Talk {
  /** @param {import("./session.js").Session} session */
  constructor(session) {
    this.session = session;
    this.id = "";
    this.limit = portion;
    this.closed = false;
    /** @type {Map<Side, {log: HTMLElement, list: HTMLElement, earlier: HTMLElement}>} */
    this.columns = new Map();
    /** The elements of messages, by side and sequence. @type {Map<string, HTMLElement>} */
    this.shown = new Map();
    /** Pictures as blobs, by path. @type {Map<string, Promise<string>>} */
    this.pictures = new Map();
    this.refresh = soon(() => this.load());
    this.visible = new IntersectionObserver((entries) => {
      for (const { isIntersecting, target } of entries) {
        if (!isIntersecting || !(target instanceof HTMLImageElement)) continue;
        this.visible.unobserve(target);
        this.fill(target);
      }
    });
    for (const side of sides) this.column(side);
  }

  /** @param {Side} side */
  column(side) {
    const title = element("h3", { id: side + "-title" }, side === "consumer" ? "Consumer sees" : "Agent sees");
    const earlier = button("Earlier messages", () => { this.limit += portion; this.refresh(); });
    earlier.hidden = true;
    const list = element("ol");
    const log = element("div", { role: "log", tabindex: "0", "aria-labelledby": title.id, class: "messages" }, earlier, list);
    const form = element("div", { class: "send", id: "send-" + side });
    byID("talk").querySelector(".sides")?.append(element("div", { class: "side", "data-side": side }, title, log, form));
    this.columns.set(side, { log, list, earlier });
  }

  /** Shows another conversation; an empty id: none. @param {string} id */
  select(id) {
    if (id === this.id) return;
    this.id = id;
    this.limit = portion;
    this.clear();
    byID("empty").hidden = id !== "";
    this.refresh();
  }

  clear() {
    for (const { list, earlier } of this.columns.values()) {
      list.replaceChildren();
      earlier.hidden = true;
    }
    this.shown.clear();
    for (const picture of this.pictures.values()) picture.then((url) => URL.revokeObjectURL(url), () => {});
    this.pictures.clear();
  }

  async load() {
    const id = this.id;
    if (!id) return;
    const response = await fetch(`/_sandbox/conversations/${encodeURIComponent(id)}?limit=${this.limit}`).catch(() => undefined);
    if (!response?.ok || id !== this.id) return; // the feed reports a lost sandbox
    const conversation = await response.json();
    this.closed = conversation.state !== "OPEN";
    for (const side of sides) this.render(side, conversation.messages, conversation.earlier);
  }

  /** @param {Side} side @param {Message[]} messages @param {number} earlier */
  render(side, messages, earlier) {
    const column = this.columns.get(side);
    if (!column) return;
    column.earlier.hidden = earlier === 0;
    column.earlier.textContent = `Earlier messages (${earlier})`;
    const atEnd = column.log.scrollHeight - column.log.scrollTop - column.log.clientHeight < 80;
    for (const [i, m] of messages.filter((m) => side === "agent" || !m.agentsOnly).entries()) {
      const key = side + m.sequence;
      let item = this.shown.get(key);
      if (!item) {
        item = this.item(side, m);
        this.shown.set(key, item);
        column.list.insertBefore(item, column.list.children[i] ?? null);
      }
      const marks = item.querySelector(".marks");
      if (marks) marks.textContent = receipts(m);
    }
    if (atEnd) column.log.scrollTop = column.log.scrollHeight;
  }

  /** @param {Side} side @param {Message} m */
  item(side, m) {
    const own = m.role === "CONSUMER" ? "consumer" : "agent";
    const item = element("li", { class: side === own ? "own" : "", "data-sequence": String(m.sequence) });
    if (m.file) item.append(this.file(side, own, m, m.file));
    else item.append(element("p", { dir: "auto" }, m.kind === "text" ? (m.text ?? "") : "a rich message"));
    item.append(element("p", { class: "meta" }, `#${m.sequence} ${m.role.toLowerCase().replace("_", " ")} ${clock(Date.parse(m.at)).slice(0, 8)} `,
      element("span", { class: "marks" })));
    return item;
  }

  /** @param {Side} side @param {string} own @param {Message} m @param {{path: string, type: string, caption?: string}} file */
  file(side, own, m, file) {
    const figure = element("figure");
    const caption = file.caption ?? "";
    if (/^(jpe?g|png|gif|img)$/i.test(file.type)) {
      const image = element("img", { alt: caption ? "Picture: " + caption : "Picture without a caption", "data-path": file.path });
      figure.append(image);
      this.visible.observe(image);
    } else {
      figure.append(element("p", { class: "card" }, file.type + " document"));
    }
    figure.append(element("figcaption", { dir: "auto" }, caption));
    if (side !== own && this.session.info.sends) {
      const open = button("Download", () => this.download(side, m, file.path, open));
      open.setAttribute("aria-label", `Download message ${m.sequence} as ${side}`);
      figure.append(open);
    }
    return figure;
  }

  /** Shows a picture in an <img>, where nothing in it can run. @param {HTMLImageElement} image */
  async fill(image) {
    const path = image.dataset["path"] ?? "";
    let picture = this.pictures.get(path);
    if (!picture) this.pictures.set(path, (picture = load(path)));
    try {
      image.src = await picture;
    } catch {
      this.pictures.delete(path);
      image.replaceWith(element("p", { class: "card bad" }, "the store does not have a picture here"));
    }
  }

  /** Downloads a file through the server, which sends a receipt. @param {Side} side @param {Message} m @param {string} path @param {HTMLButtonElement} pressed */
  async download(side, m, path, pressed) {
    pressed.disabled = true;
    try {
      const conversation = `accounts/${this.session.account}/conversations/${this.id}`;
      let size = 0, complete = false;
      for await (const part of stream("FileSharingService/Download", { storage: { conversation, storagePath: path } }, await this.session.metadata(side))) {
        size += part.chunk ? atob(part.chunk.data).length : 0;
        complete ||= part.trailer !== undefined;
      }
      announce(complete ? `Message ${m.sequence}: ${bytes(size)} downloaded as ${side}` : "The download is incomplete");
    } catch (e) {
      announce(`Message ${m.sequence} cannot be downloaded as ${side}: ${e instanceof Error ? e.message : e}`);
    } finally {
      pressed.disabled = false;
    }
  }
}

/** The receipts of a message in words. @param {Message} m */
function receipts(m) {
  const r = m.receipts ?? {};
  if (r["ACCESS"] || r["READ"]) return "✓✓ opened";
  return r["ACCEPT"] ? "✓ delivered" : "";
}

/** How the files begin that a browser may show. @type {[string, RegExp][]} */
const pictureTypes = [["image/jpeg", /^\xff\xd8\xff/], ["image/png", /^\x89PNG\r\n/], ["image/gif", /^GIF8/], ["image/webp", /^RIFF....WEBP/s]];

/** Returns the URL of a blob with a picture. @param {string} path in the store */
async function load(path) {
  const response = await fetch("/_sandbox/objects" + path);
  if (!response.ok) throw new Error("HTTP " + response.status);
  const data = await response.arrayBuffer();
  const start = String.fromCharCode(...new Uint8Array(data.slice(0, 16)));
  const type = pictureTypes.find(([, pattern]) => pattern.test(start))?.[0];
  if (!type) throw new Error("no picture");
  return URL.createObjectURL(new Blob([data], { type }));
}
