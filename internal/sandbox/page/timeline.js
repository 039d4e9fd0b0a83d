// @ts-check
// The time line of an upload: what the server did for it at LivePerson and in the store. Uploads of all clients are here.
import { announce, bytes, byID, clock, element, soon } from "./dom.js";

/**
 * @typedef {object} Step
 * @property {string} name
 * @property {number} from milliseconds
 * @property {number} [to] undefined while it runs
 * @property {"ok" | "bad"} [result]
 *
 * @typedef {object} Call One attempt.
 * @property {number} call
 * @property {string} name
 * @property {string} conversation
 * @property {string} requestID
 * @property {Set<string>} paths in the store
 * @property {Step[]} steps
 * @property {string} [code] once it has ended
 */

/** How many calls are kept. */
const most = 40;

export class Timeline {
  constructor() {
    /** @type {Call[]} */
    this.calls = [];
    this.selected = 0; // the number of a call; 0: the latest
    this.draw = soon(() => this.render());
    this.select = byID("uploads", HTMLSelectElement);
    this.select.addEventListener("change", () => {
      this.selected = Number(this.select.value);
      this.draw();
    });
    setInterval(() => { if (this.calls.some((c) => c.steps.some((s) => !s.to))) this.draw(); }, 200);
  }

  /** @param {import("./feed.js").Entry} e */
  event(e) {
    const at = Date.parse(e.at), d = e.data;
    if (e.kind === "restart") this.calls = [];
    if (e.kind === "call") this.call(d, at);
    if (e.kind === "signed" && d.method === "PUT") this.signed(d, at);
    if (e.kind === "store" && d.method === "PUT") this.put(d, at);
    if (e.kind === "published") this.add(this.having(d.path), { name: "published as message " + d.sequence, from: at, to: at, result: "ok" });
    if (e.kind === "fault" && d.change === "struck") this.struck(d, at);
    this.draw();
  }

  /** @param {any} d @param {number} at */
  call(d, at) {
    if (!/^FileSharingService\/Upload(SmallFile)?$/.test(d.method)) return;
    if (d.phase === "begin") {
      /** @type {Call} */
      const call = { call: d.call, name: "", conversation: "", requestID: "", paths: new Set(), steps: [{ name: "call", from: at }] };
      this.calls.push(call);
      this.calls.splice(0, this.calls.length - most);
      return;
    }
    const call = this.calls.find((c) => c.call === d.call);
    if (!call) return;
    Object.assign(call, { name: d.name ?? "", conversation: (d.conversation ?? "").split("/").pop(), requestID: d.requestId ?? "" });
    if (d.phase !== "end") return;
    if (d.path) this.own(call, d.path);
    call.code = d.code;
    for (const s of call.steps) s.to ??= at;
    const first = call.steps[0];
    if (first) first.result = d.code === "OK" ? "ok" : "bad";
    call.steps.push({ name: "answer: " + (d.reason || d.code), from: at, to: at, result: d.code === "OK" ? "ok" : "bad" });
  }

  /** A URL belongs to the oldest running call that has none yet, else to the latest that runs. @param {any} d @param {number} at */
  signed(d, at) {
    const running = this.calls.filter((c) => c.code === undefined);
    const call = running.find((c) => c.paths.size === 0) ?? running.at(-1);
    call?.paths.add(d.path);
    this.add(call, { name: "signed URL", from: at, to: at, result: "ok" });
  }

  /** The end of a call says which file it stored: corrects the guess of signed. @param {Call} call @param {string} path */
  own(call, path) {
    const other = this.having(path);
    if (!other || other === call || call.paths.has(path)) return;
    [call.paths, other.paths] = [other.paths, call.paths];
    const [mine, others] = [call, other].map((c) => c.steps.filter((s) => s.name !== "call" && !s.name.startsWith("answer")));
    call.steps = [...call.steps.filter((s) => !mine?.includes(s)), ...(others ?? [])];
    other.steps = [...other.steps.filter((s) => !others?.includes(s)), ...(mine ?? [])];
  }

