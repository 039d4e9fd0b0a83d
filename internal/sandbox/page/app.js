// @ts-check
// The console page: which parts there are, and what they pass to each other.
import { forms } from "./copy.js";
import { announce, button, byID, element, soon } from "./dom.js";
import { Drop } from "./drop.js";
import { Faults } from "./faults.js";
import { Feed } from "./feed.js";
import { CallError } from "./rpc.js";
import { Session } from "./session.js";
import { Talk, sides } from "./talk.js";
import { Timeline } from "./timeline.js";
import { Wire } from "./wire.js";

/** @type {Record<import("./feed.js").State, string>} */
const states = {
  loading: "connecting", live: "live", lost: "reconnecting", ended: "the sandbox has ended or cannot be reached: start it again, make run",
};

const response = await fetch("/_sandbox/info");
const session = new Session(await response.json());
const talk = new Talk(session), timeline = new Timeline(), wire = new Wire(), faults = new Faults();
const choice = byID("conversation", HTMLSelectElement);
/** @type {import("./copy.js").Action} */
let action = { side: "consumer", account: session.account, conversation: "CONVERSATION", file: "photo.jpg", fileType: "FILE_TYPE_JPEG", caption: "" };
let form = "CLI";
const drops = sides.map((side) => new Drop(side, session, () => talk.id, (s) => {
  action = { ...action, side, conversation: s.conversation, file: s.file.name, fileType: s.fileType, caption: s.caption };
  timeline.selected = 0;
  command();
}));

/** Selects a conversation. @param {string} id */
function select(id) {
  choice.value = id;
  talk.select(id);
  action = { ...action, conversation: id || "CONVERSATION" };
  for (const d of drops) d.update();
  command();
}

/** Lists the conversations; the newest is selected unless another one is. */
const list = soon(async () => {
  const answer = await fetch("/_sandbox/conversations").catch(() => undefined);
  if (!answer?.ok) return;
  /** @type {{id: string, account: string, state: string}[]} */
  const all = (await answer.json()).filter((/** @type {{account: string}} */ c) => c.account === session.account);
  choice.replaceChildren(...all.map((c) => element("option", { value: c.id }, `${c.id.slice(0, 8)} ${c.state === "OPEN" ? "open" : "closed"}`)));
  const listed = all.some((c) => c.id === talk.id);
  if (!listed && session.own.has(talk.id)) option(talk.id); // this page created it after the list was made
  else if (all.length === 0) choice.append(element("option", { value: "" }, "none yet"));
  select(listed || session.own.has(talk.id) ? talk.id : (all[0]?.id ?? ""));
});

/** Adds a conversation of this page to the choice. @param {string} id */
function option(id) {
  if (![...choice.options].some((o) => o.value === id)) choice.prepend(element("option", { value: id }, id.slice(0, 8) + " open"));
}

async function create() {
  try {
    announce("Signing in and creating a conversation");
    const id = await session.create();
    option(id);
    select(id);
    announce("A new conversation is open");
  } catch (e) {
    announce("No conversation was created: " + (e instanceof CallError ? `${e.reason}: ${e.message}` : e));
  }
}

function command() {
  const server = { grpc: session.info.grpc ?? "127.0.0.1:50051", tls: session.info.tls ?? false, origin: location.origin };
  byID("copy-text").textContent = forms[form]?.(action, server) ?? "";
  for (const b of byID("copy-kinds").children) b.setAttribute("aria-pressed", String(b.textContent === form));
  byID("copy-token", HTMLButtonElement).disabled = !session.info.sends;
}

async function copy() {
  await navigator.clipboard.writeText(byID("copy-text").textContent ?? "");
  announce("The command was copied. It uses the variable TOKEN: Copy TOKEN.");
}

async function copyToken() {
  const { token } = await session.identity(action.side);
  await navigator.clipboard.writeText(token);
  announce(`The ${action.side}'s token was copied: TOKEN=… in a shell`);
}

/** The keys, when no field has the focus. @type {Record<string, () => void>} */
const keys = {
  1: () => drops[0]?.input.focus(), 2: () => drops[1]?.input.focus(), n: create, "/": () => wire.filter.focus(), j: () => wire.move(1), k: () => wire.move(-1),
  c: copy, f: () => byID("scenarios").querySelector("button")?.focus(), "?": () => byID("help", HTMLDialogElement).showModal(),
};

document.addEventListener("keydown", (e) => {
  const at = e.target instanceof HTMLElement ? e.target : document.body;
  if (e.key === "Escape") {
    wire.close();
    if (at === wire.filter) at.blur();
  }
  if (e.ctrlKey || e.metaKey || e.altKey || at.closest("dialog, select, textarea, input:not([type=file], [type=checkbox])")) return;
  if (e.key === "Enter" && at instanceof HTMLTableRowElement) wire.open(at);
  const act = keys[e.key];
  if (!act) return;
  e.preventDefault();
  act();
});

for (const name of Object.keys(forms)) byID("copy-kinds").append(button(name, () => { form = name; command(); }));
byID("new").addEventListener("click", create);
byID("clear").addEventListener("click", () => { wire.clear(); timeline.clear(); });
byID("copy").addEventListener("click", copy);
byID("copy-token").addEventListener("click", copyToken);
byID("help-open").addEventListener("click", () => byID("help", HTMLDialogElement).showModal());
byID("help-close").addEventListener("click", () => byID("help", HTMLDialogElement).close());
choice.addEventListener("change", () => select(choice.value));
byID("new", HTMLButtonElement).disabled = !session.info.sends;
// A file that is dropped beside the zones must not replace the page.
for (const type of ["dragover", "drop"]) document.addEventListener(type, (e) => e.preventDefault());

new Feed({
  state(s) {
    byID("connection").dataset["state"] = s;
    byID("connection-text").textContent = states[s];
  },
  event(e) {
    if (e.kind === "restart") session.reset();
    if (e.kind === "restart" || e.kind === "conversation") list();
    if (e.kind === "message" && e.data.conversation === talk.id) talk.refresh();
    for (const part of [timeline, wire, faults]) part.event(e);
  },
}).start();
list();
command();
