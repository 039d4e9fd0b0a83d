// @ts-check
// The events of the sandbox. A browser has six connections to a server, for all tabs together, so only one tab has the stream: the one
// that has the lock. It passes the events to the others over a channel.

/**
 * @typedef {object} Entry One event, as docs/sandbox.md describes it. The kinds "gap" and "restart" have the id 0.
 * @property {number} id
 * @property {string} at
 * @property {string} kind
 * @property {any} data
 *
 * @typedef {"loading" | "live" | "lost" | "ended"} State
 *
 * @typedef {object} Listener
 * @property {(e: Entry) => void} event
 * @property {(s: State) => void} state
 */

const path = "/_sandbox/events";
/** How long a stream may be lost, in milliseconds, before the sandbox is taken to have ended. */
const patience = 10_000;

export class Feed {
  /** @param {Listener} listener */
  constructor(listener) {
    this.listener = listener;
    this.run = ""; // identifies the run of the sandbox
    this.last = 0; // the id of the last event
    this.channel = new BroadcastChannel("lpfileshare-feed");
    /** What arrives before the kept events have been read. @type {[string, Entry][] | null} */
    this.early = [];
    this.lostTimer = 0;
  }

  /** Reads the events that the sandbox still has, then follows. */
  async start() {
    this.channel.onmessage = ({ data }) => {
      if (data.state) this.listener.state(data.state);
      if (data.entry) this.receive(data.run, data.entry);
      if (data.restarted) this.restarted();
    };
    navigator.locks.request("lpfileshare-feed", () => this.lead());
    try {
      const response = await fetch(path + "?follow=0");
      for (const block of (await response.text()).split("\n\n")) {
        const id = /^id: (.*)$/m.exec(block), data = /^data: (.*)$/m.exec(block);
        if (id?.[1] && data?.[1]) this.accept(runOf(id[1]), JSON.parse(data[1]));
      }
      this.listener.state("live");
    } catch {
      this.listener.state("lost");
    }
    const early = this.early ?? [];
    this.early = null;
    for (const [run, entry] of early) this.accept(run, entry);
  }

  /** Follows the stream for all tabs, until this one is closed. @returns {Promise<void>} */
  lead() {
    return new Promise(() => this.connect());
  }

  connect() {
    const source = new EventSource(path);
    source.onopen = () => this.share("live");
    source.onmessage = ({ data, lastEventId }) => {
      const entry = /** @type {Entry} */ (JSON.parse(data));
      if (entry.kind === "restart") {
        this.channel.postMessage({ restarted: true });
        this.restarted();
      }
      if (!entry.id) return; // a gap, which accept finds by itself
      const run = runOf(lastEventId);
      this.channel.postMessage({ run, entry });
      this.receive(run, entry);
    };
    source.onerror = () => {
      this.share("lost");
      if (source.readyState === EventSource.CLOSED) setTimeout(() => this.connect(), 1000);
    };
  }

  /** Reports the state of the stream to all tabs. @param {State} state */
  share(state) {
    if (state === "lost" && this.lostTimer) return; // it waits already, or has ended
    if (state === "lost") this.lostTimer = setTimeout(() => this.share("ended"), patience);
    if (state === "live") {
      clearTimeout(this.lostTimer);
      this.lostTimer = 0;
    }
    this.channel.postMessage({ state });
    this.listener.state(state);
  }

  /** @param {string} run @param {Entry} entry */
  receive(run, entry) {
    if (this.early) this.early.push([run, entry]);
    else this.accept(run, entry);
  }

  /** The events begin at 1 again. */
  restarted() {
    if (this.run) this.listener.event({ id: 0, at: new Date().toISOString(), kind: "restart", data: {} });
    this.run = "";
    this.last = 0;
  }

  /** Passes each event on once, in order, and reports what is missing. @param {string} run @param {Entry} entry */
  accept(run, entry) {
    if (run !== this.run) {
      this.restarted();
      this.run = run;
    }
    if (entry.id <= this.last) return;
    const missed = entry.id - this.last - 1;
    this.last = entry.id;
    if (missed > 0) this.listener.event({ id: 0, at: entry.at, kind: "gap", data: { missed } });
    this.listener.event(entry);
  }
}

/** The run in the id of an event, RUN-NUMBER. @param {string} id */
const runOf = (id) => id.split("-")[0] ?? "";