  /** @param {any} d @param {number} at */
  put(d, at) {
    const call = this.having(d.path);
    if (d.phase === "begin") {
      this.add(call, { name: "PUT", from: at });
      return;
    }
    const step = call?.steps.findLast((s) => s.name === "PUT" && !s.to);
    if (!step) return;
    step.to = at;
    step.result = d.status >= 200 && d.status < 300 ? "ok" : "bad";
    step.name = d.status ? `PUT ${d.status}, ${bytes(d.received ?? 0)}` : `PUT cut after ${bytes(d.received ?? 0)}`;
  }

  /** @param {any} d @param {number} at */
  struck(d, at) {
    const running = this.calls.filter((c) => c.code === undefined);
    if (running.length === 1) this.add(running[0], { name: "fault: " + d.on, from: at, to: at, result: "bad" });
  }

  /** @param {string} path */
  having(path) {
    return this.calls.findLast((c) => c.paths.has(path));
  }

  /** @param {Call | undefined} call @param {Step} step */
  add(call, step) {
    call?.steps.push(step);
  }

  /** The call that is shown. */
  get shown() {
    return this.calls.find((c) => c.call === this.selected) ?? this.calls.at(-1);
  }

  /** The attempts of the shown upload: the calls with its request id. */
  get attempts() {
    const shown = this.shown;
    if (!shown) return [];
    return this.calls.filter((c) => c === shown || (c.requestID !== "" && c.requestID === shown.requestID));
  }

  render() {
    const attempts = this.attempts, last = attempts.at(-1);
    this.options();
    byID("timeline").replaceChildren(...attempts.map((c, i) => element("li", { "data-call": String(c.call) },
      ...(attempts.length > 1 ? [element("h3", {}, "Attempt " + (i + 1))] : []), steps(c))));
    if (!last) return;
    const published = attempts.some((c) => c.steps.some((s) => s.name.startsWith("published")));
    const state = last.code === undefined ? "running" : last.code + (published && last.code === "OK" ? ", published once" : "");
    byID("upload-state").textContent = `${last.name || "a file"}: ${state}` + (last.requestID ? `, request id ${last.requestID}` : "");
  }

  options() {
    const wanted = this.calls.slice().reverse().map((c) => `${c.call} ${c.name || "a file"} ${c.code ?? "running"}`);
    if ([...this.select.options].map((o) => o.text).join() === wanted.join()) return;
    this.select.replaceChildren(...wanted.map((text) => element("option", { value: text.split(" ")[0] }, text)));
    if (this.shown) this.select.value = String(this.shown.call);
  }

  clear() {
    this.calls = this.calls.filter((c) => c.code === undefined);
    byID("upload-state").textContent = "No upload yet. Uploads of any client are shown.";
    announce("Cleared");
    this.draw();
  }
}

/** The steps of a call as bars, to scale, with their times as text. @param {Call} call */
function steps(call) {
  const begin = call.steps[0]?.from ?? 0;
  const ends = call.steps.map((s) => s.to ?? Date.now());
  const span = Math.max(1, ...ends.map((end) => end - begin));
  const sorted = call.steps.slice().sort((a, b) => a.from - b.from || Number(a.name.startsWith("answer")) - Number(b.name.startsWith("answer")));
  return element("ol", { class: "steps" }, ...sorted.map((s) => {
    const bar = element("span", { class: "bar", "aria-hidden": "true" }), inner = element("span", {});
    inner.style.marginLeft = `min(${(100 * (s.from - begin)) / span}%, 100% - 4px)`; // what takes no time has 4 px
    inner.style.width = (100 * ((s.to ?? Date.now()) - s.from)) / span + "%";
    bar.append(inner);
    const took = s.to === undefined ? `, running for ${Date.now() - s.from} ms` : s.to > s.from ? `, ${s.to - s.from} ms` : "";
    return element("li", { class: s.to === undefined ? "running" : (s.result ?? ""), "data-step": s.name.split(/[ :,]/)[0], "data-at": String(s.from) },
      element("span", { class: "name" }, s.name), element("span", { class: "time", title: clock(s.from) }, `+${s.from - begin} ms${took}`), bar);
  }));
}
