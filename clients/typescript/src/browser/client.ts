import type { Transport } from "@connectrpc/connect";
import { createConnectTransport, createGrpcWebTransport } from "@connectrpc/connect-web";

import { BaseClient } from "../base.js";
import type { Hashes } from "../hashes.js";
import { Identity } from "../identity.js";
import type { UploadResult } from "../native.js";
import { BrowserConnection } from "./connection.js";
import { upload, type UploadOptions } from "./upload.js";

/** How a client connects, and as whom. */
export interface LpFileShareOptions {
  /** The URL of the server's --web-listen, for example "https://files.example.com". */
  baseUrl: string;
  /** The identity of calls: see consumerToken, and agentToken if the server has --web-agents. */
  identity?: Identity | undefined;
  /** The id of the account of requests that do not name one. */
  account?: string | undefined;
  /** Default: "connect". */
  protocol?: "connect" | "grpc-web" | undefined;
  /** @internal */
  connection?: BrowserConnection;
}

const noHashes: Hashes = { sha256: () => undefined, md5: () => undefined };

/**
 * A client of an lpfileshare server in a browser, with the identity that its calls carry. It may be used by any number of calls at a
 * time. It prints without its identity's token.
 *
 *     const client = new LpFileShare({ baseUrl: "https://files.example.com", identity: consumerToken(token) });
 *     const { file } = await client.upload(input.files[0], { conversation });
 *
 * It has the methods of the client for Node, and its retry rule. Downloads are verified by CRC-32C only.
 *
 * Errors of calls are LpFileShareError. Invalid arguments are a TypeError or RangeError.
 */
export class LpFileShare extends BaseClient {
  readonly #options: LpFileShareOptions;
  readonly #connection: BrowserConnection;
  readonly #identity: Identity;
  readonly #limits = new Map<string, Promise<number>>();

  constructor(options: LpFileShareOptions) {
    const connection = options.connection ?? new BrowserConnection(newTransport(options));
    const identity = options.identity ?? new Identity();
    super(connection, noHashes, { target: options.baseUrl, identity, account: options.account });
    this.#options = { ...options, connection };
    this.#connection = connection;
    this.#identity = identity;
  }

  /** Returns a client with another identity. Closing either closes both. */
  as(identity: Identity): LpFileShare {
    return new LpFileShare({ ...this.#options, identity });
  }

  /**
   * Sends a file of up to Capabilities.maxSmallFileBytes, which is read into memory. It returns once the file is stored, verified and,
   * unless publishMode says otherwise, published exactly once.
   *
   * It is repeated by the retry rule of the contract, under one request id, until retryForMs, timeoutMs or the signal ends it. Errors have
   * requestId and finished set.
   */
  upload(source: Blob | Uint8Array, options: UploadOptions): Promise<UploadResult> {
    return upload(this.#connection, this.#identity, source, options, (account) => this.#maxBytes(account));
  }

  /** Returns the size limit of an account. It is asked for once. */
  #maxBytes(account: string): Promise<number> {
    let limit = this.#limits.get(account);
    if (!limit) {
      limit = this.capabilities({ account }).then((c) => c.maxSmallFileBytes);
      this.#limits.set(account, limit);
      limit.catch(() => this.#limits.delete(account));
    }
    return limit;
  }
}

function newTransport({ baseUrl, protocol = "connect" }: LpFileShareOptions): Transport {
  const options = { baseUrl, useBinaryFormat: true };
  return protocol === "grpc-web" ? createGrpcWebTransport(options) : createConnectTransport(options);
}
