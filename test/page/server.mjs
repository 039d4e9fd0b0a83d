// Starts servers with their sandboxes, for the tests of the page.
import { spawn } from "node:child_process";
import { createServer } from "node:net";
import { once } from "node:events";

export const root = new URL("../..", import.meta.url).pathname;

/** Starts a server, and returns its addresses when it is ready. */
export async function start(...flags) {
  const child = spawn(root + "bin/lpfileshare-server", ["--sandbox", "--listen", "127.0.0.1:0", "--drain-time", "0s", ...flags], { stdio: ["ignore", "ignore", "pipe"] });
  let log = "";
  const ready = await new Promise((done, failed) => {
    child.stderr.on("data", (part) => {
      log += part;
      const found = /msg=ready grpc=(\S+) .*sandbox=(\S+) .*page=(\S+)/.exec(log);
      if (found) done(found);
    });
    child.on("exit", (code) => failed(new Error(`the server exited with ${code}: ${log}`)));
  });
  return {
    grpc: ready[1], sandbox: ready[2], page: ready[3],
    async stop(signal = "SIGTERM") {
      if (child.exitCode !== null || child.signalCode !== null) return;
      child.kill(signal);
      await once(child, "exit");
    },
  };
}

/** Returns a port that is free now, below the ephemeral ones, so that no outgoing connection takes it meanwhile. */
export async function freePort() {
  for (;;) {
    const server = createServer().listen(20000 + Math.floor(Math.random() * 12000), "127.0.0.1");
    const free = await once(server, "listening").then(() => true, () => false);
    if (!free) continue;
    const { port } = server.address();
    server.close();
    await once(server, "close");
    return port;
  }
}

/** Runs a command, and returns what it prints. */
export async function run(command, args, options) {
  const child = spawn(command, args, { stdio: ["ignore", "pipe", "pipe"], ...options });
  let out = "", err = "";
  child.stdout.on("data", (part) => (out += part));
  child.stderr.on("data", (part) => (err += part));
  const [code] = await once(child, "close");
  if (code !== 0) throw new Error(`${command} ${args.join(" ")} exited with ${code}: ${err}`);
  return out;
}
