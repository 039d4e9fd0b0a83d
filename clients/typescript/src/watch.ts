import { lost, type LpFileShareError } from "./errors.js";
import { FileSharingService, type Heartbeat, type WatchFilesResponse } from "./gen/lpfileshare/v1/file_sharing_service_pb.js";
import type { Identity } from "./identity.js";
import { milliseconds, native, type SharedFile, type UnreadableConversation } from "./native.js";
import { type CallOptions, Operation } from "./operation.js";
import { Pacer } from "./retry.js";
import type { Transport } from "./transport.js";

const missedHeartbeats = 3; // a watch without a message for this many intervals is dead
const firstSilenceMs = 90_000; // the limit until the first heartbeat has reported the interval
const minSilenceMs = 1000; // the lowest limit, however short the interval
const maxAgeMs = 25 * 60_000; // a watch is opened again after this time, so that every call has an end
const steadyMs = 10_000; // a call that has sent messages for this long counts as progress

/** Which files are watched, and how. */
export interface WatchOptions extends CallOptions {
  /**
   * Where the watch begins: FileList.watchToken, or FileWatch.token of an earlier watch of the same parent. Default: when the server
   * opens it. List the files first to have no gap.
   */
  token?: string | undefined;
  /**
   * Receives "open" when the first message has arrived (the server sends one at once), and "lost" with the error when the connection is
   * lost or not possible and is about to be retried. It is called for changes only.
   */
  onConnection?: ((state: "open" | "lost", error?: LpFileShareError) => void) | undefined;
  /** Receives each conversation that a watch of all conversations leaves out, because the server could not read it. */
  onUnreadable?: ((conversation: UnreadableConversation) => void) | undefined;
  /** The time without any message after which the watch is opened again, in milliseconds. Default: three heartbeat intervals. */
  maxSilenceMs?: number | undefined;
  /** How long after the last progress another attempt may begin, in milliseconds. Default: for ever. 0 or less: one attempt. */
  retryForMs?: number | undefined;
}

/**
 * A watch of files. It makes no call before it is looped over. It ends when the loop breaks off, by close or by an error. If the loop
 * broke off, looping over it again continues after the last file.
 *
 * It continues from its last message if the connection breaks or stays silent, the server shuts down, or the loop was too slow.
 */
export class FileWatch implements AsyncIterable<SharedFile>, AsyncDisposable {
  readonly #closed = new AbortController();
  #token: string;
  #silenceMs: number;
  #state: "open" | "lost" | undefined;

  /** @internal Use LpFileShare.watch. */
  constructor(
    private readonly connection: Transport,
    private readonly identity: Identity,
    private readonly parent: string,
    private readonly options: WatchOptions,
  ) {
    this.#token = options.token ?? "";
    this.#silenceMs = options.maxSilenceMs ?? firstSilenceMs;
  }

  /**
   * The token that continues the watch, in this or another process, after the last message that arrived. In the body of the loop that is
   * after the current file: save it when the file is processed. Heartbeats advance it too.
   */
  get token(): string {
    return this.#token;
  }

  /** Ends the watch. The loop over it ends without an error. */
  close(): void {
    this.#closed.abort();
  }

  [Symbol.asyncDispose](): Promise<void> {
    this.close();
    return Promise.resolve();
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<SharedFile, undefined> {
    const { signal, timeoutMs } = this.options;
    const operation = new Operation("watch", [this.#closed.signal, signal, this.connection.closed.signal], timeoutMs);
    const pacer = new Pacer(operation, { retryForMs: this.options.retryForMs ?? Infinity });
    pacer.waiting = (error) => { this.#changed("lost", error); };
    try {
      while (!this.#closed.signal.aborted) {
        yield* this.#attempt(pacer);
      }
    } catch (error) {
      if (!this.#closed.signal.aborted) {
        throw error;
      }
    } finally {
      operation.finish();
    }
    return undefined;
  }

  /** Makes one call. It returns when the next one is to be made. */
  async *#attempt(pacer: Pacer): AsyncGenerator<SharedFile, undefined> {
    const attempt = new Operation("watch", [pacer.operation.signal]);
    const silence = new Alarm(() => { attempt.abort(lost(`no message for ${this.#silenceMs} ms`)); });
    const age = new Alarm(() => { attempt.abort(aged); });
    let token = "";
    try {
      pacer.attempts++;
      silence.set(this.#silenceMs);
      age.set(maxAgeMs);
      const credential = await attempt.wait(this.identity.attach());
      token = credential.token;
      const call = { operation: attempt, credential, reachMs: pacer.reachMs };
      const request = { parent: this.parent, resumeToken: this.#token };
      let first: number | undefined;
      for await (const message of this.connection.serverStream(FileSharingService.method.watchFiles, request, call)) {
        silence.clear(); // the loop may take its time
        first ??= Date.now();
        this.#changed("open");
        const file = this.#receive(message, Date.now() - first >= steadyMs, pacer);
        if (file) {
          yield file;
        }
        silence.set(this.#silenceMs);
      }
      throw lost("the server ended the watch");
    } catch (error) {
      const reason: unknown = attempt.signal.reason;
      if (reason !== aged || pacer.operation.signal.aborted) {
        await pacer.retry(attempt.signal.aborted ? reason : error, this.identity, token);
      }
    } finally {
      silence.clear();
      age.clear();
      attempt.finish();
    }
    return undefined;
  }

  /** Takes in one message, and returns its file if it has one. */
  #receive({ resumeToken, event }: WatchFilesResponse, steady: boolean, pacer: Pacer): SharedFile | undefined {
    this.#token = resumeToken || this.#token;
    switch (event.case) {
      case "heartbeat":
        this.#heartbeat(event.value);
        // The first heartbeat is no progress: a server or proxy that ends each call right after it would be called without backoff.
        if (steady) {
          pacer.progress();
        }
        return undefined;
      case "file":
        pacer.progress();
        return native(event.value);
      case "unreadableConversation":
        this.options.onUnreadable?.(native(event.value));
        return undefined;
      default:
        return undefined; // of a newer server
    }
  }

  #heartbeat({ interval }: Heartbeat): void {
    const ms = interval ? milliseconds(interval) : 0;
    if (ms > 0 && this.options.maxSilenceMs === undefined) {
      this.#silenceMs = Math.max(missedHeartbeats * ms, minSilenceMs);
    }
  }

  #changed(state: "open" | "lost", error?: LpFileShareError): void {
    if (state !== this.#state) {
      this.#state = state;
      this.options.onConnection?.(state, error);
    }
  }
}

const aged = new Error("the watch is opened again because of its age");

/** A timer that can be set again. */
class Alarm {
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(private readonly ring: () => void) {}

  set(ms: number): void {
    this.clear();
    this.#timer = setTimeout(this.ring, ms);
  }

  clear(): void {
    clearTimeout(this.#timer);
  }
}
