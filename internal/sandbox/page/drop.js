// @ts-check
// Sends files as the consumer or as the agent.
import { announce, button, byID, bytes, element } from "./dom.js";
import { CallError, unary } from "./rpc.js";

/**
 * @typedef {import("./session.js").Side} Side
 *
 * @typedef {object} Sending One file that is being sent, or was not sent.
 * @property {Side} side
 * @property {string} conversation the id
 * @property {File} file
 * @property {string} fileType
 * @property {string} caption
 * @property {string} requestID the same for all attempts
 */

/** Files that UploadSmallFile accepts at most, in bytes. */
const maxBytes = 5_000_000;

/** @type {Record<string, string>} */
const fileTypes = {
  jpg: "FILE_TYPE_JPEG", jpeg: "FILE_TYPE_JPEG", png: "FILE_TYPE_PNG", gif: "FILE_TYPE_GIF", pdf: "FILE_TYPE_PDF", txt: "FILE_TYPE_TXT",
  docx: "FILE_TYPE_DOCX", xlsx: "FILE_TYPE_XLSX", pptx: "FILE_TYPE_PPTX",
};

export class Drop {
  /**
   * @param {Side} side
   * @param {import("./session.js").Session} session
   * @param {() => string} conversation returns the id of the selected one
   * @param {(s: Sending) => void} sending is called when a file begins to be sent
   */
  constructor(side, session, conversation, sending) {
    this.side = side;
    this.session = session;
    this.conversation = conversation;
    this.sending = sending;
    this.input = element("input", { type: "file", multiple: true, accept: Object.keys(fileTypes).map((t) => "." + t).join(","), class: "visually-hidden" });
    this.caption = element("input", { type: "text", maxlength: "500", autocomplete: "off" });
    this.failures = element("ul", { class: "failures" });
    this.note = element("p", { class: "note" });
    const zone = element("label", { class: "zone" }, `Drop a file here, or choose one, to send as ${side} `, this.input);
    byID("send-" + side).append(element("label", {}, "Caption ", this.caption), zone, this.note, this.failures);
    this.input.addEventListener("change", () => {
      this.send([...(this.input.files ?? [])]);
      this.input.value = "";
    });
    zone.addEventListener("dragover", (e) => { e.preventDefault(); zone.classList.add("over"); });
    zone.addEventListener("dragleave", () => zone.classList.remove("over"));
    zone.addEventListener("drop", (e) => {
      e.preventDefault();
      zone.classList.remove("over");
      this.send([...(e.dataTransfer?.files ?? [])]);
    });
  }

  /** Enables sending if this page takes part in the selected conversation. */
  update() {
    const id = this.conversation();
    let why = "";
    if (!this.session.info.sends) why = "This page only shows what happens: no server that accepts its calls is in front of the sandbox.";
    else if (!id) why = "Choose New first.";
    else if (this.side === "consumer" && !this.session.own.has(id)) why = "The consumer of this conversation is another program. Choose New to be a consumer.";
    this.note.textContent = why;
    this.input.disabled = this.caption.disabled = why !== "";
  }

  /** @param {File[]} files */
  async send(files) {
    if (this.input.disabled) return;
    const caption = this.caption.value, conversation = this.conversation();
    this.caption.value = "";
    for (const file of files) {
      const fileType = fileTypes[file.name.split(".").pop()?.toLowerCase() ?? ""] ?? "FILE_TYPE_UNSPECIFIED";
      await this.attempt({ side: this.side, conversation, file, fileType, caption, requestID: crypto.randomUUID() });
    }
  }

  /** @param {Sending} s */
  async attempt(s) {
    if (s.file.size > maxBytes) {
      this.fail(s, `It has ${bytes(s.file.size)}; this page sends up to ${bytes(maxBytes)}. Use the command line.`, false);
      return;
    }
    this.sending(s);
    announce(`Sending ${s.file.name} as ${s.side}`);
    try {
      const spec = {
        conversation: `accounts/${this.session.account}/conversations/${s.conversation}`, displayName: s.file.name, fileType: s.fileType, caption: s.caption,
        requestId: s.requestID,
      };
      const { result } = await unary("FileSharingService/UploadSmallFile", { spec, data: await base64(s.file) }, await this.session.metadata(s.side));
      const again = result.replayed ? ", which an earlier attempt had done" : "";
      announce(`Sent ${s.file.name}: stored, and published once as message ${result.file.messageSequence ?? 0}${again}`);
    } catch (e) {
      const why = e instanceof CallError ? `${e.reason}: ${e.message}` : String(e);
      this.fail(s, why, true);
    }
  }

  /** @param {Sending} s @param {string} why @param {boolean} repeatable */
  fail(s, why, repeatable) {
    announce(`${s.file.name} was not sent: ${why}`);
    const row = element("li", { class: "bad" }, element("span", { dir: "auto" }, `${s.file.name}: ${why} `));
    if (repeatable) row.append(button("Send again under the same id", () => { row.remove(); this.attempt(s); }), " ");
    row.append(button("Dismiss", () => row.remove()));
    this.failures.append(row);
  }
}

/** @param {File} file @returns {Promise<string>} */
function base64(file) {
  return new Promise((done, failed) => {
    const reader = new FileReader();
    reader.onload = () => done(String(reader.result).split(",")[1] ?? "");
    reader.onerror = () => failed(new Error("the file cannot be read"));
    reader.readAsDataURL(file);
  });
}
