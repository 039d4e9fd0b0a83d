import { randomUUID } from "node:crypto";
import { type FileHandle, link, lstat, open, rename, rm } from "node:fs/promises";
import { dirname, join } from "node:path";
import type { Writable } from "node:stream";
import { fileURLToPath } from "node:url";

import { type DownloadOptions, type DownloadResult, type FileRef, Transfer } from "./download.js";
import { LpFileShareError, SinkError, text } from "./errors.js";
import type { Identity } from "./identity.js";
import { nodeHashes } from "./nodehashes.js";
import type { Operation } from "./operation.js";
import type { Transport } from "./transport.js";

/** Downloads to a file or stream: see LpFileShare.downloadTo. */
export async function downloadTo(
  connection: Transport, identity: Identity, file: FileRef, sink: string | URL | Writable, options: DownloadOptions & { replace?: boolean },
): Promise<DownloadResult> {
  const transfer = new Transfer(connection, nodeHashes, identity, file, options);
  const failed = (error: unknown): never => {
    const details = `write: ${text(error)}`;
    throw error instanceof LpFileShareError ? error : new SinkError({ operation: "download", details, attempts: transfer.pacer.attempts }, { cause: error });
  };
  if (typeof sink === "string" || sink instanceof URL) {
    return writeFile(transfer, typeof sink === "string" ? sink : fileURLToPath(sink), options.replace ?? true, failed);
  }
  for await (const piece of transfer.pieces()) {
    await write(sink, piece, transfer.pacer.operation).catch(failed);
    transfer.report();
  }
  return transfer.result()!;
}

/** Writes to a stream, and waits until it has accepted the bytes. */
async function write(sink: Writable, piece: Uint8Array, operation: Operation): Promise<void> {
  let fail: ((error: unknown) => void) | undefined;
  try {
    await operation.wait(new Promise<void>((resolve, reject) => {
      fail = reject;
      sink.on("error", reject);
      sink.write(piece, (error) => { if (error) { reject(error); } else { resolve(); } });
    })).catch((error: unknown) => { throw operation.signal.aborted ? operation.aborted({}) : error; });
  } finally {
    sink.off("error", fail!);
  }
}

/** Writes to a temporary file in the same directory, and moves it to path when everything was verified. */
async function writeFile(transfer: Transfer, path: string, replace: boolean, failed: (error: unknown) => never): Promise<DownloadResult> {
  const temporary = join(dirname(path), `.lpfileshare-${randomUUID()}.part`);
  const handle = await create(temporary, path, replace).catch(failed);
  try {
    for await (const piece of transfer.pieces()) {
      await handle.writeFile(piece).catch(failed);
      transfer.report();
    }
    await handle.sync().catch(failed);
    await handle.close();
    await move(temporary, path, replace).catch(failed);
  } catch (error) {
    await handle.close().catch(() => undefined);
    await rm(temporary, { force: true });
    throw error;
  }
  return transfer.result()!;
}

async function create(temporary: string, path: string, replace: boolean): Promise<FileHandle> {
  const existing = await lstat(path).catch(() => undefined);
  if (existing?.isDirectory()) {
    throw new Error(`${path} is a directory`);
  }
  if (existing && !replace) {
    throw Object.assign(new Error(`${path} exists`), { code: "EEXIST" });
  }
  return open(temporary, "wx", 0o600);
}

async function move(temporary: string, path: string, replace: boolean): Promise<void> {
  if (replace) {
    await rename(temporary, path);
  } else {
    await link(temporary, path); // unlike a rename it fails if the file was created in the meantime
    await rm(temporary);
  }
}
