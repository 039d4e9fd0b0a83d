import { readFileSync } from "node:fs";

import { text } from "./errors.js";
import { agentToken, consumerToken, externalConsumerId, type Identity } from "./identity.js";
import type { LpFileShareOptions, TlsOptions } from "./client.js";

/** The environment variables of LpFileShare.fromEnv. Those that are also flags of the command lpfileshare have the names of the flags. */
export const Env = {
  /** HOST:PORT, or several. */
  address: "LPFILESHARE_ADDRESS",
  /** The id of the account. */
  account: "LPFILESHARE_ACCOUNT",
  /** A consumer token. */
  token: "LPFILESHARE_TOKEN",
  /** An agent token. */
  agentToken: "LPFILESHARE_AGENT_TOKEN",
  /** The brand's id of a consumer. */
  externalConsumerId: "LPFILESHARE_EXTERNAL_CONSUMER_ID",
  /** PEM file with the only certificate authorities to trust. */
  tlsCa: "LPFILESHARE_TLS_CA",
  /** PEM file with the client certificate. */
  clientCert: "LPFILESHARE_CLIENT_CERT",
  /** PEM file with its key. */
  clientKey: "LPFILESHARE_CLIENT_KEY",
  /** true: no TLS, to any address. */
  plaintext: "LPFILESHARE_PLAINTEXT",
} as const;

/** Returns the options of the environment, under the given ones, which take precedence. Throws a TypeError if they are not valid. */
export function optionsFromEnv(env: NodeJS.ProcessEnv, options: Partial<LpFileShareOptions>): LpFileShareOptions {
  const target = options.target ?? env[Env.address];
  if (!target) {
    throw new TypeError(`${Env.address} is not set; set it to HOST:PORT`);
  }
  return {
    ...options,
    target,
    identity: options.identity ?? identityFromEnv(env),
    account: options.account ?? env[Env.account],
    tls: options.tls ?? tlsFromEnv(env),
  };
}

function identityFromEnv(env: NodeJS.ProcessEnv): Identity | undefined {
  const kinds = [
    [Env.token, consumerToken],
    [Env.agentToken, agentToken],
    [Env.externalConsumerId, externalConsumerId],
  ] as const;
  const set = kinds.filter(([name]) => env[name]);
  if (set.length > 1) {
    throw new TypeError(`two identities, ${set.map(([name]) => name).join(" and ")}; a call carries exactly one`);
  }
  const [name, identity] = set[0] ?? [];
  return name && identity(env[name]!);
}

function tlsFromEnv(env: NodeJS.ProcessEnv): TlsOptions | false | undefined {
  const plaintext = env[Env.plaintext] ?? "";
  if (!/^(true|1|yes|false|0|no|)$/i.test(plaintext)) {
    throw new TypeError(`${Env.plaintext} is "${plaintext}", must be true or false`);
  }
  const files = { ca: env[Env.tlsCa], cert: env[Env.clientCert], key: env[Env.clientKey] };
  const tls = Object.fromEntries(
    Object.entries(files).filter(([, path]) => path).map(([kind, path]) => [kind, pem(path!)]),
  ) as TlsOptions;
  const some = Object.keys(tls).length > 0;
  if (!/^(true|1|yes)$/i.test(plaintext)) {
    return some ? tls : undefined;
  }
  if (some) {
    throw new TypeError(`${Env.plaintext} excludes ${Env.tlsCa} and ${Env.clientCert}`);
  }
  return false;
}

function pem(path: string): Buffer {
  try {
    return readFileSync(path);
  } catch (error) {
    throw new TypeError(`${path} cannot be read: ${text(error)}`, { cause: error });
  }
}
