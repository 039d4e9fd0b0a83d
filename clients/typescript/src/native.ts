import type { Message } from "@bufbuild/protobuf";
import type { Duration, Timestamp } from "@bufbuild/protobuf/wkt";

import type * as conversations from "./gen/lpfileshare/v1/conversation_service_pb.js";
import type * as file from "./gen/lpfileshare/v1/file_pb.js";
import type * as files from "./gen/lpfileshare/v1/file_sharing_service_pb.js";

/**
 * A message of the contract in JavaScript's own types: 64-bit integers are numbers, times are Dates and durations are milliseconds.
 * It has no prototype of its own, so JSON.stringify and structuredClone work on it.
 */
export type Native<T> =
  T extends bigint ? number
  : T extends Timestamp ? Date
  : T extends Duration ? number
  : T extends Uint8Array ? Uint8Array
  : T extends readonly (infer E)[] ? Native<E>[]
  : T extends Message ? { [K in keyof T as Exclude<K, "$typeName" | "$unknown">]: Native<T[K]> }
  : T;

/** A file of a conversation. storedSizeBytes and messageSequence are undefined if they are not known. */
export type SharedFile = Native<file.File>;
/** Checksums of bytes: CRC-32C as a number, SHA-256 as 32 bytes, or none if it was not computed. */
export type Checksums = Native<file.Checksums>;
/** The result of an upload. */
export type UploadResult = Native<files.UploadResponse>;
/** What was done to an image before it was stored. */
export type ImageChange = Native<files.ImageChange>;
/** The result of publishUpload. */
export type PublishResult = Native<files.PublishUploadResponse>;
/** What the server remembers of an upload. */
export type Upload = Native<files.Upload>;
/** A half-open range of bytes, [startBytes, endBytes), of an object of totalBytes. */
export type ContentRange = Native<files.ContentRange>;
/** A conversation that a listing or a watch leaves out, because the server could not read it. */
export type UnreadableConversation = Native<files.UnreadableConversation>;
/** The limits, file types and times of a server for an account. Durations are milliseconds. */
export type Capabilities = Native<files.GetCapabilitiesResponse>;
/** A messaging conversation. */
export type Conversation = Native<conversations.Conversation>;

/** Converts a message of the contract to JavaScript's own types. */
export function native<T extends Message>(message: T): Native<T> {
  return convert(message) as Native<T>;
}

function convert(value: unknown): unknown {
  if (typeof value === "bigint") {
    return toNumber(value);
  }
  if (Array.isArray(value)) {
    return value.map(convert);
  }
  if (!isMessage(value)) {
    return value;
  }
  if (isType<Timestamp>(value, "google.protobuf.Timestamp")) {
    return new Date(toNumber(value.seconds) * 1000 + Math.floor(value.nanos / 1e6));
  }
  if (isType<Duration>(value, "google.protobuf.Duration")) {
    return milliseconds(value);
  }
  const result: Record<string, unknown> = {};
  for (const [key, field] of Object.entries(value)) {
    if (key !== "$typeName" && key !== "$unknown" && field !== undefined) {
      result[key] = convert(field);
    }
  }
  return result;
}

/** Returns a duration in milliseconds. */
export function milliseconds(d: Duration): number {
  return toNumber(d.seconds) * 1000 + d.nanos / 1e6;
}

/** Returns a 64-bit integer as a number. Throws a RangeError if a number cannot hold it exactly. */
export function toNumber(value: bigint): number {
  const n = Number(value);
  if (!Number.isSafeInteger(n)) {
    throw new RangeError(`${value} is beyond 2^53 and cannot be a number`);
  }
  return n;
}

function isMessage(value: unknown): value is Message {
  return typeof value === "object" && value !== null && "$typeName" in value;
}

function isType<T extends Message>(value: Message, name: T["$typeName"]): value is T {
  return value.$typeName === name;
}
