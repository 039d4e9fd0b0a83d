import { CancelledError, DeadlineError, type ErrorFields, type LpFileShareError, text } from "./errors.js";

/** Options of every call. */
export interface CallOptions {
  /** Cancels the call. It then rejects with {@link CancelledError}, or {@link DeadlineError} if the signal is an AbortSignal.timeout. */
  signal?: AbortSignal | undefined;
  /**
   * The time limit of the call with all its attempts, in milliseconds. The default is 10 minutes for uploads and downloads, 1 minute for
   * publishUpload and 30 seconds for other calls. A watch has none by default.
   */
  timeoutMs?: number | undefined;
}

/** Default time limits in milliseconds. */
export const timeouts = { transfer: 600_000, publish: 60_000, unary: 30_000 };

/** One operation of a client, over any number of attempts: what cancels it, and when it must end. finish must be called at its end. */
export class Operation {
  /** When the operation must end, as Date.now() counts. Infinity: no limit. */
  readonly deadline: number;
  readonly #controller = new AbortController();
  readonly #parents: AbortSignal[];
  readonly #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(
    readonly name: string,
    parents: (AbortSignal | undefined)[],
    timeoutMs?: number,
  ) {
    this.#parents = parents.filter((p) => p !== undefined);
    for (const parent of this.#parents) {
      parent.addEventListener("abort", this.#parentAborted);
    }
    this.#parentAborted();
    this.deadline = timeoutMs === undefined ? Infinity : Date.now() + timeoutMs;
    if (timeoutMs !== undefined) {
      const expire = () => { this.abort(new DOMException(`the time limit of ${timeoutMs} ms has passed`, "TimeoutError")); };
      this.#timer = setTimeout(expire, Math.min(timeoutMs, 2 ** 31 - 1));
      (this.#timer as { unref?: () => void }).unref?.(); // in Node
    }
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  readonly #parentAborted = (): void => {
    const aborted = this.#parents.find((p) => p.aborted);
    if (aborted) {
      this.abort(aborted.reason);
    }
  };

  abort(reason: unknown): void {
    this.#controller.abort(reason);
  }

  /** Releases the timer and the listeners. */
  finish(): void {
    clearTimeout(this.#timer);
    for (const parent of this.#parents) {
      parent.removeEventListener("abort", this.#parentAborted);
    }
  }

  /** Waits for a promise, or until the operation is aborted: then it throws the signal's reason. */
  async wait<T>(promise: Promise<T>): Promise<T> {
    const { signal } = this;
    signal.throwIfAborted();
    let abort: (() => void) | undefined;
    const aborted = new Promise<never>((_, reject) => {
      abort = () => { reject(signal.reason as Error); };
      signal.addEventListener("abort", abort);
    });
    try {
      return await Promise.race([promise, aborted]);
    } finally {
      signal.removeEventListener("abort", abort!);
    }
  }

  async sleep(ms: number): Promise<void> {
    let timer: ReturnType<typeof setTimeout> | undefined;
    try {
      await this.wait(new Promise((resolve) => { timer = setTimeout(resolve, ms); }));
    } finally {
      clearTimeout(timer);
    }
  }

  /** The error of an aborted operation. The contract says to ignore the status of its call: servers report it in different ways. */
  aborted(about: Omit<ErrorFields, "operation" | "details">, while_ = ""): LpFileShareError {
    const reason: unknown = this.signal.reason;
    const fields = { ...about, operation: this.name, details: text(reason) + while_ };
    return reason instanceof Error && reason.name === "TimeoutError"
      ? new DeadlineError({ ...fields, code: "DEADLINE_EXCEEDED" }, { cause: reason })
      : new CancelledError({ ...fields, code: "CANCELLED" }, { cause: reason });
  }
}
