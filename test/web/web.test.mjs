// Pages in Chromium that call a server of another origin, by the browser entry of the TypeScript client.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import { once } from "node:events";
import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import { after, before, test } from "node:test";
import { build } from "esbuild";
import { chromium } from "playwright-core";

const root = new URL("../..", import.meta.url).pathname;
const timeout = 120_000; // the machine may be busy
const account = "12345678";
let site, strange, server, browser;

/** Serves an empty page with the client on an origin of its own. */
async function serve(script) {
  const s = createServer((request, response) => {
    const js = request.url === "/client.js";
    response.setHeader("Content-Type", js ? "text/javascript" : "text/html");
    response.end(js ? script : '<!doctype html><link rel="icon" href="data:,"><script src="/client.js"></script>');
  }).listen(0, "127.0.0.1");
  await once(s, "listening");
  return { origin: `http://localhost:${s.address().port}`, close: () => s.close() };
}

/** Starts a server. */
async function start(...more) {
  const flags = ["--sandbox", "--listen=127.0.0.1:0", "--drain-time=5m", "--drain-notice=0s", ...more];
  const child = spawn(`${root}bin/lpfileshare-server`, flags, { stdio: ["ignore", "ignore", "pipe"] });
  let log = "";
  const ready = await new Promise((done, failed) => {
    child.stderr.on("data", (part) => {
      log += part;
      if (/msg=ready .*\n/.test(log)) done(log);
    });
    child.on("exit", (code) => failed(new Error(`the server exited with ${code}: ${log}`)));
  });
  const address = (name) => new RegExp(` ${name}=(\\S+)`).exec(ready)?.[1];
  return { web: `http://${address("web")}`, sandbox: address("sandbox"), child };
}

/** Prints the resident memory of a server. */
async function printMemory(what, { child }) {
  console.log(what, /VmRSS:\s+(.*)/.exec(await readFile(`/proc/${child.pid}/status`, "utf8"))?.[1]);
}

before(async () => {
  const bundle = await build({
    entryPoints: [new URL("client.js", import.meta.url).pathname], bundle: true, write: false, platform: "browser", target: "es2022", minify: true,
    nodePaths: [`${root}test/web/node_modules`], alias: { "lpfileshare/browser": `${root}clients/typescript/src/browser/index.ts` },
  });
  const script = bundle.outputFiles[0].text;
  console.log(`the bundle of the browser entry has ${script.length} bytes`);
  [site, strange] = await Promise.all([serve(script), serve(script)]);
  const plain = await start();
  server = await start("--web-listen=127.0.0.1:0", `--web-origin=${site.origin}`);
  await printMemory("resident without --web-listen:", plain);
  await printMemory("resident with --web-listen:", server);
  plain.child.kill();
  browser = await chromium.launch({
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    args: process.getuid() === 0 ? ["--no-sandbox"] : [], // Chromium's own sandbox does not work for root
  });
});

after(async () => {
  await browser?.close();
  server?.child.kill();
  site?.close();
  strange?.close();
});

/** Opens a page of an origin. */
async function open(origin) {
  const page = await browser.newPage();
  page.setDefaultTimeout(timeout);
  await page.goto(origin);
  return page;
}

/** Runs a function in a page: with a client, its entry and the argument. The function must not use anything else. */
function inPage(page, fn, argument) {
  return page.evaluate(
    async ([source, baseUrl, account, argument]) => {
      const client = new lpfileshare.LpFileShare({ baseUrl, account, protocol: argument?.protocol });
      return new Function(`return (${source})`)()(client, lpfileshare, argument);
    },
    [fn.toString(), server.web, account, argument],
  );
}

/** A JPEG of n bytes: random data in comments. */
function jpeg(n) {
  const parts = [Buffer.from("ffd8", "hex")];
  for (let left = n - 2 - smallest.length; left > 0; ) {
    const size = Math.min(left, 60_000);
    const rest = left - size < 4 ? left : size;
    parts.push(Buffer.from([0xff, 0xfe, (rest - 2) >> 8, (rest - 2) & 0xff]), randomBytes(rest - 4));
    left -= rest;
  }
  return Buffer.concat([...parts, smallest]);
}

// A JPEG of 1 by 1 pixel, without its first two bytes.
const smallest = Buffer.from(
  "/9sAQwADAgICAgIDAgICAwMDAwQGBAQEBAQIBgYFBgkICgoJCAkJCgwPDAoLDgsJCQ0RDQ4PEBAREAoMEhMSEBMPEBAQ/8kACwgAAQABAQERAP/MAAYAEBAF/9oACAEBAAA/ANIgP//Z", "base64",
);

