import type { Writable } from "node:stream";

import type { ChannelOptions } from "@grpc/grpc-js";

import { BaseClient } from "./base.js";
import { Connection } from "./connection.js";
import { channelCredentials } from "./credentials.js";
import type { DownloadOptions, DownloadResult, FileRef } from "./download.js";
import { downloadTo } from "./downloadto.js";
import { optionsFromEnv } from "./env.js";
import { Identity } from "./identity.js";
import type { UploadResult } from "./native.js";
import { nodeHashes } from "./nodehashes.js";
import type { Source } from "./source.js";
import { parseTargets } from "./targets.js";
import { upload, type UploadOptions } from "./upload.js";

/** How to check the server's certificate, and the client's own, in PEM, as in Node's tls.connect. */
export interface TlsOptions {
  /** The only certificate authorities to trust. Default: Node's. */
  ca?: string | Buffer;
  /** The client certificate. */
  cert?: string | Buffer;
  /** The key of cert. */
  key?: string | Buffer;
}

/** How a client connects, and as whom. */
export interface LpFileShareOptions {
  /**
   * A gRPC name such as "files.example.com:443" or "dns:///files.example.com:443", or several servers that share a ledger,
   * "files-1.example.com:443,files-2.example.com:443".
   */
  target: string;
  /** The identity of calls: see consumerToken, agentToken and externalConsumerId. */
  identity?: Identity | undefined;
  /** The id of the account of requests that do not name one. */
  account?: string | undefined;
  /** Default: TLS with Node's certificate authorities, and plaintext to loopback addresses and Unix sockets. false: plaintext. */
  tls?: TlsOptions | false | undefined;
  /** The name and version of a program, added to the user agent before those of this package. */
  userAgent?: string | undefined;
  /** Options of grpc-js, which override those of this package. */
  channelOptions?: ChannelOptions | undefined;
  /** @internal */
  connection?: Connection;
}

/**
 * A client of an lpfileshare server, or of several, with the identity that its calls carry. It connects when it is first used. It
 * may be used by any number of calls at a time, and must be closed. It prints without its identity's token.
 *
 *     await using client = new LpFileShare({ target: "127.0.0.1:50051", identity: consumerToken(token) });
 *     const { file } = await client.upload("cat.jpg", { conversation });
 *
 * If there are several servers, by a list or by a name with several addresses, calls are distributed over those that are reachable.
 * An upload that is interrupted is repeated on the next one under the same request id.
 *
 * Errors of calls are LpFileShareError. Invalid arguments are a TypeError or RangeError.
 */
export class LpFileShare extends BaseClient {
  readonly #options: LpFileShareOptions;
  readonly #connection: Connection;
  readonly #identity: Identity;

  /** Throws a TypeError if the options are not valid. Does not connect yet. */
  constructor(options: LpFileShareOptions) {
    const connection =
      options.connection ?? new Connection(parseTargets(options.target), channelCredentials(options), options.userAgent, options.channelOptions);
    const identity = options.identity ?? new Identity();
    super(connection, nodeHashes, { ...options, identity });
    this.#options = { ...options, connection };
    this.#connection = connection;
    this.#identity = identity;
  }

  /**
   * Returns a client with the options of the environment (see {@link Env}). LPFILESHARE_ADDRESS is required, and at most one of
   * LPFILESHARE_TOKEN, LPFILESHARE_AGENT_TOKEN and LPFILESHARE_EXTERNAL_CONSUMER_ID may be set. The given options take precedence.
   */
  static fromEnv(options: Partial<LpFileShareOptions> = {}): LpFileShare {
    return new LpFileShare(optionsFromEnv(process.env, options));
  }

  /** Returns a client with another identity on the same connection. Closing either closes both. */
  as(identity: Identity): LpFileShare {
    return new LpFileShare({ ...this.#options, identity });
  }

  /** Ends the connection and every call on it. They reject with CancelledError. */
  override close(): Promise<void> {
    this.#connection.close();
    return Promise.resolve();
  }

  /**
   * Sends a file. It returns once the file is stored, verified and, unless publishMode says otherwise, published exactly once. The file
   * is not kept in memory.
   *
   * It is repeated by the retry rule of the contract, under one request id, until retryForMs, timeoutMs or the signal ends it. A token
   * that the server rejects is renewed once, if its source can. Errors have requestId and finished set. A source that fails is a
   * {@link SourceError}, and then nothing is stored.
   */
  upload(source: Source, options: UploadOptions): Promise<UploadResult> {
    return upload(this.#connection, this.#identity, source, options, (name, call) => this.getUpload(name, call));
  }

  /**
   * Downloads to a file or a Writable, which is not ended.
   *
   * A file is written completely or not at all: to a temporary file in the same directory, which is renamed when everything was
   * verified. Only its owner can read it (mode 0600). An existing file is replaced; with replace: false that is a {@link SinkError}.
   * After an error, a Writable has received a correct beginning of the file, unless the error says that the file was damaged in the
   * store or on the way from it.
   */
  downloadTo(file: FileRef, sink: string | URL | Writable, options: DownloadOptions & { replace?: boolean } = {}): Promise<DownloadResult> {
    return downloadTo(this.#connection, this.#identity, file, sink, options);
  }
}
