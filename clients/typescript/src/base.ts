import type { MessageInitShape } from "@bufbuild/protobuf";

import { type Download, type DownloadOptions, type FileRef, fileSource, openDownload } from "./download.js";
import { ConversationState, type CreateConversationRequestSchema } from "./gen/lpfileshare/v1/conversation_service_pb.js";
import type { SignInAgentRequestSchema, SignInConsumerRequestSchema } from "./gen/lpfileshare/v1/identity_service_pb.js";
import type { Hashes } from "./hashes.js";
import { AgentSession, type ConsumerSession, consumerSession, Identity, inspect } from "./identity.js";
import { FileList, type FilesOptions } from "./list.js";
import { type Capabilities, type Conversation, native, type PublishResult, type SharedFile, type Upload } from "./native.js";
import type { CallOptions } from "./operation.js";
import { newStubs, type Stubs } from "./stubs.js";
import type { Transport } from "./transport.js";
import { FileWatch, type WatchOptions } from "./watch.js";

/** How a consumer signs in: one of these. */
export type ConsumerSignIn =
  /** As an unauthenticated consumer, with LivePerson's connector id of the account's unauthenticated app install. */
  | { anonymous: { connectorId: string } }
  /** As a new consumer, for trials. */
  | { signUp: true }
  /** With a JWT that the brand issued for its customer. Secret. */
  | { customerJwt: string }
  /** With an OAuth 2.0 authorization code of the brand's identity provider. Secret. */
  | { authCode: string };

/** How an agent or bot signs in. */
export type AgentSignIn =
  | { username: string; password: string }
  | { username: string; appKey: string; secret: string; accessToken: string; accessTokenSecret: string };

/** The account of a call: its id, or its resource name. Default: the client's. */
export interface AccountOptions extends CallOptions {
  account?: string | undefined;
}

/** Options of {@link LpFileShare.createConversation}. */
export interface CreateConversationOptions extends AccountOptions {
  /** A UUID that makes the call repeatable. Default: a new one. */
  requestId?: string | undefined;
  /** LivePerson's skill id. Default: any skill. */
  skillId?: string | undefined;
  /** The campaign and engagement that the conversation comes from. */
  campaign?: { campaignId: string; engagementId: string } | undefined;
  /** The consumer's context. */
  context?: MessageInitShape<typeof CreateConversationRequestSchema>["context"];
}

/** Options of {@link LpFileShare.conversations}. */
export interface ConversationsOptions extends AccountOptions {
  /** Only conversations in this state. */
  state?: ConversationState | undefined;
}

/** What the clients of Node and of browsers have in common. */
export abstract class BaseClient implements AsyncDisposable {
  /** The generated services, for calls and fields that this class has no method for. */
  readonly raw: Stubs;
  readonly #target: string;
  readonly #account: string;
  readonly #transport: Transport;
  readonly #hashes: Hashes;
  readonly #identity: Identity;

  /** @internal */
  protected constructor(transport: Transport, hashes: Hashes, options: { target: string; identity?: Identity | undefined; account?: string | undefined }) {
    this.#target = options.target;
    this.#account = accountName(options.account ?? "");
    this.#identity = options.identity ?? new Identity();
    this.#transport = transport;
    this.#hashes = hashes;
    this.raw = newStubs(transport, this.#identity, new Identity());
    this.#identity.bind(this.#account, async (account, renewalSecret) =>
      consumerSession(await this.raw.identity.renewConsumer({ account: accountName(account), renewalSecret }, { timeoutMs: 20_000 })),
    );
  }

