// The console page in Chromium: ten cases. SCREENSHOT=FILE writes a picture of the third one, and runs nothing else.
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { mkdtemp, readFile, readdir, rm, copyFile } from "node:fs/promises";
import { request } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { chromium } from "playwright-core";
import { freePort, root, run, start } from "./server.mjs";

const photo = await readFile(root + "cmd/client/demo.jpg");
const picture = { name: "photo.jpg", mimeType: "image/jpeg", buffer: photo };
const screenshot = process.env.SCREENSHOT;
// Only for the reader: the machine may be busy, so no wait of a test is short.
const timeout = 180_000;
let work, frames, browser, server;

before(async () => {
  work = await mkdtemp(join(tmpdir(), "page-"));
  frames = process.env.FRAMES ?? join(work, "frames");
  server = await start("--sandbox-frames", frames);
  browser = await chromium.launch({
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    args: process.getuid() === 0 ? ["--no-sandbox"] : [], // Chromium's own sandbox does not work for root
  });
});

after(async () => {
  await browser?.close();
  await server?.stop();
  await rm(work, { recursive: true, force: true });
});

/** A case. What no case may cause fails it: a dialog, an error of the page, a report of its security policy. */
function page(name, act, options = {}) {
  if (screenshot && !options.screenshot) return;
  test(name, { timeout: 2 * timeout }, async () => {
    const context = await browser.newContext({ viewport: { width: 1400, height: 900 }, permissions: ["clipboard-read", "clipboard-write"], ...options.context });
    context.setDefaultTimeout(timeout);
    const wrong = [];
    context.on("dialog", (d) => { wrong.push("dialog: " + d.message()); d.dismiss(); });
    context.on("weberror", (e) => wrong.push("error: " + e.error()));
    context.on("console", (m) => { if (/Content Security Policy|Trusted/.test(m.text())) wrong.push(m.text()); });
    try {
      await act(context);
      assert.deepEqual(wrong, []);
    } finally {
      await fetch(server.sandbox + "/_sandbox/faults", { method: "DELETE" });
      await context.close();
    }
  });
}

const status = (p, pattern) => p.locator("#status", { hasText: pattern }).waitFor();
const messages = (p, side) => p.locator(`[data-side=${side}] .messages li`);
const input = (p, side) => p.locator(`[data-side=${side}] input[type=file]`);
const send = (p, side, file = picture) => input(p, side).setInputFiles(file);
const steps = (p) => p.locator(".steps li").evaluateAll((all) => all.map((e) => ({ step: e.dataset.step, at: Number(e.dataset.at), name: e.querySelector(".name").textContent })));
const live = (p) => p.locator("#connection[data-state=live]").waitFor();

/** Opens the page, and a conversation of its own. */
async function open(context, at = server.page) {
  const p = await context.newPage();
  await p.goto(at);
  await live(p);
  await p.getByRole("button", { name: "New" }).click();
  await status(p, "A new conversation is open");
  return p;
}

/** Waits until every picture of a side has been decoded. */
async function seesPictures(p, side, count) {
  await p.waitForFunction(([side, count]) => {
    const all = [...document.querySelectorAll(`[data-side=${side}] .messages img`)];
    for (const i of all) i.scrollIntoView();
    return all.length === count && all.every((i) => i.naturalWidth > 0);
  }, [side, count]);
}

/** Waits until the time line has a step. */
const reaches = (p, step) => p.locator(`.steps li[data-step=${step}]`).first().waitFor();

page("a dropped file is shown on both sides, with the times of its steps", async (context) => {
  const p = await open(context);
  const data = await p.evaluateHandle((text) => {
    const transfer = new DataTransfer();
    transfer.items.add(new File([Uint8Array.from(atob(text), (c) => c.charCodeAt(0))], "cat.jpg", { type: "image/jpeg" }));
    return transfer;
  }, photo.toString("base64"));
  await p.locator("[data-side=consumer] .zone").dispatchEvent("drop", { dataTransfer: data });
  await status(p, "Sent cat.jpg: stored, and published once");
  await seesPictures(p, "consumer", 1);
  await seesPictures(p, "agent", 1);
  await reaches(p, "answer");
  const all = await steps(p);
  assert.deepEqual(all.map((s) => s.step), ["call", "signed", "PUT", "published", "answer"]);
  assert.deepEqual(all.map((s) => s.at), all.map((s) => s.at).sort((a, b) => a - b));
  await p.locator("#upload-state", { hasText: "cat.jpg: OK, published once" }).waitFor();
});

page("the agent answers, and receipts are marked", async (context) => {
  const p = await open(context);
  await send(p, "agent");
  await status(p, "Sent photo.jpg");
  await seesPictures(p, "consumer", 1);
  await p.getByRole("button", { name: /^Download message \d+ as consumer$/ }).click();
  await status(p, "downloaded as consumer");
  await p.locator("[data-side=agent] .own .marks", { hasText: "✓✓ opened" }).waitFor();
});

