// The entry for browsers, with a transport that the test scripts. test/web runs it in Chromium.
import assert from "node:assert/strict";
import { test } from "node:test";

import { create } from "@bufbuild/protobuf";
import { Code, ConnectError, createRouterTransport } from "@connectrpc/connect";

import { BrowserConnection } from "../src/browser/connection.js";
import { LpFileShare } from "../src/browser/index.js";
import { ErrorInfoSchema, RetryInfoSchema } from "../src/gen/google/rpc/error_details_pb.js";
import { FileType } from "../src/gen/lpfileshare/v1/file_pb.js";
import { FileSharingService, type UploadSmallFileRequest } from "../src/gen/lpfileshare/v1/file_sharing_service_pb.js";
import { consumerToken } from "../src/identity.js";

const conversation = "accounts/1/conversations/c";
const png = Uint8Array.from([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a, 1]);

/** Returns a client of a server that answers uploads with these errors, and then with OK, and the requests that it has received. */
function server(...errors: ConnectError[]) {
  const requests: UploadSmallFileRequest[] = [], tokens: (string | null)[] = [];
  const transport = createRouterTransport(({ service }) => {
    service(FileSharingService, {
      getCapabilities: () => ({ maxSmallFileBytes: 1000n }),
      uploadSmallFile(request, { requestHeader }) {
        requests.push(request);
        tokens.push(requestHeader.get("lp-consumer-token"));
        const error = errors.shift();
        if (error) {
          throw error;
        }
        return { result: { requestId: request.spec!.requestId } };
      },
    });
  });
  let renewed = 0;
  const identity = consumerToken((rejected) => (rejected === undefined && renewed === 0 ? "first" : `renewed ${++renewed}`));
  return { client: new LpFileShare({ baseUrl: "http://localhost", identity, connection: new BrowserConnection(transport) }), requests, tokens };
}

function condition(code: Code, reason: string, retry: boolean): ConnectError {
  const info = { desc: ErrorInfoSchema, value: create(ErrorInfoSchema, { domain: "lpfileshare", reason }) };
  const delay = { desc: RetryInfoSchema, value: create(RetryInfoSchema, { retryDelay: { nanos: 1000 } }) };
  return new ConnectError("no", code, undefined, retry ? [info, delay] : [info]);
}

void test("a file is sent with its name, type and checksums", async () => {
  const { client, requests, tokens } = server();
  const { requestId } = await client.upload(new File([png], "a.jpg"), { conversation });
  const { spec, data } = requests[0]!;
  assert.deepEqual([spec!.displayName, spec!.fileType, spec!.sizeBytes, spec!.requestId], ["a.jpg", FileType.PNG, 9n, requestId]);
  assert.ok(spec!.checksums?.crc32c !== undefined && spec!.checksums.sha256.length === 32);
  assert.deepEqual([...data], [...png]);
  assert.deepEqual(tokens, ["first"]);
});

void test("an upload is repeated under one request id, if the server asks for it", async () => {
  const { client, requests } = server(condition(Code.Unavailable, "SERVER_DRAINING", true));
  await client.upload(png, { conversation });
  assert.equal(requests.length, 2);
  assert.equal(requests[0]!.spec!.requestId, requests[1]!.spec!.requestId);
});

void test("a token that the server rejects is renewed once", async () => {
  const { client, tokens } = server(condition(Code.Unauthenticated, "TOKEN_INVALID", false));
  await client.upload(png, { conversation });
  assert.equal(tokens[0], "first");
  assert.match(tokens[1]!, /^renewed/);
});

void test("errors have a reason, and are not repeated without RetryInfo", async () => {
  const { client, requests } = server(condition(Code.InvalidArgument, "IMAGE_INVALID", false));
  await assert.rejects(client.upload(png, { conversation }), { code: "INVALID_ARGUMENT", reason: "IMAGE_INVALID", finished: true, attempts: 1 });
  assert.equal(requests.length, 1);
});

void test("a file that is too large is not sent", async () => {
  const { client, requests } = server();
  await assert.rejects(client.upload(new Blob([new Uint8Array(1001)]), { conversation }), { reason: "FILE_TOO_LARGE", finished: false, attempts: 0 });
  assert.equal(requests.length, 0);
});
