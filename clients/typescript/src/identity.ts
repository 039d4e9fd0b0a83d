import type { SignInConsumerResponse } from "./gen/lpfileshare/v1/identity_service_pb.js";
import { native } from "./native.js";

/** The metadata keys of an identity. A call carries exactly one. */
type Key = "lp-consumer-token" | "lp-agent-token" | "lp-external-consumer-id";

/** The identity of one call. The token is empty, and the key undefined, if there is none. */
export interface Credential {
  key: Key | undefined;
  token: string;
}

/** How Node's console.log prints an object. */
export const inspect: unique symbol = Symbol.for("nodejs.util.inspect.custom");

/**
 * Provides the token of a call: a fixed one, a function, or an object such as {@link ConsumerTokens}.
 *
 * A function is called for each call, without an argument. If the server rejects the token, it is called once more with the
 * rejected token, and should then return another one. Concurrent calls share that.
 */
export type TokenSource = string | ((rejected?: string) => string | Promise<string>) | TokenProvider;

/** A {@link TokenSource} with methods. */
export interface TokenProvider {
  /** Returns the token to use now. */
  token(): string | Promise<string>;
  /** Returns a token other than the rejected one. */
  renew?(rejected: string): string | Promise<string>;
}

/** Identifies the caller of a call. It prints without its token. */
export class Identity {
  readonly #key: Key | undefined;
  readonly #provider: TokenProvider;
  #renewal: { rejected: string; token: Promise<string> } | undefined; // the latest

  /** @internal Use consumerToken, agentToken and externalConsumerId. */
  constructor(key?: Key, source: TokenSource = "") {
    this.#key = key;
    this.#provider =
      typeof source === "string" ? { token: () => source }
      : typeof source === "function" ? { token: () => source(), renew: (rejected) => source(rejected) }
      : source;
  }