page("a lost answer: one message", async (context) => {
  const p = await open(context);
  const fault = p.getByRole("button", { name: "lose the answer" });
  await fault.click();
  await p.locator("#scenarios [aria-pressed=true]").waitFor();
  await p.locator("[data-side=consumer]").getByLabel("Caption").fill("The answer is lost, the message is not sent twice");
  await send(p, "consumer");
  await status(p, "Sent photo.jpg: stored, and published once");
  await seesPictures(p, "agent", 1);
  await reaches(p, "answer");
  assert.equal(await messages(p, "consumer").count(), 1);
  const all = await steps(p);
  assert.equal(all.at(-1).name, "answer: OK");
  assert.ok(all.some((s) => s.name === "fault: ms.PublishEvent"), JSON.stringify(all));
  // The server looks for the message over a new socket.
  const sent = (type) => p.locator("#wire-rows tr[data-kind=frame]", { hasText: "→ " + type }).count();
  assert.ok((await sent("ms.PublishEvent")) + (await sent("ms.QueryMessages")) + (await sent("ms.SubscribeMessagingEvents")) >= 2);
  assert.equal(await fault.getAttribute("aria-pressed"), "false");
  if (screenshot) {
    await p.evaluate(() => { document.activeElement?.blur(); window.scrollTo(0, 0); });
    await p.screenshot({ path: screenshot, fullPage: true });
  }
}, { screenshot: true, context: { viewport: { width: 1240, height: 800 }, colorScheme: "light" } });

page("the store answers 503 twice", async (context) => {
  const p = await open(context);
  await p.getByRole("button", { name: "store: 503" }).click();
  await p.locator("#scenarios [aria-pressed=true]").waitFor();
  await send(p, "consumer");
  await status(p, "Sent photo.jpg: stored, and published once");
  await reaches(p, "answer");
  const puts = (await steps(p)).filter((s) => s.step === "PUT").map((s) => s.name.slice(0, 7));
  assert.deepEqual(puts, ["PUT 503", "PUT 503", "PUT 201"]);
  assert.ok((await p.locator("#wire-rows tr.bad[data-kind=refused]").count()) >= 2);
});

page("a slow PUT is seen to run; one that is cut is sent again under its id", async (context) => {
  const p = await open(context);
  await p.getByRole("button", { name: "slow store" }).click();
  await p.locator("#scenarios [aria-pressed=true]").waitFor();
  await send(p, "consumer");
  const running = () => p.locator(".steps .running[data-step=PUT] .time").textContent();
  const first = await running();
  await p.waitForFunction((first) => document.querySelector(".steps .running[data-step=PUT] .time")?.textContent !== first, first);
  await p.getByRole("button", { name: "All off" }).click();
  await status(p, "Sent photo.jpg");

  await p.getByRole("button", { name: "cut the PUT" }).click();
  await p.locator("#scenarios [aria-pressed=true]").waitFor();
  await send(p, "consumer", { ...picture, name: "cut.jpg" });
  const failure = p.locator("[data-side=consumer] .failures li", { hasText: /cut\.jpg: [A-Z_]+: / });
  await failure.waitFor();
  await p.getByRole("button", { name: "All off" }).click();
  await p.locator("#armed", { hasText: "no fault is armed" }).waitFor();
  await failure.getByRole("button", { name: "Send again under the same id" }).click();
  await status(p, "Sent cut.jpg: stored, and published once");
  await seesPictures(p, "agent", 2);
  await p.locator("#timeline h3", { hasText: "Attempt 2" }).waitFor();
});

page("hostile captions and names are text", async (context) => {
  const p = await open(context);
  const captions = ["<img src=x onerror=alert(1)>", "\u202Egnp.exe\u202C \u2066x", "🐈".repeat(125), "'; alert(1); \"</pre><script>alert(2)</script>"];
  for (const [i, caption] of captions.entries()) {
    await p.locator("[data-side=consumer]").getByLabel("Caption").fill(caption);
    await send(p, "consumer", { ...picture, name: `<svg onload=alert(3)>${i}'"$(id)\`id\`.jpg` });
    await messages(p, "agent").nth(i).waitFor();
  }
  for (const side of ["consumer", "agent"]) {
    assert.deepEqual(await p.locator(`[data-side=${side}] figcaption`).allTextContents(), captions);
  }
  for (const form of ["CLI", "grpcurl", "curl", "Go"]) await p.getByRole("button", { name: form, exact: true }).click();
  await p.locator("#wire-rows tr[data-kind=published]").first().click();
  await p.locator("#wire-detail").waitFor();
  assert.equal(await p.locator("img[src=x], svg, script:not([type=module])").count(), 0);
});

