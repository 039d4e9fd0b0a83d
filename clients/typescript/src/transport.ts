import type { DescMessage, DescMethodClientStreaming, DescMethodServerStreaming, DescMethodUnary, MessageInitShape, MessageShape } from "@bufbuild/protobuf";

import type { SendingCall } from "./connection.js";
import type { Credential } from "./identity.js";
import type { Operation } from "./operation.js";

/** What one attempt needs beside its request. */
export interface Attempt {
  operation: Operation;
  credential: Credential;
  /** How long it may wait for a connection, in milliseconds. */
  reachMs: number;
}

/** Makes single calls, without a retry. Calls reject with a Failure. */
export interface Transport {
  /** Ends the operations when the transport is closed. */
  readonly closed: AbortController;
  /** Makes a unary call. */
  unary<I extends DescMessage, O extends DescMessage>(
    method: DescMethodUnary<I, O>, request: MessageInitShape<I>, attempt: Attempt,
  ): Promise<MessageShape<O>>;
  /** Makes a call that is answered by many messages. The call is cancelled if the loop over them ends early. */
  serverStream<I extends DescMessage, O extends DescMessage>(
    method: DescMethodServerStreaming<I, O>, request: MessageInitShape<I>, attempt: Attempt,
  ): AsyncGenerator<MessageShape<O>, undefined>;
  /** Opens a call of many messages that is answered by one. The caller must cancel it at its end. Browsers cannot make such calls. */
  clientStream?<I extends DescMessage, O extends DescMessage>(
    method: DescMethodClientStreaming<I, O>, attempt: Attempt,
  ): Promise<SendingCall<I, O>>;
}
