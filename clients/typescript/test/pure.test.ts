// Logic without a server. The conformance suite (test/conformance) proves the rest.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { inspect } from "node:util";

import { create, type DescMessage, type Message, toBinary } from "@bufbuild/protobuf";
import { anyPack, DurationSchema } from "@bufbuild/protobuf/wkt";
import { Metadata, type ServiceError, status } from "@grpc/grpc-js";

import { combine, crc32c } from "../src/crc32c.js";
import { optionsFromEnv } from "../src/env.js";
import { ConnectionLost, damaged, type Failure, lost, SourceFailure } from "../src/errors.js";
import { detectFileType } from "../src/filetype.js";
import { BadRequestSchema, ErrorInfoSchema, RetryInfoSchema } from "../src/gen/google/rpc/error_details_pb.js";
import { StatusSchema } from "../src/gen/google/rpc/status_pb.js";
import { FileSchema, FileType } from "../src/gen/lpfileshare/v1/file_pb.js";
import { statusFailure } from "../src/grpcstatus.js";
import { agentToken, ConsumerSession, consumerToken, ConsumerTokens } from "../src/identity.js";
import { native } from "../src/native.js";
import { Operation } from "../src/operation.js";
import { Pacer } from "../src/retry.js";
import { SourceReader } from "../src/source.js";
import { isLoopback, parseTargets } from "../src/targets.js";
import { VERSION } from "../src/version.js";

const bytes = (text: string) => Buffer.from(text, "latin1");

void test("crc32c", () => {
  assert.equal(crc32c(bytes("123456789")), 0xe3069283);
  assert.equal(crc32c(new Uint8Array()), 0);
  const data = Buffer.from(Array.from({ length: 1000 }, (_, i) => (i * 7) & 0xff));
  for (const cut of [0, 1, 7, 8, 9, 500, 1000]) {
    const first = data.subarray(0, cut), second = data.subarray(cut);
    assert.equal(crc32c(second, crc32c(first)), crc32c(data), `cut at ${cut}`);
    assert.equal(combine(crc32c(first), crc32c(second), second.length), crc32c(data), `combined at ${cut}`);
  }
});

void test("detectFileType", () => {
  assert.equal(detectFileType("", bytes("\xff\xd8\xff\xe0")), FileType.JPEG);
  assert.equal(detectFileType("a.gif", bytes("\x89PNG\r\n\x1a\n")), FileType.PNG);
  assert.equal(detectFileType("", bytes("\xef\xbb\xbf\r\n%PDF-1.7")), FileType.PDF);
  assert.equal(detectFileType("a.DOCX", bytes("PK\x03\x04")), FileType.DOCX);
  assert.equal(detectFileType("", Buffer.from("gr\u00fc\u00dfe").subarray(0, 3)), FileType.TXT);
  assert.equal(detectFileType("", bytes("a\x00b")), FileType.UNSPECIFIED);
  assert.equal(detectFileType("", new Uint8Array()), FileType.UNSPECIFIED);
});

void test("native converts integers, times and nested messages", () => {
  const file = native(create(FileSchema, {
    name: "n", storedSizeBytes: 2n ** 31n + 1n, createTime: { seconds: 1n, nanos: 5_000_000 }, uploadedChecksums: { crc32c: 0 }, fileType: 99 as FileType,
  }));
  assert.equal(file.storedSizeBytes, 2 ** 31 + 1);
  assert.deepEqual(file.createTime, new Date(1005));
  assert.equal(file.uploadedChecksums?.crc32c, 0);
  assert.equal(file.fileType, 99 as FileType);
  assert.equal(file.messageSequence, undefined);
  assert.equal((JSON.parse(JSON.stringify(file)) as { name: string }).name, "n");
  assert.throws(() => native(create(FileSchema, { storedSizeBytes: 2n ** 53n })), RangeError);
});

type Detail = [DescMessage, Message];

function serviceError(code: status, details: Detail[] = []): ServiceError {
  const metadata = new Metadata();
  if (details.length > 0) {
    const message = create(StatusSchema, { code, details: details.map(([schema, detail]) => anyPack(schema, detail)) });
    metadata.set("grpc-status-details-bin", Buffer.from(toBinary(StatusSchema, message)));
  }
  return Object.assign(new Error("x"), { code, details: "what happened", metadata });
}

const info = create(ErrorInfoSchema, { domain: "lpfileshare", reason: "TOO_MANY_UPLOADS", metadata: { limit: "queue" } });
const retryInfo = create(RetryInfoSchema, { retryDelay: create(DurationSchema, { seconds: 1n, nanos: 500_000_000 }) });

