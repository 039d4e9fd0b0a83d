// @ts-check
// Who this page is: one consumer and the administrator as the agent. Tokens are kept in memory only, and never shown.
import { unary } from "./rpc.js";

/**
 * @typedef {"consumer" | "agent"} Side
 *
 * @typedef {object} Info The answer of GET /_sandbox/info.
 * @property {string[]} accounts
 * @property {string} user
 * @property {string} password
 * @property {string} now
 * @property {boolean} sends
 * @property {string} [grpc]
 * @property {boolean} [tls]
 * @property {string} [version]
 */

export class Session {
  /** @param {Info} info */
  constructor(info) {
    this.info = info;
    this.account = info.accounts.includes("12345678") ? "12345678" : (info.accounts[0] ?? "");
    /** @type {Map<Side, Promise<{token: string, id: string}>>} */
    this.identities = new Map();
    /** The ids of the conversations that this page has created. @type {Set<string>} */
    this.own = new Set();
  }

  /** Signs in once. @param {Side} side */
  identity(side) {
    let signedIn = this.identities.get(side);
    if (!signedIn) {
      signedIn = side === "consumer" ? this.signInConsumer() : this.signInAgent();
      this.identities.set(side, signedIn);
      signedIn.catch(() => this.identities.delete(side));
    }
    return signedIn;
  }

  async signInConsumer() {
    const answer = await unary("IdentityService/SignInConsumer", { account: "accounts/" + this.account, signUp: {} });
    return { token: answer.consumerToken, id: answer.consumerId };
  }

  async signInAgent() {
    const { user: username, password } = this.info;
    const answer = await unary("IdentityService/SignInAgent", { account: "accounts/" + this.account, password: { username, password } });
    return { token: answer.agentToken, id: answer.agentId };
  }

  /** The metadata of calls. @param {Side} side @returns {Promise<Record<string, string>>} */
  async metadata(side) {
    return { [side === "consumer" ? "lp-consumer-token" : "lp-agent-token"]: (await this.identity(side)).token };
  }

  /** Creates a conversation, and returns its id. The agent is connected first, so that the sandbox assigns it. */
  async create() {
    await unary("ConversationService/ListConversations", { account: "accounts/" + this.account }, await this.metadata("agent"));
    const answer = await unary("ConversationService/CreateConversation", { account: "accounts/" + this.account }, await this.metadata("consumer"));
    const id = answer.conversation.name.split("/").pop();
    this.own.add(id);
    return id;
  }

  /** Forgets who it was: the sandbox was restarted. */
  reset() {
    this.identities.clear();
    this.own.clear();
  }
}
