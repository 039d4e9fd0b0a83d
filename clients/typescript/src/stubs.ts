import type {
  DescMessage, DescMethod, DescMethodClientStreaming, DescMethodServerStreaming, DescMethodUnary, DescService, MessageInitShape,
  MessageShape,
} from "@bufbuild/protobuf";

import { AccountService } from "./gen/lpfileshare/v1/account_service_pb.js";
import { ConversationService } from "./gen/lpfileshare/v1/conversation_service_pb.js";
import { FileSharingService } from "./gen/lpfileshare/v1/file_sharing_service_pb.js";
import { IdentityService } from "./gen/lpfileshare/v1/identity_service_pb.js";
import type { Identity } from "./identity.js";
import { type CallOptions, Operation, timeouts } from "./operation.js";
import { type Limits, Pacer, unaryLimits } from "./retry.js";
import type { Transport } from "./transport.js";
import { newUUID } from "./uuid.js";

/**
 * The methods of a service with the messages of the contract, where 64-bit integers are bigints. All carry the client's identity and
 * reject with LpFileShareError. Unary calls follow the retry rule; streaming calls are made once.
 */
export type Stub<S extends DescService> = {
  [K in keyof S["method"]]: S["method"][K] extends DescMethodUnary<infer I, infer O>
    ? (request: MessageInitShape<I>, options?: CallOptions) => Promise<MessageShape<O>>
    : S["method"][K] extends DescMethodServerStreaming<infer I, infer O>
      ? (request: MessageInitShape<I>, options?: CallOptions) => AsyncIterable<MessageShape<O>>
      : S["method"][K] extends DescMethodClientStreaming<infer I, infer O>
        ? (requests: AsyncIterable<MessageInitShape<I>>, options?: CallOptions) => Promise<MessageShape<O>>
        : never;
};

/** The generated services. */
export interface Stubs {
  /** FileSharingService. */
  files: Stub<typeof FileSharingService>;
  /** ConversationService. */
  conversations: Stub<typeof ConversationService>;
  /** IdentityService. Of its calls only signOutAgent carries an identity, and the others are made once. */
  identity: Stub<typeof IdentityService>;
  /** AccountService. */
  accounts: Stub<typeof AccountService>;
}

type Request = MessageInitShape<DescMessage>;

/** Returns the stubs of a connection whose calls carry an identity. */
export function newStubs(connection: Transport, identity: Identity, none: Identity): Stubs {
  const stub = <S extends DescService>(service: S) =>
    Object.fromEntries(
      service.methods.map((method) => {
        const made = takesIdentity(method) ? { identity, limits: unaryLimits } : { identity: none, limits: { retryForMs: 0 } };
        return [method.localName, call(connection, method, made.identity, made.limits)];
      }),
    ) as Stub<S>;
  return {
    files: stub(FileSharingService), conversations: stub(ConversationService), identity: stub(IdentityService), accounts: stub(AccountService),
  };
}

/** Reports whether calls of a method carry an identity. Those that return one do not. */
function takesIdentity(method: DescMethod): boolean {
  return method.parent !== (IdentityService as DescService) || method === IdentityService.method.signOutAgent;
}

function call(connection: Transport, method: DescMethod, identity: Identity, limits: Limits): unknown {
  const begin = (options: CallOptions, timeoutMs: number) =>
    new Pacer(new Operation(method.name, [options.signal, connection.closed.signal], options.timeoutMs ?? timeoutMs), limits);
  switch (method.methodKind) {
    case "unary":
      return (request: Request, options: CallOptions = {}) =>
        unary(connection, method as DescMethodUnary, identity, withRequestId(method, request), begin(options, unaryTimeout(method)));
    case "server_streaming":
      return (request: Request, options: CallOptions = {}) =>
        receive(connection, method as DescMethodServerStreaming, identity, request, begin(options, timeouts.transfer));
    case "client_streaming":
      return (requests: AsyncIterable<Request>, options: CallOptions = {}) =>
        send(connection, method as DescMethodClientStreaming, identity, requests, begin(options, timeouts.transfer));
    default:
      throw new Error(`${method.name} is of a kind that the contract does not have`);
  }
}

function unaryTimeout(method: DescMethod): number {
  switch (method) {
    case FileSharingService.method.publishUpload:
      return timeouts.publish;
    case FileSharingService.method.uploadSmallFile:
      return timeouts.transfer;
    default:
      return timeouts.unary;
  }
}

/**
 * Makes a unary call, and repeats it by the retry rule. That is safe for every method that takes an identity: those that change
 * something are idempotent, or have a request id.
 */
async function unary(
  connection: Transport, method: DescMethodUnary, identity: Identity, request: Request, pacer: Pacer,
): Promise<unknown> {
  const { operation } = pacer;
  try {
    for (;;) {
      let token = "";
      try {
        pacer.attempts++;
        const credential = await operation.wait(identity.attach());
        token = credential.token;
        return await connection.unary(method, request, { operation, credential, reachMs: pacer.reachMs });
      } catch (error) {
        await pacer.retry(error, identity, token);
      }
    }
  } finally {
    operation.finish();
  }
}

async function* receive(
  connection: Transport, method: DescMethodServerStreaming, identity: Identity, request: Request, pacer: Pacer,
): AsyncGenerator {
  const { operation } = pacer;
  try {
    pacer.attempts++;
    const credential = await operation.wait(identity.attach());
    yield* connection.serverStream(method, request, { operation, credential, reachMs: pacer.reachMs });
  } catch (error) {
    throw pacer.report(error);
  } finally {
    operation.finish();
  }
}

async function send(
  connection: Transport, method: DescMethodClientStreaming, identity: Identity, requests: AsyncIterable<Request>,
  pacer: Pacer,
): Promise<unknown> {
  const { operation } = pacer;
  try {
    pacer.attempts++;
    if (!connection.clientStream) {
      throw new TypeError(`${method.name}: browsers cannot stream requests; use uploadSmallFile`);
    }
    const credential = await operation.wait(identity.attach());
    const sending = await connection.clientStream(method, { operation, credential, reachMs: pacer.reachMs });
    try {
      for await (const request of requests) {
        if (sending.ended) {
          break;
        }
        await sending.send(request);
      }
      sending.closeSend();
      return await sending.result;
    } finally {
      sending.cancel();
    }
  } catch (error) {
    throw pacer.report(error);
  } finally {
    operation.finish();
  }
}

/** Returns a request that may be repeated: it adds a request id to one that needs it and has none. */
function withRequestId(method: DescMethod, request: Request): Request {
  const fields = request as { requestId?: string; spec?: { requestId?: string } };
  const requestId = newUUID();
  if (method === ConversationService.method.createConversation) {
    return { ...fields, requestId: fields.requestId || requestId };
  }
  if (method === FileSharingService.method.uploadSmallFile && fields.spec) {
    return { ...fields, spec: { ...fields.spec, requestId: fields.spec.requestId || requestId } };
  }
  return request;
}
