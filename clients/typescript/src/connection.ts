import {
  create,
  type DescMessage,
  type DescMethodClientStreaming,
  type DescMethodServerStreaming,
  type DescMethodUnary,
  fromBinary,
  type MessageInitShape,
  type MessageShape,
  toBinary,
} from "@bufbuild/protobuf";
import {
  type ChannelCredentials,
  type ChannelOptions,
  Client,
  connectivityState,
  Metadata,
  type ServiceError,
  type requestCallback,
} from "@grpc/grpc-js";

import { statusFailure } from "./grpcstatus.js";
import type { Credential } from "./identity.js";
import type { Operation } from "./operation.js";
import type { Attempt, Transport } from "./transport.js";
import { VERSION } from "./version.js";

const channelOptions = {
  // Servers behind one name: calls are distributed over those that are reachable. No retryPolicy: see Pacer.
  "grpc.service_config": JSON.stringify({ loadBalancingConfig: [{ round_robin: {} }] }),
  "grpc.service_config_disable_resolution": 1,
  "grpc.enable_retries": 0,
  // A silent connection is found after 40 seconds. Servers end the connection of clients that ping more often than every 15 seconds.
  "grpc.keepalive_time_ms": 30_000,
  "grpc.keepalive_timeout_ms": 10_000,
  "grpc.initial_reconnect_backoff_ms": 200,
  "grpc.max_reconnect_backoff_ms": 5000,
} satisfies ChannelOptions;

function metadataOf({ key, token }: Credential): Metadata {
  const metadata = new Metadata();
  if (key) {
    metadata.set(key, token);
  }
  return metadata;
}

/**
 * Makes single calls, without identity and without a retry: grpc-js with the messages of protobuf-es. Calls reject with a Failure.
 * It has one channel for each server. close must be called at its end.
 */
export class Connection implements Transport {
  /** Ends the operations when the connection is closed. */
  readonly closed = new AbortController();
  readonly #clients: Client[];
  readonly #changes = new Map<Client, Promise<void>>();
  #next = 0;