void test("the retry rule", () => {
  const verdict = (code: status, ...details: Detail[]) => statusFailure(serviceError(code, details)).verdict;
  assert.equal(verdict(status.RESOURCE_EXHAUSTED, [ErrorInfoSchema, info], [RetryInfoSchema, retryInfo]), "repeat");
  assert.equal(verdict(status.UNAVAILABLE, [ErrorInfoSchema, info]), "final");
  for (const code of [status.UNAVAILABLE, status.CANCELLED, status.UNKNOWN]) {
    assert.equal(verdict(code), "repeat");
  }
  assert.equal(verdict(status.INTERNAL), "once");
  assert.equal(verdict(status.UNIMPLEMENTED), "final");
  assert.equal(verdict(status.RESOURCE_EXHAUSTED), "final");
  const calm = Object.assign(serviceError(status.RESOURCE_EXHAUSTED), { details: "Bandwidth exhausted or memory limit exceeded" });
  assert.equal(statusFailure(calm).verdict, "repeat");
});

void test("an error has the details of its status", () => {
  const bad = create(BadRequestSchema, { fieldViolations: [{ field: "spec.caption", description: "too long" }] });
  const failure = statusFailure(serviceError(status.RESOURCE_EXHAUSTED, [[ErrorInfoSchema, info], [RetryInfoSchema, retryInfo], [BadRequestSchema, bad]]));
  const error = failure.toError({ operation: "upload", attempts: 2, requestId: "id", finished: true });
  assert.equal(error.code, "RESOURCE_EXHAUSTED");
  assert.equal(error.reason, "TOO_MANY_UPLOADS");
  assert.deepEqual(error.metadata, { limit: "queue" });
  assert.deepEqual(error.violations, [{ field: "spec.caption", description: "too long" }]);
  assert.equal(error.retryAfterMs, 1500);
  assert.equal(
    error.message,
    "upload: what happened: spec.caption: too long [TOO_MANY_UPLOADS] (after 2 attempts). " +
      "The server has too many uploads. Retry later, with fewer uploads at the same time.",
  );
});

void test("Pacer", async (t) => {
  const run = async (pacer: Pacer, failure: Failure) => {
    pacer.attempts++;
    await pacer.retry(failure, consumerToken("t"), "t");
  };
  await t.test("makes one attempt if retries are disabled", async () => {
    const pacer = new Pacer(new Operation("op", []), { retryForMs: 0 });
    await assert.rejects(run(pacer, lost("gone")), (error) => error instanceof ConnectionLost && error.notRepeated !== undefined);
  });
  await t.test("tries twice after INTERNAL", async () => {
    const pacer = new Pacer(new Operation("op", []));
    await run(pacer, statusFailure(serviceError(status.INTERNAL)));
    await assert.rejects(run(pacer, statusFailure(serviceError(status.INTERNAL))), { code: "INTERNAL", attempts: 2 });
  });
  await t.test("reports the caller's cancellation before the status", async () => {
    const operation = new Operation("op", [AbortSignal.abort(new Error("stop"))]);
    await assert.rejects(run(new Pacer(operation), damaged("x")), { name: "AbortError", code: "CANCELLED" });
    await assert.rejects(run(new Pacer(operation), new SourceFailure(new Error("disk"))), { name: "SourceError" });
  });
  await t.test("reports the caller's deadline", async () => {
    const operation = new Operation("op", [], 1);
    await assert.rejects(operation.sleep(60_000));
    await assert.rejects(run(new Pacer(operation), lost("gone")), { name: "TimeoutError", code: "DEADLINE_EXCEEDED" });
  });
});