page("the stream continues after a restart, without a row twice", async (context) => {
  const port = await freePort();
  let own = await start("--sandbox-listen", "127.0.0.1:" + port);
  try {
    const p = await open(context, own.page);
    await send(p, "consumer");
    await seesPictures(p, "agent", 1);
    await own.stop("SIGKILL");
    await p.locator("#connection:is([data-state=lost], [data-state=ended])").waitFor();
    assert.equal(await messages(p, "agent").count(), 1); // what was seen stays
    own = await start("--sandbox-listen", "127.0.0.1:" + port);
    await live(p);
    await p.locator("#wire-rows tr[data-kind=restart]").waitFor();
    await p.getByRole("button", { name: "New" }).click();
    await status(p, "A new conversation is open");
    await send(p, "consumer");
    await status(p, "Sent photo.jpg");
    await p.locator("#wire-rows tr[data-kind=call]", { hasText: "end OK photo.jpg" }).first().waitFor();
    const keys = await p.locator("#wire-rows tr").evaluateAll((all) => all.map((e) => e.dataset.key));
    assert.equal(new Set(keys).size, keys.length);
    // More events than the sandbox keeps, before another browser looks.
    for (let i = 0; i < 1100; i++) {
      const armed = await fetch(own.sandbox + "/_sandbox/faults", { method: "POST", body: '{"on": "store:HEAD"}' });
      await fetch(own.sandbox + armed.headers.get("location"), { method: "DELETE" });
    }
    const other = await (await browser.newContext()).newPage();
    await other.goto(own.page);
    await live(other);
    await other.locator("#wire-more", { hasText: "earlier events are not shown" }).waitFor();
    await p.locator("#wire-rows tr").first().waitFor();
    await other.context().close();
  } finally {
    await own.stop("SIGKILL");
  }
});

page("uploads of the command line are shown, and a copied command sends the same file", async (context) => {
  const p = await open(context);
  const env = { PATH: root + "bin:" + process.env.PATH, HOME: work };
  const cli = (...args) => run("lpfileshare", args, { env, cwd: work });
  await copyFile(root + "cmd/client/demo.jpg", join(work, "photo.jpg"));
  await cli("--address", server.grpc, "sign-in");
  const conversation = (await cli("conversation", "create")).trim().split("/").pop();
  await cli("upload", "--name", "from the shell.jpg", "photo.jpg");
  await p.locator("#upload-state", { hasText: "from the shell.jpg: OK, published once" }).waitFor();
  await p.locator("#conversation").selectOption(conversation);
  await seesPictures(p, "consumer", 1);
  await p.locator("[data-side=consumer] .note", { hasText: "another program" }).waitFor();

  await p.getByRole("button", { name: "New" }).click();
  await status(p, "A new conversation is open");
  await p.locator("[data-side=consumer]").getByLabel("Caption").fill("it's");
  await send(p, "consumer");
  await seesPictures(p, "agent", 1);
  const clipboard = () => p.evaluate(() => navigator.clipboard.readText());
  await p.getByRole("button", { name: "Copy the command" }).click();
  await status(p, "The command was copied");
  const command = await clipboard();
  await p.getByRole("button", { name: "Copy TOKEN" }).click();
  await status(p, "token was copied");
  const TOKEN = await clipboard();
  assert.ok(!command.includes(TOKEN) && TOKEN.length > 20);
  await run("bash", ["-c", command], { cwd: work, env: { ...env, TOKEN } });
  await seesPictures(p, "agent", 2);
  assert.deepEqual(await p.locator("[data-side=agent] figcaption").allTextContents(), ["it's", "it's"]);
  const { stored } = await (await fetch(server.sandbox + "/_sandbox/journal")).json();
  const hash = createHash("sha256").update(photo).digest("hex");
  assert.deepEqual(stored.slice(-2).map((s) => s.sha256), [hash, hash]);
});

