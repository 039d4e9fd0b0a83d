// The commands that the page gives to copy.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { test } from "node:test";
import { cli, curl, forms, go, grpcurl, quote } from "../../internal/sandbox/page/copy.js";

const action = { side: "consumer", account: "12345678", conversation: "c-1", file: "photo.jpg", fileType: "FILE_TYPE_JPEG", caption: "" };
const server = { grpc: "127.0.0.1:50051", tls: false, origin: "http://127.0.0.1:8400" };

test("quote leaves a text as it is, whatever is in it", () => {
  for (const text of ["photo.jpg", "it's", "$(id) `id` \\ \"x\" \n ;|&", "'", "", "-x", "!", "ä 🐈"]) {
    assert.equal(execFileSync("bash", ["-c", "printf %s " + quote(text)], { encoding: "utf8" }), text);
  }
});

test("a command of the command line", () => {
  assert.equal(cli(action, server), 'LPFILESHARE_TOKEN="$TOKEN" lpfileshare --address 127.0.0.1:50051 --account 12345678 upload -c c-1 photo.jpg');
  assert.equal(cli({ ...action, side: "agent", caption: "a b", file: "-x.jpg" }, server),
    `LPFILESHARE_AGENT_TOKEN="$TOKEN" lpfileshare --address 127.0.0.1:50051 --account 12345678 agent send -c c-1 --caption='a b' ./-x.jpg`);
});

test("the other forms name the method, the file and the token's variable", () => {
  assert.match(grpcurl(action, server), /-plaintext -H "lp-consumer-token: \$TOKEN" -d @ 127\.0\.0\.1:50051 lpfileshare\.v1\.FileSharingService\/UploadSmallFile$/);
  assert.doesNotMatch(grpcurl(action, { ...server, tls: true }), /-plaintext/);
  assert.match(curl({ ...action, side: "agent" }, server), /lp-agent-token: \$TOKEN.* http:\/\/127\.0\.0\.1:8400\/lpfileshare\.v1\./);
  assert.match(go({ ...action, caption: "a\u202Eb" }, server), /Caption: "a\\u202eb"/);
  for (const form of Object.values(forms)) assert.match(form(action, server), /TOKEN[\s\S]*photo\.jpg|photo\.jpg[\s\S]*TOKEN/);
});

test("the request in the commands is JSON", () => {
  const caption = `it's "quoted" \\ $(id)`;
  const body = curl({ ...action, caption, file: "/dev/null" }, server).split(" |\n")[0];
  const { spec, data } = JSON.parse(execFileSync("bash", ["-c", body], { encoding: "utf8" }));
  assert.deepEqual([spec.caption, spec.conversation, data], [caption, "accounts/12345678/conversations/c-1", ""]);
});
