import { isIP, isIPv6 } from "node:net";

/**
 * Splits a target into gRPC names, one for each server: "HOST:PORT,HOST:PORT" or a single name, which gRPC parses itself. Throws a
 * TypeError if one in a list is not an address.
 */
export function parseTargets(target: string): string[] {
  const targets = target.split(",").map((t) => t.trim());
  if (targets.length === 1) {
    if (!target.trim()) {
      throw new TypeError("the target is empty; set it to HOST:PORT");
    }
    return targets;
  }
  for (const t of targets) {
    const { host } = splitHostPort(t);
    if (!host || /[/\s]/.test(t) || (host.includes(":") && !isIPv6(host))) {
      throw new TypeError(`"${t}" is not the address of a server; each in a list must be HOST or HOST:PORT`);
    }
  }
  return targets;
}

/**
 * Reports whether a target is on this machine, judged by its name alone: a loopback address, "localhost" or a Unix socket. Only there
 * is plaintext the default. A list is on this machine if all in it are.
 */
export function isLoopback(target: string): boolean {
  return target.split(",").every((part) => {
    const t = part.trim();
    if (/^unix(-abstract)?:/.test(t)) {
      return true;
    }
    const { host } = splitHostPort(t.replace(/^(dns|ipv4|ipv6):(\/\/\/)?/, ""));
    return host.toLowerCase() === "localhost" || host === "::1" || (isIP(host) === 4 && host.startsWith("127."));
  });
}

function splitHostPort(t: string): { host: string } {
  const [, bracketed, plain] = /^(?:\[(.*)\]|([^:]*))(?::\d+)?$/.exec(t) ?? [];
  return { host: bracketed ?? plain ?? t };
}
