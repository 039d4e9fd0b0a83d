import { Failure, type LpFileShareError, SourceFailure } from "./errors.js";
import type { Identity } from "./identity.js";
import type { Operation } from "./operation.js";

/** How long transfers are retried by default, in milliseconds. */
const defaultRetryForMs = 120_000;
/** The least time to wait for a connection, however little of the time limit is left. */
const minReachMs = 1000;

/** Limits of the unary calls. */
export const unaryLimits = { retryForMs: 15_000, maxAttempts: 4 };

export interface Limits {
  /** How long after the beginning, or the last progress, an attempt may begin. Not positive: one attempt only. */
  retryForMs?: number | undefined;
  maxAttempts?: number;
}

/** Decides whether and when a failed call is made again, by the retry rule of the contract. It serves one operation. */
export class Pacer {
  /** The number of attempts that have begun. */
  attempts = 0;
  /** What the error of an upload says beyond that of other calls. */
  about: { requestId?: string; finished?: boolean } = {};
  /** Called before each wait for the next attempt. */
  waiting: ((error: LpFileShareError) => void) | undefined;

  readonly #limitMs: number;
  readonly #maxAttempts: number;
  #since = Date.now(); // the beginning, or the last progress
  #backoffMs = firstBackoffMs;
  #once = 0; // number of failures since then that allow two tries
  #renewed = false; // the token was renewed since then

  constructor(
    readonly operation: Operation,
    limits: Limits = {},
  ) {
    this.#limitMs = limits.retryForMs ?? defaultRetryForMs;
    this.#maxAttempts = limits.maxAttempts ?? Infinity;
  }

  /** Resets time limit, backoff and counters. */
  progress(): void {
    this.#since = Date.now();
    this.#backoffMs = firstBackoffMs;
    this.#once = 0;
    this.#renewed = false;
  }

  /** How long the next attempt may wait for a connection, in milliseconds. */
  get reachMs(): number {
    const limit = this.#limitMs > 0 ? this.#limitMs : defaultRetryForMs;
    return Math.max(limit - (Date.now() - this.#since), minReachMs);
  }

  /**
   * Returns when the next attempt is to be made, after it has waited for it. Otherwise it throws the error to report. thrown is what
   * the last attempt threw, which was made with the token. possible returns why no attempt can follow, if none can.
   */
  async retry(thrown: unknown, identity: Identity, token: string, possible?: () => string | undefined): Promise<void> {
    if (this.#cancelled(thrown) || !(thrown instanceof Failure)) {
      throw this.report(thrown);
    }
    const renewed = !this.#renewed && (await this.#renew(thrown, identity, token));
    this.#renewed ||= renewed;
    if (thrown.verdict === "once") {
      this.#once++;
    }
    if (!renewed && (thrown.verdict === "final" || this.#once > 1)) {
      throw this.#error(thrown);
    }
    const impossible = possible?.();
    if (impossible !== undefined) {
      throw this.#error(thrown, impossible);
    }
    if (!renewed) {
      await this.#wait(thrown);
    }
  }

  /** Returns the error to report if no attempt follows. thrown is what the last one threw. */
  report(thrown: unknown): unknown {
    if (this.#cancelled(thrown)) {
      return this.operation.aborted({ ...this.about, attempts: this.attempts });
    }
    return thrown instanceof Failure ? this.#error(thrown) : thrown;
  }

  /** The caller's cancellation and deadline come before the status of the call, and the failure of its source before them. */
  #cancelled(thrown: unknown): boolean {
    return this.operation.signal.aborted && !(thrown instanceof SourceFailure);
  }

  /** Gets another token after the server rejected one. Returns false if the failure has another reason or there is no other token. */
  async #renew(failure: Failure, identity: Identity, rejected: string): Promise<boolean> {
    const { reason } = failure.fields;
    if (reason !== "TOKEN_INVALID" && reason !== "LP_IDENTITY_EXPIRED") {
      return false;
    }
    try {
      return await this.operation.wait(identity.renew(rejected));
    } catch {
      return false; // the server's rejection says more
    }
  }

  async #wait(failure: Failure): Promise<void> {
    let delay = this.#backoffMs * (0.5 + Math.random());
    this.#backoffMs = Math.min(this.#backoffMs * 2, maxBackoffMs);
    const asked = failure.fields.retryAfterMs;
    if (asked !== undefined && asked > delay) {
      delay = asked * (1 + Math.random() / 5); // spreads callers that got the same delay
    }
    if (this.#limitMs <= 0) {
      throw this.#error(failure, "retries are disabled");
    }
    if (this.attempts >= this.#maxAttempts) {
      throw this.#error(failure, `the limit is ${this.#maxAttempts} attempts`);
    }
    if (Date.now() + delay - this.#since > this.#limitMs) {
      throw this.#error(failure, `the next attempt would begin more than ${this.#limitMs} ms after the start or the last progress`);
    }
    this.waiting?.(this.#error(failure));
    try {
      await this.operation.sleep(delay);
    } catch {
      throw this.operation.aborted({ ...this.about, attempts: this.attempts }, `, while waiting to repeat: ${failure.message}`);
    }
  }

  #error(failure: Failure, notRepeated?: string): LpFileShareError {
    return failure.toError({ ...this.about, operation: this.operation.name, attempts: this.attempts, notRepeated });
  }
}

const firstBackoffMs = 200;
const maxBackoffMs = 5000;