  constructor(targets: string[], credentials: ChannelCredentials, userAgent: string | undefined, options: ChannelOptions | undefined) {
    const agent = [userAgent, `lpfileshare-typescript/${VERSION}`].filter(Boolean).join(" ");
    this.#clients = targets.map(
      (target) => new Client(target, credentials, { ...channelOptions, "grpc.primary_user_agent": agent, ...options }),
    );
  }

  close(): void {
    this.closed.abort(new Error("the client was closed"));
    for (const client of this.#clients) {
      client.close();
    }
  }

  /** Makes a unary call. */
  async unary<I extends DescMessage, O extends DescMessage>(
    method: DescMethodUnary<I, O>, request: MessageInitShape<I>, attempt: Attempt,
  ): Promise<MessageShape<O>> {
    const { client, path, serialize, deserialize, options } = await this.#begin(method, attempt);
    return new Promise((resolve, reject) => {
      const { signal } = attempt.operation;
      const done: requestCallback<MessageShape<O>> = (error, response) => {
        signal.removeEventListener("abort", cancel);
        settle(error, response, resolve, reject);
      };
      const call = client.makeUnaryRequest(path, serialize, deserialize, create(method.input, request), metadataOf(attempt.credential), options, done);
      const cancel = () => { call.cancel(); };
      signal.addEventListener("abort", cancel);
    });
  }

  /** Makes a call that is answered by many messages. The call is cancelled if the loop over them ends early. */
  async *serverStream<I extends DescMessage, O extends DescMessage>(
    method: DescMethodServerStreaming<I, O>, request: MessageInitShape<I>, attempt: Attempt,
  ): AsyncGenerator<MessageShape<O>, undefined> {
    const { client, path, serialize, deserialize, options } = await this.#begin(method, attempt);
    const call = client.makeServerStreamRequest(
      path, serialize, deserialize, create(method.input, request), metadataOf(attempt.credential), options,
    );
    const { signal } = attempt.operation;
    const cancel = () => { call.cancel(); };
    signal.addEventListener("abort", cancel);
    call.on("error", () => undefined); // it can still occur after the loop
    try {
      for await (const message of call) {
        yield message as MessageShape<O>;
      }
    } catch (error) {
      throw statusFailure(error);
    } finally {
      signal.removeEventListener("abort", cancel);
      cancel();
    }
  }

  /** Opens a call of many messages that is answered by one. The caller must cancel it at its end. */
  async clientStream<I extends DescMessage, O extends DescMessage>(
    method: DescMethodClientStreaming<I, O>, attempt: Attempt,
  ): Promise<SendingCall<I, O>> {
    const { client, path, serialize, deserialize, options } = await this.#begin(method, attempt);
    const { signal } = attempt.operation;
    let done: requestCallback<MessageShape<O>>;
    const result = new Promise<MessageShape<O>>((resolve, reject) => {
      done = (error, response) => { settle(error, response, resolve, reject); };
    });
    const call = client.makeClientStreamRequest(path, serialize, deserialize, metadataOf(attempt.credential), options, done!);
    call.on("error", () => undefined); // a write after the end of the call
    const cancel = () => { call.cancel(); };
    signal.addEventListener("abort", cancel);

    const ended = () => {
      sending.ended = true;
      signal.removeEventListener("abort", cancel);
    };
    const sending: SendingCall<I, O> = {
      header: new Promise((resolve) => { call.on("metadata", resolve); }),
      result,
      ended: false,
      end: result.then(ended, ended),
      send: async (message) => {
        // gRPC queues whatever it is given, so wait until it has passed the message on, or the call has ended.
        await Promise.race([new Promise((sent) => call.write(create(method.input, message), sent)), sending.end]);
      },
      closeSend: () => { call.end(); },
      cancel,
    };
    return sending;
  }

  async #begin<I extends DescMessage, O extends DescMessage>(
    method: { name: string; parent: { typeName: string }; input: I; output: O }, { operation, reachMs }: Attempt,
  ) {
    const client = await this.#reach(operation, reachMs);
    return {
      client,
      path: `/${method.parent.typeName}/${method.name}`,
      serialize: (message: MessageShape<I>) => {
        const { buffer, byteOffset, byteLength } = toBinary(method.input, message);
        return Buffer.from(buffer, byteOffset, byteLength);
      },
      deserialize: (bytes: Buffer) => fromBinary(method.output, bytes),
      // The operation's own timer decides. The server ends the call soon after it, in case that does not arrive.
      options: { deadline: operation.deadline + 1000 },
    };
  }

  /** Returns the channel of a server that is connected. If there is none in time, the call on the returned channel says why. */
  async #reach(operation: Operation, limitMs: number): Promise<Client> {
    let timer: NodeJS.Timeout | undefined;
    const limit = new Promise<void>((resolve) => { timer = setTimeout(resolve, Math.min(limitMs, 2 ** 31 - 1)); });
    const until = Date.now() + limitMs;
    try {
      for (;;) {
        operation.signal.throwIfAborted();
        const n = this.#next++;
        const order = this.#clients.map((_, i) => this.#clients[(n + i) % this.#clients.length]!);
        const states = order.map((client) => client.getChannel().getConnectivityState(true));
        const ready = order[states.indexOf(connectivityState.READY)];
        if (ready ?? Date.now() >= until) {
          return ready ?? order[0]!;
        }
        await operation.wait(Promise.race([limit, ...order.map((client, i) => this.#change(client, states[i]!))]));
      }
    } finally {
      clearTimeout(timer);
    }
  }

  /** Waits until a channel is in another state. All that wait share one watcher. */
  #change(client: Client, state: connectivityState): Promise<void> {
    let change = this.#changes.get(client);
    if (!change) {
      change = new Promise((resolve) => {
        client.getChannel().watchConnectivityState(state, Infinity, () => {
          this.#changes.delete(client);
          resolve();
        });
      });
      this.#changes.set(client, change);
    }
    return change;
  }
}

/** An open call of many messages that is answered by one. */
export interface SendingCall<I extends DescMessage, O extends DescMessage> {
  /** The response header. It never arrives if the server rejects the call at once. */
  readonly header: Promise<Metadata>;
  /** The answer. */
  readonly result: Promise<MessageShape<O>>;
  /** Resolves when the call has ended, in whatever way. */
  readonly end: Promise<void>;
  ended: boolean;
  /** Sends a message. It returns when the connection has accepted it, or the call has ended. */
  send(message: MessageInitShape<I>): Promise<void>;
  /** Reports that no message follows. */
  closeSend(): void;
  cancel(): void;
}

function settle<T>(error: ServiceError | null, response: T | undefined, resolve: (response: T) => void, reject: (reason: unknown) => void): void {
  if (error) {
    reject(statusFailure(error));
  } else {
    resolve(response!);
  }
}
