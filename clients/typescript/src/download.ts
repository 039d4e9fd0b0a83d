import type { MessageInitShape } from "@bufbuild/protobuf";

import { combine, crc32c } from "./crc32c.js";
import { damaged, violation } from "./errors.js";
import { ChecksumKind, type DataChunk } from "./gen/lpfileshare/v1/file_pb.js";
import {
  type ContentRange as Range, type DownloadHeader, type DownloadRequestSchema, type DownloadResponse, type DownloadTrailer, FileSharingService,
} from "./gen/lpfileshare/v1/file_sharing_service_pb.js";
import { type Hash, type Hashes, sameBytes } from "./hashes.js";
import type { Identity } from "./identity.js";
import { type Checksums, type ContentRange, native, type SharedFile, toNumber } from "./native.js";
import { type CallOptions, Operation, timeouts } from "./operation.js";
import { Pacer } from "./retry.js";
import type { Transport } from "./transport.js";

/**
 * The file to download: its resource name, accounts/{account}/conversations/{conversation}/files/{file}, a {@link SharedFile}, or
 * its place in the store.
 */
export type FileRef = string | Pick<SharedFile, "name"> | {
  /** The conversation of storagePath. */
  conversation: string;
  /** LivePerson's relativePath, "/v1/AUTH_...". */
  storagePath: string;
  /** The dialog of storagePath. Default: any. */
  dialogId?: string;
};

/** Which part of a file is downloaded, and how. */
export interface DownloadOptions extends CallOptions {
  /** The first byte. Negative: this many bytes before the end. */
  offset?: number | undefined;
  /** The maximum number of bytes. Default: to the end. */
  limit?: number | undefined;
  /** Fail with FILE_CHANGED unless the file has this ETag. */
  ifMatchEtag?: string | undefined;
  /** The maximum number of bytes in a message, 1 KiB to 1 MiB. Default: 64 KiB. */
  chunkBytes?: number | undefined;
  /** The checksums that the server must send in addition to CRC-32C. If they include SHA-256, it is verified too. */
  wantChecksums?: ChecksumKind[] | undefined;
  /** Receives the number of bytes that were verified, and the total. */
  onProgress?: ((received: number, total: number) => void) | undefined;
  /**
   * How long after the last progress another attempt may begin, and how long to wait for a connection, in milliseconds. Default: two
   * minutes. 0 or less: one attempt, and two minutes for the connection.
   */
  retryForMs?: number | undefined;
}

/** A complete download. */
export interface DownloadResult {
  /** The file, with the store's current size and ETag. */
  file: SharedFile;
  /** The bytes that were downloaded. */
  range: ContentRange;
  /** The number of bytes that were downloaded. */
  bytes: number;
  /** Checksums of all of them, computed by this client. */
  checksums: Checksums;
  /** The number of calls. */
  attempts: number;
}

/**
 * An open download. Read it once, in one of these ways: loop over it, or use bytes() or body. Reading to the end or breaking off ends
 * it; otherwise call close.
 *
 * Every chunk is verified before it is returned. The end is returned only after the whole was verified, and a whole file also against
 * the MD5 that the store states. If the connection or the store breaks off, the download continues with the next byte of the same
 * object. After an error, the bytes that were read are a correct beginning of the file, unless the error says that the file was damaged
 * in the store or on the way from it.
 */
export class Download implements AsyncIterable<Uint8Array>, AsyncDisposable {
  readonly #transfer: Transfer;
  readonly #pieces: AsyncGenerator<Uint8Array, undefined>;

  /** @internal Use LpFileShare.download. */
  constructor(transfer: Transfer, pieces: AsyncGenerator<Uint8Array, undefined>) {
    this.#transfer = transfer;
    this.#pieces = pieces;
  }