page("no other origin, no secret, and eight tabs", async (context) => {
  const { port } = new URL(server.sandbox);
  const answer = (method, path, headers) => new Promise((done, failed) => {
    request({ port, host: "127.0.0.1", method, path, headers }, (r) => { r.resume(); done(r.statusCode); }).on("error", failed).end();
  });
  assert.equal(await answer("GET", "/", { host: "rebound.example:" + port }), 421);
  assert.equal(await answer("GET", "/_sandbox/conversations", { host: "rebound.example" }), 421);
  for (const path of ["/_sandbox/faults", "/lpfileshare.v1.IdentityService/SignInConsumer"]) {
    assert.equal(await answer("POST", path, { origin: "http://other.example" }), 403);
    assert.equal(await answer("POST", path, { "sec-fetch-site": "cross-site" }), 403);
  }

  const p = await open(context);
  const tabs = await Promise.all(Array.from({ length: 7 }, async () => {
    const tab = await context.newPage();
    await tab.goto(server.page);
    await live(tab);
    return tab;
  }));
  await send(p, "consumer", { ...picture, name: "seen by eight.jpg" });
  for (const tab of [p, ...tabs]) await tab.locator("#wire-rows tr[data-kind=call]", { hasText: "end OK seen by eight.jpg" }).waitFor({ state: "attached" });

  // What the sandbox has issued is in the file of frames, and nowhere else.
  const files = await readdir(frames);
  const raw = (await Promise.all(files.map((f) => readFile(join(frames, f), "utf8")))).join("");
  const issued = new Set();
  for (const m of raw.matchAll(/temp_url_sig\\*":\s*\\*"([0-9a-f]{20,})|(eyJ[A-Za-z0-9_-]{20,}\.[A-Za-z0-9_.-]+)/g)) issued.add(m[1] ?? m[2]);
  assert.ok(issued.size >= 2, "the frames have neither a token nor a signature, so this checks nothing");
  await p.locator("#wire-rows tr[data-kind=frame]", { hasText: "GenerateURLResponse" }).first().click();
  const [dom, events] = [await p.content(), await (await fetch(server.sandbox + "/_sandbox/events?follow=0")).text()];
  for (const [where, text] of [["the page", dom], ["the events", events]]) {
    assert.ok(text.includes("[masked]"), where + " masks nothing, so this checks nothing");
    for (const secret of issued) assert.ok(!text.includes(secret), where + " has a secret");
    assert.doesNotMatch(text, /eyJ[A-Za-z0-9_-]{20,}\.|temp_url_sig\\*":\s*\\*"[0-9a-f]{20,}|temp_url_sig=[0-9a-f]{20,}/, where);
  }
});

page("axe finds nothing, all works by keyboard, 360 px are enough", async (context) => {
  const p = await open(context);
  await send(p, "consumer");
  await seesPictures(p, "agent", 1);
  await p.getByRole("button", { name: "store: 503" }).click();
  await p.locator("#scenarios [aria-pressed=true]").waitFor();
  await p.locator("#wire-filter").fill("store:PUT"); // axe takes long for each row
  await p.locator("#wire-rows tr").first().click();
  const axe = await readFile(new URL("node_modules/axe-core/axe.min.js", import.meta.url), "utf8");
  await p.evaluate(axe + "; undefined");
  for (const colorScheme of ["light", "dark"]) {
    await p.emulateMedia({ colorScheme, reducedMotion: "reduce" });
    const { violations } = await p.evaluate(() => window.axe.run());
    assert.deepEqual(violations.map((v) => [v.id, v.nodes.map((n) => n.html.slice(0, 120))]), [], colorScheme);
  }
  await p.getByRole("button", { name: "All off" }).click();
  await p.locator("#armed", { hasText: "no fault is armed" }).waitFor();

  // By keyboard only.
  await p.reload();
  await live(p);
  await p.keyboard.press("n");
  await status(p, "A new conversation is open");
  const focused = () => p.evaluate(() => document.activeElement?.textContent?.slice(0, 40) || document.activeElement?.getAttribute("type") || "");
  await p.keyboard.press("1");
  assert.equal(await focused(), "file");
  const [chooser] = await Promise.all([p.waitForEvent("filechooser"), p.keyboard.press("Space")]);
  await chooser.setFiles(picture);
  await status(p, "Sent photo.jpg");
  await p.keyboard.press("f");
  assert.match(await focused(), /lose the answer/);
  await p.keyboard.press("Space");
  await p.locator("#scenarios [aria-pressed=true]").waitFor();
  await p.keyboard.press("Space");
  await p.locator("#armed", { hasText: "no fault is armed" }).waitFor();
  await p.keyboard.press("j");
  await p.keyboard.press("j");
  await p.keyboard.press("Enter");
  await p.locator("#wire-detail").waitFor();
  await p.keyboard.press("Escape");
  await p.locator("#wire-detail").waitFor({ state: "hidden" });
  await p.keyboard.press("/");
  await p.keyboard.type("published");
  await p.waitForFunction(() => [...document.querySelectorAll("#wire-rows tr")].every((r) => /published|conversation/i.test(r.dataset.kind + r.textContent)));
  await p.keyboard.press("Escape");
  await p.keyboard.press("?");
  await p.locator("dialog[open]").waitFor();
  await p.keyboard.press("Escape");
  await p.locator("dialog[open]").waitFor({ state: "hidden" });

  for (const width of [360, 640]) { // 640: a window of 1,280 at a zoom of 200 %
    await p.setViewportSize({ width, height: 720 });
    assert.ok((await p.evaluate(() => document.documentElement.scrollWidth)) <= width, `the page is wider than ${width} px`);
  }
});
