import { type Any, anyUnpack } from "@bufbuild/protobuf/wkt";

import { advice } from "./advice.js";
import { BadRequestSchema, ErrorInfoSchema, RetryInfoSchema } from "./gen/google/rpc/error_details_pb.js";
import type { ErrorReason } from "./gen/lpfileshare/v1/error_reason_pb.js";
import { milliseconds } from "./native.js";

const codes = [
  "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED",
  "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
] as const;

/** The name of a gRPC code, for example "NOT_FOUND". */
export type Code = (typeof codes)[number];

/** The name of an ErrorReason, for example "FILE_TOO_LARGE". A newer server may send one that this package does not know. */
export type Reason = Exclude<keyof typeof ErrorReason, "UNSPECIFIED"> | (string & {});

/** An invalid field of a request. */
export interface FieldViolation {
  /** The path of the field, for example "spec.file_type". */
  field: string;
  /** What is wrong with it. */
  description: string;
}

/** What is known about a failed operation. */
export interface ErrorFields {
  operation: string;
  code?: Code | undefined;
  reason?: Reason | undefined;
  details: string;
  metadata?: Record<string, string> | undefined;
  violations?: FieldViolation[] | undefined;
  retryAfterMs?: number | undefined;
  requestId?: string | undefined;
  attempts?: number | undefined;
  finished?: boolean | undefined;
  notRepeated?: string | undefined;
}

/**
 * A failed operation. Its message says what happened and what to do about it, in one line. It never contains a token.
 *
 * The subclasses are {@link ConnectionLost}, {@link CancelledError}, {@link DeadlineError}, {@link SourceError}, {@link SinkError} and
 * {@link WatchResetError}. Invalid arguments are a TypeError or RangeError instead.
 */
export class LpFileShareError extends Error {
  override readonly name: string = "LpFileShareError";
  /** The operation that failed, for example "upload cat.jpg". */
  readonly operation: string;
  /** The gRPC code. Undefined if no call failed: see {@link SourceError} and {@link SinkError}. */
  readonly code: Code | undefined;
  /** The named condition. Undefined if the server did not create the error, for example if the connection broke. */
  readonly reason: Reason | undefined;
  /** What happened, as the server wrote it, without reason and advice. */
  readonly details: string;
  /** The details that the reason's comment in the contract promises, for example maxBytes. */
  readonly metadata: Readonly<Record<string, string>>;
  /** The invalid fields of the request. */
  readonly violations: readonly FieldViolation[];
  /** The delay in milliseconds that the server asks for before a repeat. Undefined: repeating does not help. */
  readonly retryAfterMs: number | undefined;
  /** The request id of a failed upload. Pass it as an option to repeat the upload: it is published once. Undefined for other calls. */
  readonly requestId: string | undefined;
  /** The number of attempts that were made. */
  readonly attempts: number;
  /** Whether a failed upload was sent to its end at least once. If so, it may have been published; otherwise it was not. */
  readonly finished: boolean;
  /** Why a repeatable error was not followed by another attempt. Undefined if that does not apply. */
  readonly notRepeated: string | undefined;

  constructor(fields: ErrorFields, options?: ErrorOptions) {
    super(describe(fields), options);
    this.operation = fields.operation;
    this.code = fields.code;
    this.reason = fields.reason;
    this.details = fields.details;
    this.metadata = fields.metadata ?? {};
    this.violations = fields.violations ?? [];
    this.retryAfterMs = fields.retryAfterMs;
    this.requestId = fields.requestId;
    this.attempts = fields.attempts ?? 0;
    this.finished = fields.finished ?? false;
    this.notRepeated = fields.notRepeated;
  }

  /** What to do about the error. Empty if there is no advice. */
  get advice(): string {
    return advice(this.reason, this.code);
  }
}

/** The connection broke, or there was none, and no attempt is left. */
export class ConnectionLost extends LpFileShareError {
  override readonly name = "ConnectionLost";
}

/** The caller's AbortSignal was aborted, or the client was closed. cause is the signal's reason. Its name is "AbortError", as in Node. */
export class CancelledError extends LpFileShareError {
  override readonly name = "AbortError";
}

/** The time limit of the operation passed: timeoutMs, or an AbortSignal.timeout. Its name is "TimeoutError", as in Node. */
export class DeadlineError extends LpFileShareError {
  override readonly name = "TimeoutError";
}

/** The source of an upload failed, or changed while it was read. cause is its error. Nothing was published. */
export class SourceError extends LpFileShareError {
  override readonly name = "SourceError";
}

/** The file or stream that a download is written to failed. cause is its error. */
export class SinkError extends LpFileShareError {
  override readonly name = "SinkError";
}