  /** @internal Returns the identity of a call. */
  async attach(): Promise<Credential> {
    if (this.#key === undefined) {
      return { key: undefined, token: "" };
    }
    const token = await this.#provider.token();
    if (!/^[\x20-\x7e]+$/.test(token)) {
      throw new TypeError(`the value of ${this.#key} must be printable ASCII characters, and not empty`);
    }
    return { key: this.#key, token };
  }

  /** @internal Gets another token after the server rejected one. Returns false if there is none. */
  async renew(rejected: string): Promise<boolean> {
    const provider = this.#provider;
    if (!provider.renew) {
      return false;
    }
    if (this.#renewal?.rejected !== rejected) {
      const renewal = { rejected, token: Promise.resolve(provider.renew(rejected)) };
      this.#renewal = renewal;
      renewal.token.catch(() => {
        if (this.#renewal === renewal) {
          this.#renewal = undefined; // the next call may try again
        }
      });
    }
    return (await this.#renewal.token) !== rejected;
  }

  /** @internal Gives the tokens of a session the client to renew with. */
  bind(account: string, renew: RenewConsumer): void {
    if (this.#provider instanceof ConsumerTokens) {
      this.#provider.bind(account, renew);
    }
  }

  toString(): string {
    return this.#key === undefined ? "no identity" : `${this.#key} [token]`;
  }

  toJSON(): string {
    return this.toString();
  }

  [inspect](): string {
    return this.toString();
  }
}

/** The identity of a consumer with a LivePerson token. */
export function consumerToken(source: TokenSource): Identity {
  return new Identity("lp-consumer-token", source);
}

/** The identity of an agent or bot, with a token from signInAgent. */
export function agentToken(source: TokenSource): Identity {
  return new Identity("lp-agent-token", source);
}

/**
 * The identity of a consumer by the id that the brand knows. The server accepts it only on connections that authenticate the caller:
 * TLS with a client certificate, or loopback.
 */
export function externalConsumerId(id: string): Identity {
  return new Identity("lp-external-consumer-id", id);
}

/** What a session is made of. */
export interface ConsumerSessionFields {
  /** The token for calls. Secret. */
  token: string;
  /** When the token expires. Undefined: not known. */
  expires?: Date | undefined;
  /** Gets the next token. Empty or undefined: the session cannot be renewed. Secret. */
  renewalSecret?: string | undefined;
  /** LivePerson's id of the consumer. */
  consumerId?: string | undefined;
}

/** A signed-in consumer. It prints without its secrets, so save token and renewalSecret by name to keep it. */
export class ConsumerSession {
  readonly expires: Date | undefined;
  readonly consumerId: string;
  readonly #token: string;
  readonly #renewalSecret: string;

  constructor(fields: ConsumerSessionFields) {
    this.expires = fields.expires;
    this.consumerId = fields.consumerId ?? "";
    this.#token = fields.token;
    this.#renewalSecret = fields.renewalSecret ?? "";
  }

  /** The token for calls. Secret. */
  get token(): string {
    return this.#token;
  }

  /** Gets the next token. Empty: the session cannot be renewed. Secret. */
  get renewalSecret(): string {
    return this.#renewalSecret;
  }

  toString(): string {
    return `session of consumer ${this.consumerId}`;
  }
}

/** A signed-in agent or bot. It prints without its token. */
export class AgentSession {
  readonly #token: string;

  constructor(
    token: string,
    /** When the login ends if no call uses the token. Undefined: not known. */
    readonly expires: Date | undefined,
    /** LivePerson's id of the agent, as in SharedFile.senderId. */
    readonly agentId: string,
  ) {
    this.#token = token;
  }

  /** The token for {@link agentToken}. Secret. */
  get token(): string {
    return this.#token;
  }

  toString(): string {
    return `session of agent ${this.agentId}`;
  }
}

/** @internal Calls RenewConsumer. */
export type RenewConsumer = (account: string, renewalSecret: string) => Promise<ConsumerSession>;

/** Options of {@link ConsumerTokens}. */
export interface ConsumerTokensOptions {
  /** The account of the session. The default is the client's. */
  account?: string;
  /** Receives each new session before a call uses it, for example to save it. Renewing waits for it. */
  onRenew?: (session: ConsumerSession) => void | Promise<void>;
}

const renewBeforeMs = 60_000; // how long before it expires a token is renewed
const renewPauseMs = 5000; // how long after a failed renewal a token that has not expired is used without another try

/**
 * The tokens of a consumer's session. They are renewed a minute before they expire, and once when the server rejects one. Concurrent
 * calls share one renewal. It uses the connection of the first client that the tokens are passed to.
 *
 *     client.as(consumerToken(new ConsumerTokens(session)))
 */
export class ConsumerTokens implements TokenProvider {
  readonly #options: ConsumerTokensOptions;
  #session: ConsumerSession;
  #renew: (() => Promise<ConsumerSession>) | undefined;
  #running: Promise<string> | undefined;
  #pauseUntil = 0;

  constructor(session: ConsumerSession | ConsumerSessionFields, options: ConsumerTokensOptions = {}) {
    this.#session = session instanceof ConsumerSession ? session : new ConsumerSession(session);
    this.#options = options;
  }

  /** The current session. */
  get session(): ConsumerSession {
    return this.#session;
  }

  /** @internal */
  bind(account: string, renew: RenewConsumer): void {
    this.#renew ??= () => renew(this.#options.account ?? account, this.#session.renewalSecret);
  }

  /** Returns the token. It is renewed first if it is about to expire. If that fails, the old one is used until it expires. */
  async token(): Promise<string> {
    const { token, expires, renewalSecret } = this.#session;
    const now = Date.now();
    if (!renewalSecret || !expires || now + renewBeforeMs < expires.getTime() || now < this.#pauseUntil) {
      return token;
    }
    try {
      return await this.renew(token);
    } catch (error) {
      if (now < expires.getTime()) {
        return token;
      }
      throw error;
    }
  }

  /** Returns a token other than the rejected one. The session is renewed unless that has happened since. */
  async renew(rejected: string): Promise<string> {
    if (this.#session.token !== rejected) {
      return this.#session.token;
    }
    if (!this.#session.renewalSecret) {
      throw new Error("renew token: this session cannot be renewed; sign in again");
    }
    if (!this.#renew) {
      throw new Error("renew token: no client uses these tokens yet; pass them to LpFileShare or LpFileShare.as");
    }
    // It goes on even if no caller waits for it any more, because the server may have used up the old secret.
    this.#running ??= this.#run(this.#renew).finally(() => { this.#running = undefined; });
    return this.#running;
  }

  async #run(renew: () => Promise<ConsumerSession>): Promise<string> {
    try {
      const session = await renew();
      if (!session.token) {
        throw new Error("renew token: the server's response has no token");
      }
      try {
        await this.#options.onRenew?.(session);
      } finally {
        this.#session = session; // the old secret may be used up
      }
      return session.token;
    } catch (error) {
      this.#pauseUntil = Date.now() + renewPauseMs;
      throw error;
    }
  }
}

/** Converts the response of SignInConsumer or RenewConsumer. */
export function consumerSession(response: Omit<SignInConsumerResponse, "$typeName">): ConsumerSession {
  return new ConsumerSession({
    token: response.consumerToken,
    renewalSecret: response.renewalSecret,
    consumerId: response.consumerId,
    expires: response.expireTime && native(response.expireTime),
  });
}