void test("tokens", async (t) => {
  await t.test("concurrent calls share one renewal", async () => {
    let renewals = 0;
    const tokens = new ConsumerTokens({ token: "a", renewalSecret: "s" });
    tokens.bind("accounts/1", () => {
      renewals++;
      return Promise.resolve(new ConsumerSession({ token: "b", renewalSecret: "s2" }));
    });
    assert.deepEqual(await Promise.all(Array.from({ length: 10 }, () => tokens.renew("a"))), Array(10).fill("b"));
    assert.equal(await tokens.renew("a"), "b");
    assert.equal(renewals, 1);
  });
  await t.test("a function is asked once for another token", async () => {
    const asked: (string | undefined)[] = [];
    const identity = agentToken((rejected) => {
      asked.push(rejected);
      return rejected === undefined ? "a" : "b";
    });
    assert.deepEqual(await identity.attach(), { key: "lp-agent-token", token: "a" });
    assert.deepEqual(await Promise.all([identity.renew("a"), identity.renew("a")]), [true, true]);
    assert.deepEqual(asked, [undefined, "a"]);
  });
  await t.test("do not print", async () => {
    const session = new ConsumerSession({ token: "hush", renewalSecret: "hush", consumerId: "c" });
    for (const thing of [session, consumerToken("hush"), consumerToken(new ConsumerTokens(session)), new ConsumerTokens(session)]) {
      // eslint-disable-next-line @typescript-eslint/no-base-to-string -- that is what is tested
      const texts = [String(thing), JSON.stringify(thing), inspect(thing, { depth: 9, showHidden: true })];
      assert.ok(!texts.join().includes("hush"), texts.join());
    }
    await assert.rejects(consumerToken("hush\n").attach(), (error: Error) => !error.message.includes("hush"));
  });
});

void test("SourceReader", async (t) => {
  const collect = async (reader: SourceReader, size: number) => {
    const sizes: number[] = [];
    for await (const chunk of reader.chunks(size)) {
      sizes.push(chunk.length);
    }
    return sizes;
  };
  const { signal } = new AbortController();
  await t.test("cuts pieces into chunks", async () => {
    const reader = new SourceReader([bytes("abc"), new Uint8Array(), bytes("defgh"), bytes("i")], 4);
    assert.deepEqual(await collect(reader, 4), [4, 4, 1]);
    assert.match(reader.begin() ?? "", /read only once, and 9 bytes/);
  });
  await t.test("measures what can be read twice", async () => {
    const reader = new SourceReader(() => [bytes("12345"), bytes("6789")], 4);
    await reader.prepare(signal, true);
    assert.equal(reader.measure?.size, 9);
    assert.equal(reader.measure.crc32c, 0xe3069283);
    assert.deepEqual(await collect(reader, 4), [4, 4, 1]);
    assert.equal(reader.begin(), undefined);
    assert.deepEqual(await collect(reader, 16), [9]);
  });
  await t.test("keeps the first bytes of what can be read once", async () => {
    const reader = new SourceReader([bytes("x".repeat(600)), bytes("y")], 1000);
    await reader.prepare(signal, true);
    assert.equal(reader.head.length, 512);
    assert.equal(reader.begin(), undefined);
    assert.deepEqual(await collect(reader, 1000), [601]);
  });
  await t.test("reports the failure of the source", async () => {
    const reader = new SourceReader("/nonexistent/file", 4);
    await assert.rejects(reader.prepare(signal, true), SourceFailure);
  });
});

void test("targets", () => {
  assert.deepEqual(parseTargets("a:1, b"), ["a:1", "b"]);
  assert.throws(() => parseTargets("a:1,"), TypeError);
  assert.throws(() => parseTargets("a:1,dns:///b"), TypeError);
  for (const target of ["localhost:1", "127.0.0.5:1", "[::1]:1", "::1", "unix:/x", "dns:///localhost:1", "127.0.0.1:1,[::1]:2"]) {
    assert.ok(isLoopback(target), target);
  }
  for (const target of ["example.com:1", "127.0.0.1.example.com:1", "10.0.0.1:1", "localhost:1,b:2"]) {
    assert.ok(!isLoopback(target), target);
  }
});

void test("optionsFromEnv", () => {
  assert.throws(() => optionsFromEnv({}, {}), /LPFILESHARE_ADDRESS/);
  const env = { LPFILESHARE_ADDRESS: "a:1", LPFILESHARE_ACCOUNT: "12", LPFILESHARE_PLAINTEXT: "yes" };
  assert.deepEqual(optionsFromEnv(env, {}), { target: "a:1", identity: undefined, account: "12", tls: false });
  assert.throws(() => optionsFromEnv({ ...env, LPFILESHARE_TOKEN: "t", LPFILESHARE_AGENT_TOKEN: "t" }, {}), /two identities/);
  assert.throws(() => optionsFromEnv({ ...env, LPFILESHARE_PLAINTEXT: "maybe" }, {}), /must be true or false/);
  assert.throws(() => optionsFromEnv({ ...env, LPFILESHARE_TLS_CA: "/nonexistent" }, {}), /cannot be read/);
});

void test("VERSION is that of the package", () => {
  const manifest = JSON.parse(readFileSync("package.json", "utf8")) as { version: string };
  assert.equal(VERSION, manifest.version);
});