  /** Ends the connection and every call on it. They reject with CancelledError. */
  close(): Promise<void> {
    this.#transport.closed.abort(new Error("the client was closed"));
    return Promise.resolve();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** The resource name of the account of the options, accounts/{account}. Empty: none. */
  get account(): string {
    return this.#account;
  }

  /**
   * Publishes the file of an upload that was stored with PublishMode.STORE_ONLY, exactly once. name is UploadResult.upload. A repeat
   * returns the published file.
   */
  async publishUpload(name: string, options?: CallOptions): Promise<PublishResult> {
    return native(await this.raw.files.publishUpload({ name }, options));
  }

  /** Returns the state of an upload of this caller. name is UploadResult.upload: accounts/{account}/uploads/{requestId}. */
  async getUpload(name: string, options?: CallOptions): Promise<Upload> {
    const { upload } = await this.raw.files.getUpload({ name }, options);
    return native(upload!);
  }

  /**
   * Opens a file, or a part of it, for reading. It returns when the first bytes have arrived, so errors such as FILE_NOT_FOUND are thrown
   * here. timeoutMs and the signal hold for the whole download.
   */
  download(file: FileRef, options: DownloadOptions = {}): Promise<Download> {
    return openDownload(this.#transport, this.#hashes, this.#identity, file, options);
  }

  /** Returns the metadata of a file, including the store's size and ETag. */
  async stat(file: FileRef, options?: CallOptions): Promise<SharedFile> {
    const { file: found } = await this.raw.files.statFile({ source: fileSource(file, "stat") }, options);
    return native(found!);
  }

  /** Lists the files of a conversation, or of all conversations of the caller: "-" as {conversation}. */
  files(parent: string, options: FilesOptions = {}): FileList {
    return new FileList(this.raw, parent, options);
  }

  /** Returns each file of a conversation, or of all conversations of the caller, as it is published by any sender. */
  watch(parent: string, options: WatchOptions = {}): FileWatch {
    return new FileWatch(this.#transport, this.#identity, parent, options);
  }

  /** Returns the limits, file types and times of the server for an account. */
  async capabilities({ account, ...options }: AccountOptions = {}): Promise<Capabilities> {
    return native(await this.raw.files.getCapabilities({ account: this.#accountName(account) }, options));
  }

  /** Signs in a consumer. The call is never repeated: a second sign-in is another sign-in. The client does not keep the session. */
  async signInConsumer(how: ConsumerSignIn, { account, ...options }: AccountOptions = {}): Promise<ConsumerSession> {
    return consumerSession(await this.raw.identity.signInConsumer({ account: this.#accountName(account), grant: grant(how) }, options));
  }

  /** Gets the next token of a session. {@link ConsumerTokens} does so by itself. */
  async renewConsumer(session: ConsumerSession, { account, ...options }: AccountOptions = {}): Promise<ConsumerSession> {
    const request = { account: this.#accountName(account), renewalSecret: session.renewalSecret };
    return consumerSession(await this.raw.identity.renewConsumer(request, options));
  }

  /** Signs in an agent or bot. The call is never repeated. The client does not keep the session. */
  async signInAgent(how: AgentSignIn, { account, ...options }: AccountOptions = {}): Promise<AgentSession> {
    const request: MessageInitShape<typeof SignInAgentRequestSchema> = {
      account: this.#accountName(account),
      credentials: "password" in how ? { case: "password", value: how } : { case: "botKeys", value: how },
    };
    const { agentToken, expireTime, agentId } = await this.raw.identity.signInAgent(request, options);
    return new AgentSession(agentToken, expireTime && native(expireTime), agentId);
  }

  /** Ends the login of the agent or bot whose token this client carries. The token is invalid afterwards. A repeat is not an error. */
  async signOutAgent({ account, ...options }: AccountOptions = {}): Promise<void> {
    await this.raw.identity.signOutAgent({ account: this.#accountName(account) }, options);
  }

  /** Opens a conversation for the calling consumer. */
  async createConversation({ signal, timeoutMs, ...options }: CreateConversationOptions = {}): Promise<Conversation> {
    const { account, requestId = "", skillId = "", campaign, context } = options;
    const request: MessageInitShape<typeof CreateConversationRequestSchema> = {
      account: this.#accountName(account), requestId, skillId, ...(campaign && { campaign }), ...(context && { context }),
    };
    const { conversation } = await this.raw.conversations.createConversation(request, { signal, timeoutMs });
    return native(conversation!);
  }

  /** Returns a conversation by its resource name. */
  async getConversation(name: string, options?: CallOptions): Promise<Conversation> {
    const { conversation } = await this.raw.conversations.getConversation({ name }, options);
    return native(conversation!);
  }

  /** Closes a conversation and all its dialogs. Closing a closed conversation is not an error. */
  async closeConversation(name: string, options?: CallOptions): Promise<Conversation> {
    const { conversation } = await this.raw.conversations.closeConversation({ name }, options);
    return native(conversation!);
  }

  /** Lists the conversations that the caller takes part in, newest first. It reads page after page as the loop proceeds. */
  async *conversations({ account, state = ConversationState.UNSPECIFIED, ...options }: ConversationsOptions = {}): AsyncGenerator<Conversation, undefined> {
    let pageToken = "";
    do {
      const request = { account: this.#accountName(account), state, pageToken };
      const page = await this.raw.conversations.listConversations(request, options);
      yield* page.conversations.map(native);
      pageToken = page.nextPageToken;
    } while (pageToken);
    return undefined;
  }

  toString(): string {
    return `LpFileShare(${this.#target}, ${this.#identity.toString()})`;
  }

  toJSON(): string {
    return this.toString();
  }

  [inspect](): string {
    return this.toString();
  }

  #accountName(account: string | undefined): string {
    return accountName(account ?? "") || this.#account;
  }
}

/** Returns the resource name of an account, accounts/{account}, given either the id or the name. Empty stays empty. */
function accountName(account: string): string {
  return account === "" || account.startsWith("accounts/") ? account : `accounts/${account}`;
}

function grant(how: ConsumerSignIn): NonNullable<MessageInitShape<typeof SignInConsumerRequestSchema>["grant"]> {
  if ("anonymous" in how) {
    return { case: "anonymous", value: how.anonymous };
  }
  if ("customerJwt" in how) {
    return { case: "customerJwt", value: how.customerJwt };
  }
  if ("authCode" in how) {
    return { case: "authCode", value: how.authCode };
  }
  return { case: "signUp", value: {} };
}
