import { create, type DescMessage, type DescMethodServerStreaming, type DescMethodUnary, type MessageInitShape, type MessageShape } from "@bufbuild/protobuf";
import { type Any, AnySchema } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError, type Transport as ConnectTransport } from "@connectrpc/connect";

import { callFailure, Failure } from "../errors.js";
import type { Attempt, Transport } from "../transport.js";

/** Makes single calls by fetch. The browser connects by itself, so reachMs has no effect. */
export class BrowserConnection implements Transport {
  readonly closed = new AbortController();

  constructor(private readonly transport: ConnectTransport) {}

  async unary<I extends DescMessage, O extends DescMessage>(
    method: DescMethodUnary<I, O>, request: MessageInitShape<I>, attempt: Attempt,
  ): Promise<MessageShape<O>> {
    const { signal, timeoutMs, header } = options(attempt);
    try {
      return (await this.transport.unary(method, signal, timeoutMs, header, request)).message;
    } catch (error) {
      throw failure(error);
    }
  }

  async *serverStream<I extends DescMessage, O extends DescMessage>(
    method: DescMethodServerStreaming<I, O>, request: MessageInitShape<I>, attempt: Attempt,
  ): AsyncGenerator<MessageShape<O>, undefined> {
    const { signal, timeoutMs, header } = options(attempt);
    const ended = new AbortController(); // fetch goes on if a loop over its messages ends early
    try {
      const response = await this.transport.stream(method, AbortSignal.any([signal, ended.signal]), timeoutMs, header, one(request));
      for await (const message of response.message) {
        yield message;
      }
    } catch (error) {
      throw failure(error);
    } finally {
      ended.abort();
    }
    return undefined;
  }
}

// eslint-disable-next-line @typescript-eslint/require-await
async function* one<T>(request: T): AsyncGenerator<T> {
  yield request;
}

function options({ operation, credential: { key, token } }: Attempt) {
  return {
    signal: operation.signal,
    // The operation's own timer decides. The server ends the call soon after it.
    timeoutMs: operation.deadline === Infinity ? undefined : Math.max(operation.deadline - Date.now(), 0) + 1000,
    header: key ? { [key]: token } : undefined,
  };
}

/** Returns the failure of a call. Browsers do not say why a connection failed, or that the server does not allow the page's origin. */
function failure(error: unknown): Failure {
  if (error instanceof Failure) {
    return error;
  }
  const { code, rawMessage, details } = ConnectError.from(error, Code.Unavailable);
  return callFailure(code, rawMessage, details.map(anyOf));
}

function anyOf(detail: ConnectError["details"][number]): Any {
  return "type" in detail
    ? create(AnySchema, { typeUrl: `type.googleapis.com/${detail.type}`, value: detail.value })
    : create(AnySchema);
}
