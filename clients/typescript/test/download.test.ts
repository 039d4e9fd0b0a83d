// Downloads from a connection that the test scripts.
import assert from "node:assert/strict";
import crypto, { createHash } from "node:crypto";
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { syncBuiltinESMExports } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Writable } from "node:stream";
import { test } from "node:test";

import { create, type MessageInitShape } from "@bufbuild/protobuf";

import type { Connection } from "../src/connection.js";
import { crc32c } from "../src/crc32c.js";
import { type DownloadOptions, openDownload } from "../src/download.js";
import { downloadTo } from "../src/downloadto.js";
import { LpFileShareError, lost } from "../src/errors.js";
import { type DownloadRequest, type DownloadResponse, DownloadResponseSchema } from "../src/gen/lpfileshare/v1/file_sharing_service_pb.js";
import { consumerToken } from "../src/identity.js";
import { nodeHashes } from "../src/nodehashes.js";

const data = Buffer.from(Array.from({ length: 5000 }, (_, i) => (i * 7) & 0xff));
const md5 = (bytes: Uint8Array) => createHash("md5").update(bytes).digest();
const right = md5(data), wrong = md5(new Uint8Array()), none = new Uint8Array();

/** Returns a connection to a server that has the file, states storedMd5, and breaks off the first call after breakAt bytes. */
function server(file: Uint8Array, storedMd5: Uint8Array, breakAt = Infinity): Connection {
  let calls = 0;
  const message = (payload: MessageInitShape<typeof DownloadResponseSchema>["payload"]) => create(DownloadResponseSchema, { payload: payload! });
  async function* serverStream(_: unknown, request: DownloadRequest): AsyncGenerator<DownloadResponse> {
    await Promise.resolve();
    const first = ++calls === 1;
    const start = Number(request.readOffset);
    const end = request.readLimit > 0n ? Math.min(start + Number(request.readLimit), file.length) : file.length;
    yield message({
      case: "header",
      value: {
        file: { name: "f", etag: "e" }, storedMd5,
        contentRange: { startBytes: BigInt(start), endBytes: BigInt(end), totalBytes: BigInt(file.length) },
      },
    });
    for (let offset = start; offset < end; offset += 1000) {
      if (first && offset >= breakAt) {
        throw lost("broken");
      }
      const piece = file.subarray(offset, Math.min(offset + 1000, end));
      yield message({ case: "chunk", value: { offset: BigInt(offset), data: piece, crc32c: crc32c(piece) } });
    }
    if (first && end >= breakAt) {
      throw lost("broken");
    }
    yield message({
      case: "trailer", value: { sentBytes: BigInt(end - start), sentChecksums: { crc32c: crc32c(file.subarray(start, end)) } },
    });
  }
  return { closed: new AbortController(), serverStream } as unknown as Connection;
}

const sink = () => new Writable({ write: (_, __, done) => { done(); } });
const identity = consumerToken("t");

const damaged = (error: unknown) =>
  error instanceof LpFileShareError && error.code === "DATA_LOSS" && error.reason === undefined &&
  error.details.startsWith("the file does not have the MD5 that the store states");

void test("a whole file is compared with the MD5 that the store states", { concurrency: true }, async (t) => {
  const cases: Record<string, { stated: Uint8Array; options?: DownloadOptions; file?: Uint8Array; breakAt?: number; damaged?: boolean }> = {
    "right": { stated: right },
    "wrong": { stated: wrong, damaged: true },
    "none": { stated: none },
    "wrong, without the first byte": { stated: wrong, options: { offset: 1 } },
    "wrong, without the last byte": { stated: wrong, options: { limit: data.length - 1 } },
    "wrong, with a limit that is not reached": { stated: wrong, options: { limit: data.length + 1 }, damaged: true },
    "right, in two calls": { stated: right, breakAt: 2000 },
    "wrong, in two calls": { stated: wrong, breakAt: 2000, damaged: true },
    "right, with the trailer in a second call": { stated: right, breakAt: 5000 },
    "wrong, of an empty file": { stated: right, file: new Uint8Array(), damaged: true },
  };
  await Promise.all(Object.entries(cases).map(([name, { stated, options = {}, file = data, breakAt, damaged: isDamaged }]) =>
    t.test(name, async () => {
      const result = downloadTo(server(file, stated, breakAt), identity, "f", sink(), options);
      await (isDamaged ? assert.rejects(result, damaged) : result);
    })));
});

void test("a file with another MD5 is neither read to its end nor saved", async (t) => {
  const download = await openDownload(server(data, wrong), nodeHashes, identity, "f", {});
  await assert.rejects(download.bytes(), damaged);
  assert.equal(download.result, undefined);

  const folder = mkdtempSync(join(tmpdir(), "lpfileshare-"));
  t.after(() => { rmSync(folder, { recursive: true }); });
  await assert.rejects(downloadTo(server(data, wrong), identity, "f", join(folder, "f"), {}), damaged);
  assert.deepEqual(readdirSync(folder), []);
});

void test("where OpenSSL has no MD5, downloads do without it", async (t) => {
  const createAny = createHash;
  t.mock.method(crypto, "createHash", (algorithm: string) => {
    assert.notEqual(algorithm, "md5", "digital envelope routines::unsupported");
    return createAny(algorithm);
  });
  syncBuiltinESMExports();
  t.after(() => {
    t.mock.restoreAll();
    syncBuiltinESMExports();
  });
  assert.equal((await downloadTo(server(data, wrong), identity, "f", sink(), {})).bytes, data.length);
});