for (const protocol of ["connect", "grpc-web"]) {
  test(`a page uploads, watches and downloads by ${protocol}`, { timeout }, async () => {
    const page = await open(site.origin);
    const data = jpeg(2_900_000);
    const result = await inPage(page, async (client, { ConsumerTokens, consumerToken, LpFileShareError }, { bytes }) => {
      const { token, renewalSecret } = await client.signInConsumer({ anonymous: { connectorId: "4711" } });
      let renewed = 0;
      const expired = { token, renewalSecret, expires: new Date(0) };
      client = client.as(consumerToken(new ConsumerTokens(expired, { onRenew: () => { renewed++; } })));
      const { name: conversation } = await client.createConversation();
      const data = Uint8Array.from(atob(bytes), (c) => c.charCodeAt(0));
      let first;
      await new Promise((onConnection) => {
        first = (async () => { for await (const file of client.watch(conversation, { onConnection })) return file; })();
      });
      const { file, requestId } = await client.upload(new File([data], "photo.jpg"), { conversation, caption: "A picture" });
      const watched = await first;
      const listed = await client.files(conversation).toArray();
      const stat = await client.stat(file);
      const download = await client.download(file);
      const got = await download.bytes();
      const digest = await crypto.subtle.digest("SHA-256", got);
      const error = await client.stat(`${conversation}/files/none`).catch((e) => e);
      const tooLarge = await client.upload(new Blob([new Uint8Array(6_000_000)]), { conversation, displayName: "a.jpg" }).catch((e) => e);
      return {
        same: watched.name === file.name && listed[0].name === file.name && stat.name === file.name, requestId, renewed,
        length: got.length, sha256: Array.from(new Uint8Array(digest), (b) => b.toString(16).padStart(2, "0")).join(""),
        error: error instanceof LpFileShareError && error.code + " " + error.reason, tooLarge: `${tooLarge.reason} ${tooLarge.attempts}`,
      };
    }, { protocol, bytes: data.toString("base64") });
    assert.equal(result.sha256, createHash("sha256").update(data).digest("hex"));
    assert.equal(result.length, data.length);
    assert.ok(result.same);
    assert.match(result.requestId, /^[0-9a-f-]{36}$/);
    assert.equal(result.renewed, 1);
    assert.equal(result.error, "INVALID_ARGUMENT STORAGE_PATH_INVALID");
    assert.equal(result.tooLarge, "FILE_TOO_LARGE 0");
    await page.close();
  });
}

test("a page of an origin that is not allowed gets 403", { timeout }, async () => {
  const page = await open(strange.origin);
  const answers = [];
  page.on("response", (r) => { if (r.url().startsWith(server.web)) answers.push(r.status()); });
  const failed = page.waitForEvent("requestfailed");
  const outcome = await inPage(page, (client) => client.signInConsumer({ signUp: true }, { timeoutMs: 5000 }).then(() => "signed in", (e) => e.code));
  assert.notEqual(outcome, "signed in");
  await failed;
  const direct = await fetch(`${server.web}/lpfileshare.v1.IdentityService/SignInConsumer`, {
    method: "OPTIONS", headers: { Origin: strange.origin, "Access-Control-Request-Method": "POST" },
  });
  assert.equal(direct.status, 403);
  assert.ok(answers.every((status) => status === 403), `${answers}`);
  await page.close();
});

test("an upload that is being stored at SIGTERM ends", { timeout }, async () => {
  const page = await open(site.origin);
  const fault = { on: "store:PUT", delay: "1s", count: 1 };
  const armed = await fetch(`${server.sandbox}/_sandbox/faults`, { method: "POST", body: JSON.stringify(fault) });
  assert.ok(armed.ok);
  const uploading = inPage(page, async (client, { consumerToken }, { bytes }) => {
    client = client.as(consumerToken((await client.signInConsumer({ signUp: true })).token));
    const { name: conversation } = await client.createConversation();
    const data = Uint8Array.from(atob(bytes), (c) => c.charCodeAt(0));
    return (await client.upload(data, { conversation, displayName: "a.jpg", retryForMs: 0 })).file.name;
  }, { bytes: jpeg(50_000).toString("base64") });
  for (;;) {
    const faults = await (await fetch(`${server.sandbox}/_sandbox/faults`)).json();
    if (!faults.length || faults[0].struck > 0) break;
  }
  server.child.kill("SIGTERM");
  assert.match(await uploading, /\/files\//);
  await page.close();
  if (server.child.exitCode === null) await once(server.child, "exit");
  assert.equal(server.child.exitCode, 0);
});
