import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { basename } from "node:path";
import { fileURLToPath } from "node:url";

import { crc32c } from "./crc32c.js";
import { SourceFailure } from "./errors.js";
import { sniffBytes } from "./filetype.js";

/** Bytes that come in pieces: a Node Readable, a ReadableStream, an async generator, an array of pieces. */
export type Pieces = AsyncIterable<Uint8Array> | Iterable<Uint8Array>;

/**
 * What is uploaded: a path (a string or a file: URL), bytes, a Blob, or bytes that come in pieces. Give pieces as a function that begins
 * them again, for example () => createReadStream(path), if that is possible: such a source can be read twice.
 *
 * A source that can be read twice is read once for its size and checksums, which are sent first, and once for each attempt. Pieces are
 * read once, so another attempt can follow only if nothing was read yet. A source that can be closed is closed after an error, as by
 * for await.
 */
export type Source = string | URL | Uint8Array | Blob | Pieces | (() => Pieces);

/** How much of a file is read at a time. Each read waits for a thread of Node's pool, so it is several chunks. */
const readBytes = 256 << 10;

/** The size and checksums of a source. */
export interface Measure {
  size: number;
  crc32c: number;
  sha256: Uint8Array;
}

/** Reads a source for one or more attempts. */
export class SourceReader {
  /** The name of the file. Empty: not known. */
  readonly name: string;
  /** Size and checksums. Undefined: the source can be read only once. */
  measure: Measure | undefined;
  /** The first bytes, for the type. Empty: not read. */
  head: Uint8Array = new Uint8Array();

  readonly #open: (() => Pieces) | undefined; // undefined: the source can be read only once
  readonly #once: PieceIterator | undefined; // of such a source
  readonly #buffered: Uint8Array[] = []; // of its bytes
  #taken = 0; // number of bytes read since the last begin

  constructor(source: Source, chunkBytes: number) {
    const path = typeof source === "string" ? source : source instanceof URL ? fileURLToPath(source) : undefined;
    this.name = path === undefined ? "" : basename(path);
    if (path !== undefined) {
      this.#open = () => createReadStream(path, { highWaterMark: Math.max(chunkBytes, readBytes) });
    } else if (source instanceof Uint8Array) {
      this.#open = () => [source];
    } else if (source instanceof Blob) {
      this.#open = () => source.stream();
    } else if (typeof source === "function") {
      this.#open = source;
    } else {
      this.#once = iterate(source as Pieces);
    }
  }

  /** Reads the whole source for its measure, if it can be read twice, and otherwise its first bytes if they are needed. */
  async prepare(signal: AbortSignal, needHead: boolean): Promise<void> {
    const pieces = this.#open ? iterate(this.#open()) : this.#once!;
    const sha = createHash("sha256");
    let size = 0, crc = 0;
    try {
      for (;;) {
        if (!this.#open && (!needHead || this.head.length >= sniffBytes)) {
          return;
        }
        signal.throwIfAborted();
        const piece = await read(pieces);
        if (!piece) {
          break;
        }
        if (this.head.length < sniffBytes) {
          this.head = Buffer.concat([this.head, piece.subarray(0, sniffBytes - this.head.length)]);
        }
        if (this.#open) {
          size += piece.length;
          crc = crc32c(piece, crc);
          sha.update(piece);
        } else {
          this.#buffered.push(piece);
        }
      }
    } finally {
      if (this.#open) {
        release(pieces);
      }
    }
    if (this.#open) {
      this.measure = { size, crc32c: crc, sha256: sha.digest() };
    }
  }

  /** Prepares for another attempt. Returns why that is not possible, if it is not. */
  begin(): string | undefined {
    if (this.#taken > 0 && !this.#open) {
      return (
        `the source can be read only once, and ${this.#taken} bytes of it were read; ` +
        "use one that can be read twice, or send the whole file again under the same request id"
      );
    }
    this.#taken = 0;
    return undefined;
  }

  /** Returns the bytes in chunks of chunkBytes; only the last one may be smaller. They throw a SourceFailure if the source fails. */
  async *chunks(chunkBytes: number): AsyncGenerator<Uint8Array, undefined> {
    const pieces = this.#open ? iterate(this.#open()) : this.#once!;
    let waiting: Uint8Array[] = [], length = 0;
    try {
      for (;;) {
        const piece = this.#buffered.shift() ?? (await read(pieces));
        if (!piece) {
          break;
        }
        this.#taken += piece.length;
        waiting.push(piece);
        length += piece.length;
        if (length >= chunkBytes) {
          const joined = waiting.length === 1 ? piece : Buffer.concat(waiting);
          let at = 0;
          for (; length - at >= chunkBytes; at += chunkBytes) {
            yield joined.subarray(at, at + chunkBytes);
          }
          waiting = [joined.subarray(at)];
          length -= at;
        }
      }
      if (length > 0) {
        yield Buffer.concat(waiting);
      }
    } finally {
      release(pieces);
    }
  }
}

type PieceIterator = AsyncIterator<Uint8Array> | Iterator<Uint8Array>;

function iterate(pieces: Pieces): PieceIterator {
  return Symbol.asyncIterator in pieces ? pieces[Symbol.asyncIterator]() : pieces[Symbol.iterator]();
}

/** Returns the next piece, or undefined at the end. */
async function read(pieces: PieceIterator): Promise<Uint8Array | undefined> {
  let next: IteratorResult<Uint8Array>;
  try {
    next = await pieces.next();
  } catch (error) {
    throw new SourceFailure(error);
  }
  if (next.done) {
    return undefined;
  }
  if (!(next.value instanceof Uint8Array)) {
    throw new SourceFailure(new TypeError(`a piece is of type ${typeof next.value}, must be a Uint8Array`));
  }
  return next.value;
}

/** Closes what is behind an iterator, without waiting for it: its next piece may never come. */
function release(pieces: PieceIterator): void {
  void Promise.resolve(pieces.return?.()).catch(() => undefined);
}