/** The watch cannot continue from its token (WATCH_RESET). List the files again, and watch from the list's watchToken. */
export class WatchResetError extends LpFileShareError {
  override readonly name = "WatchResetError";
}

function describe(f: ErrorFields): string {
  // The server's message may contain the violations already.
  const violations = (f.violations ?? []).map((v) => `${v.field}: ${v.description}`).filter((text) => !f.details.includes(text));
  let text = [`${f.operation}: ${f.details}`, violations.join("; ")].filter(Boolean).join(": ");
  if (f.reason ?? f.code) {
    text += ` [${f.reason ?? f.code}]`;
  }
  if ((f.attempts ?? 0) > 1) {
    text += ` (after ${f.attempts} attempts)`;
  }
  if (f.notRepeated) {
    text += `; not repeated: ${f.notRepeated}`;
  }
  const what = advice(f.reason, f.code);
  return what ? `${text}. ${what}` : text;
}

/**
 * Whether a failed call is made again, by the retry rule of the contract (error_reason.proto). Which conditions of the server are
 * repeatable is the server's decision alone: it adds RetryInfo to them. "once": at most two tries in all.
 */
export type Verdict = "final" | "repeat" | "once";

/** One failed attempt, before it is known whether another one follows. */
export class Failure extends Error {
  constructor(
    readonly verdict: Verdict,
    readonly fields: Omit<ErrorFields, "operation">,
    options?: ErrorOptions,
  ) {
    super(fields.details, options);
  }

  /** Returns the error to report for the operation. */
  toError(about: Pick<ErrorFields, "operation" | "requestId" | "attempts" | "finished" | "notRepeated">): LpFileShareError {
    const fields = { ...this.fields, ...about };
    if (fields.reason === "WATCH_RESET") {
      return new WatchResetError(fields);
    }
    const broken = fields.reason === undefined && this.verdict !== "final";
    return broken ? new ConnectionLost(fields) : new LpFileShareError(fields);
  }
}

/** A failure of the caller's own source. It is never repeated. */
export class SourceFailure extends Failure {
  constructor(cause: unknown, details = `read source: ${text(cause)}`) {
    super("final", { details }, { cause });
  }

  override toError(about: Parameters<Failure["toError"]>[0]): LpFileShareError {
    return new SourceError({ ...this.fields, ...about }, { cause: this.cause });
  }
}

/** Bytes that were damaged or lost between server and client. Another attempt may succeed. */
export function damaged(details: string): Failure {
  return new Failure("repeat", { code: "DATA_LOSS", details });
}

/** A response that the contract excludes. It is never repeated. */
export function violation(details: string): Failure {
  return new Failure("final", { code: "DATA_LOSS", details });
}

/** The connection broke, or stayed silent. */
export function lost(details: string): Failure {
  return new Failure("repeat", { code: "UNAVAILABLE", details });
}

/** Returns the failure of a call with a gRPC code other than 0, and the details of its status. */
export function callFailure(number: number, message: string, statusDetails: Any[]): Failure {
  const code = codes[number - 1] ?? "UNKNOWN";
  const { info, retryAfterMs, violations } = unpack(statusDetails);
  if (info) {
    return new Failure(retryAfterMs === undefined ? "final" : "repeat", {
      code, reason: info.reason, details: message, metadata: { ...info.metadata }, violations, retryAfterMs,
    });
  }
  return new Failure(verdicts[code] ?? "final", { code, details: message });
}

const verdicts: Partial<Record<Code, Verdict>> = { UNAVAILABLE: "repeat", CANCELLED: "repeat", UNKNOWN: "repeat", INTERNAL: "once" };

/** Decodes the details of a status. The errors of a client library itself, and those of proxies, have none. */
function unpack(details: Any[]) {
  const result: { info?: { reason: string; metadata: Record<string, string> }; retryAfterMs?: number; violations: FieldViolation[] } = {
    violations: [],
  };
  for (const detail of details) {
    const info = anyUnpack(detail, ErrorInfoSchema);
    if (info?.domain === "lpfileshare") {
      result.info = info;
    }
    const retry = anyUnpack(detail, RetryInfoSchema);
    if (retry) {
      result.retryAfterMs = retry.retryDelay ? Math.max(milliseconds(retry.retryDelay), 0) : 0;
    }
    const bad = anyUnpack(detail, BadRequestSchema);
    if (bad) {
      result.violations.push(...bad.fieldViolations.map(({ field, description }) => ({ field, description })));
    }
  }
  return result;
}

/** Returns the text of a thrown value. */
export function text(thrown: unknown): string {
  return thrown instanceof Error ? thrown.message : String(thrown);
}