  /** The file, with the store's current size and ETag. */
  get file(): SharedFile {
    return native(this.#transfer.header!.file!);
  }

  /** The bytes of the file that this download returns. */
  get range(): ContentRange {
    return native(this.#transfer.header!.contentRange!);
  }

  /** The result. Undefined until the download has been read to its end. */
  get result(): DownloadResult | undefined {
    return this.#transfer.result();
  }

  [Symbol.asyncIterator](): AsyncIterator<Uint8Array, undefined> {
    return this.#pieces;
  }

  /** The bytes as a web stream, for example for a Response. */
  get body(): ReadableStream<Uint8Array> {
    const pieces = this.#pieces;
    return new ReadableStream<Uint8Array>({
      async pull(controller) {
        const next = await pieces.next();
        if (next.done) {
          controller.close();
        } else {
          controller.enqueue(next.value);
        }
      },
      cancel: () => this.close(),
    }, { highWaterMark: 0 });
  }

  /** Reads all bytes into memory. */
  async bytes(): Promise<Uint8Array> {
    const pieces: Uint8Array[] = [];
    let length = 0;
    for await (const piece of this) {
      pieces.push(piece);
      length += piece.length;
    }
    const whole = new Uint8Array(length);
    for (const piece of pieces.reverse()) {
      length -= piece.length;
      whole.set(piece, length);
    }
    return whole;
  }

  /** Ends the download. */
  async close(): Promise<void> {
    this.#transfer.pacer.operation.abort(new Error("the download was closed"));
    await this.#pieces.return(undefined);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}

/** Opens a file, or a part of it: see LpFileShare.download. */
export async function openDownload(
  connection: Transport, hashes: Hashes, identity: Identity, file: FileRef, options: DownloadOptions,
): Promise<Download> {
  const transfer = new Transfer(connection, hashes, identity, file, options);
  const pieces = transfer.pieces();
  const first = await pieces.next(); // errors such as FILE_NOT_FOUND are thrown here
  return new Download(transfer, (async function* () {
    try {
      if (!first.done) {
        yield first.value;
        transfer.report();
        for await (const piece of pieces) {
          yield piece;
          transfer.report();
        }
      }
    } finally {
      await pieces.return(undefined);
    }
    return undefined;
  })());
}

/** One file over any number of calls. */
export class Transfer {
  readonly pacer: Pacer;
  header: DownloadHeader | undefined; // of the first call
  trailer: DownloadTrailer | undefined;
  received = 0; // number of bytes that pieces has returned
  last: number | undefined; // the last one of them
  #crc = 0;
  readonly #sha: Hash | undefined;
  #md5: Hash | undefined; // compared with header.storedMd5; undefined: the store states none, or only a part is read
  #sums: Checksums | undefined;
  readonly #source: ReturnType<typeof fileSource>;

  constructor(
    readonly connection: Transport,
    readonly hashes: Hashes,
    readonly identity: Identity,
    file: FileRef,
    readonly options: DownloadOptions,
  ) {
    this.#sha = hashes.sha256();
    this.#source = fileSource(file, "download");
    const parents = [options.signal, connection.closed.signal];
    this.pacer = new Pacer(new Operation("download", parents, options.timeoutMs ?? timeouts.transfer), options);
  }

  /** Returns the bytes, verified. Reads it once. */
  async *pieces(): AsyncGenerator<Uint8Array, undefined> {
    const { operation } = this.pacer;
    try {
      while (!this.trailer) {
        let token = "";
        try {
          this.pacer.attempts++;
          const credential = await operation.wait(this.identity.attach());
          token = credential.token;
          const { request, skip } = this.#request();
          const part = new Part(this, skip);
          const attempt = { operation, credential, reachMs: this.pacer.reachMs };
          for await (const message of this.connection.serverStream(FileSharingService.method.download, request, attempt)) {
            const piece = part.receive(message);
            if (piece?.data.length) {
              const { data } = piece;
              this.#crc = combine(this.#crc, piece.crc32c, data.length);
              this.#sha?.update(data);
              this.#md5?.update(data);
              this.received += data.length;
              this.last = data[data.length - 1];
              this.pacer.progress();
              yield data;
            }
          }
          part.end();
        } catch (error) {
          await this.pacer.retry(error, this.identity, token, () => this.#notResumable());
        }
      }
    } finally {
      operation.finish();
    }
    return undefined;
  }

  /** Begins the download with the header of the first call. */
  begin(header: DownloadHeader, { startBytes, endBytes, totalBytes }: Range): void {
    this.header = header;
    if (header.storedMd5.length > 0 && startBytes === 0n && endBytes === totalBytes) {
      this.#md5 = this.hashes.md5();
    }
    this.report();
  }

  /** Completes the download with the trailer of the last call. */
  complete(trailer: DownloadTrailer): void {
    if (this.#md5 && !sameBytes(this.#md5.digest(), this.header!.storedMd5)) {
      throw violation(
        "the file does not have the MD5 that the store states: it was damaged in the store, or on the way from it to the server; discard it",
      );
    }
    this.trailer = trailer;
  }

  report(): void {
    const range = this.header?.contentRange;
    if (range) {
      this.options.onProgress?.(this.received, toNumber(range.endBytes - range.startBytes));
    }
  }

  result(): DownloadResult | undefined {
    if (!this.trailer) {
      return undefined;
    }
    this.#sums ??= { crc32c: this.#crc, sha256: this.#sha?.digest() ?? new Uint8Array() };
    const { file, contentRange } = this.header!;
    return {
      file: native(file!), range: native(contentRange!), bytes: this.received, checksums: this.#sums, attempts: this.pacer.attempts,
    };
  }

  #notResumable(): string | undefined {
    return this.received > 0 && !this.header?.file?.etag ? "the server sent no ETag, so the rest could be of another file" : undefined;
  }

  /**
   * Returns the request for the missing bytes. If only the trailer is missing, it is for the last byte again, because a download
   * without a trailer is not complete. skip is the number of bytes to skip at the beginning of the response.
   */
  #request(): { request: MessageInitShape<typeof DownloadRequestSchema>; skip: 0 | 1 } {
    const { offset = 0, limit = 0, ifMatchEtag = "", chunkBytes = 64 << 10, wantChecksums = [] } = this.options;
    const etag = this.header?.file?.etag;
    const range = this.header?.contentRange;
    const rest = { source: this.#source, maxChunkBytes: chunkBytes, wantChecksums };
    if (!range || (this.received === 0 && !etag)) {
      return { request: { ...rest, readOffset: BigInt(offset), readLimit: BigInt(limit), ifMatchEtag }, skip: 0 };
    }
    const position = range.startBytes + BigInt(this.received);
    const skip = position === range.endBytes && this.received > 0 ? 1 : 0;
    const next = position - BigInt(skip);
    return { request: { ...rest, readOffset: next, readLimit: range.endBytes - next, ifMatchEtag: etag ?? "" }, skip };
  }
}

/** Verified bytes. */
interface Piece {
  data: Uint8Array;
  crc32c: number;
}

/** The response of one call. */
class Part {
  #started = false;
  #trailer: DownloadTrailer | undefined;
  #start = 0n;
  #offset = 0n; // of the next chunk
  #end = 0n;
  #crc = 0;
  readonly #sha: Hash | undefined;

  constructor(
    readonly transfer: Transfer,
    private skip: number,
  ) {
    if (transfer.options.wantChecksums?.includes(ChecksumKind.SHA256)) {
      this.#sha = transfer.hashes.sha256();
    }
  }

  /** Receives one message. It returns the bytes of a chunk. */
  receive({ payload }: DownloadResponse): Piece | undefined {
    switch (payload.case) {
      case "header":
        this.#begin(payload.value);
        return undefined;
      case "chunk":
        return this.#chunk(payload.value);
      case "trailer":
        this.#finish(payload.value);
        return undefined;
      default:
        throw violation("the server sent a message of an unknown kind");
    }
  }

  /** The call has ended with OK. */
  end(): void {
    if (!this.#trailer) {
      throw damaged(`the download ended without a trailer, ${this.#end - this.#offset} bytes before its end`);
    }
    this.transfer.complete(this.#trailer);
  }

  #begin(header: DownloadHeader): void {
    const range = header.contentRange;
    if (this.#started) {
      throw violation("the server sent a second header");
    }
    if (!header.file || !range || range.startBytes < 0 || range.startBytes > range.endBytes || range.endBytes > range.totalBytes) {
      throw violation(`the server sent an impossible range: ${range?.startBytes} to ${range?.endBytes} of ${range?.totalBytes}`);
    }
    this.#started = true;
    this.#start = this.#offset = range.startBytes;
    this.#end = range.endBytes;
    const { transfer } = this;
    const first = transfer.header?.contentRange;
    if (!first) {
      transfer.begin(header, range);
      return;
    }
    const next = first.startBytes + BigInt(transfer.received - this.skip);
    const same = range.endBytes === first.endBytes && range.totalBytes === first.totalBytes && header.file.etag === transfer.header?.file?.etag;
    if (range.startBytes !== next || !same) {
      throw violation(
        `the server continued with other bytes than requested: ${range.startBytes} to ${range.endBytes} of ${range.totalBytes}, ` +
          `ETag "${header.file.etag}"`,
      );
    }
  }

  #chunk(chunk: DataChunk): Piece {
    const { data } = chunk;
    if (!this.#started || this.#trailer) {
      throw violation("the server sent bytes before the header or after the trailer");
    }
    if (chunk.offset !== this.#offset) {
      throw violation(`the server sent byte ${chunk.offset} instead of byte ${this.#offset}`);
    }
    if (BigInt(data.length) > this.#end - this.#offset) {
      throw violation(`the server sent more bytes than the ${this.#end} that it announced`);
    }
    if (chunk.crc32c === undefined) {
      throw violation("the server sent bytes without a checksum");
    }
    if (crc32c(data) !== chunk.crc32c) {
      throw damaged(`the bytes from offset ${this.#offset} on were damaged in transit`);
    }
    this.#offset += BigInt(data.length);
    this.#crc = combine(this.#crc, chunk.crc32c, data.length);
    this.#sha?.update(data);
    if (this.skip > 0 && data.length > 0) {
      if (data[0] !== this.transfer.last) {
        throw violation("the file has changed, although its ETag has not");
      }
      this.skip = 0;
      const rest = data.subarray(1);
      return { data: rest, crc32c: crc32c(rest) };
    }
    return { data, crc32c: chunk.crc32c };
  }

  #finish(trailer: DownloadTrailer): void {
    const sent = this.#offset - this.#start;
    const want = trailer.sentChecksums;
    if (!this.#started || this.#trailer) {
      throw violation("the server sent a trailer before the header, or a second one");
    }
    if (this.#offset !== this.#end) {
      throw damaged(`the server ended the download ${this.#end - this.#offset} bytes before its end`);
    }
    if (trailer.sentBytes !== sent) {
      throw damaged(`${sent} bytes arrived of ${trailer.sentBytes} that were sent`);
    }
    if (want?.crc32c === undefined || (this.#sha && want.sha256.length === 0)) {
      throw violation("the server sent a trailer without a checksum that it must carry");
    }
    if (want.crc32c !== this.#crc || (this.#sha && !sameBytes(this.#sha.digest(), want.sha256))) {
      throw violation("the checksums of the sent and the received bytes differ, although each chunk was correct; download the file again");
    }
    this.#trailer = trailer;
  }
}

/** Returns a file as a field of a request. Throws a TypeError if it is not one. */
export function fileSource(file: FileRef, operation: string) {
  if (typeof file === "string" || "name" in file) {
    const name = typeof file === "string" ? file : file.name;
    if (!name) {
      throw new TypeError(`${operation}: the name of the file is empty`);
    }
    return { case: "name", value: name } as const;
  }
  if (!file.conversation || !file.storagePath) {
    throw new TypeError(`${operation}: set the name of the file, or conversation and storagePath`);
  }
  return { case: "storage", value: { ...file, dialogId: file.dialogId ?? "" } } as const;
}
