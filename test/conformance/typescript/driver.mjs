// The conformance driver of the TypeScript client: see ../README.md.
import { createHash } from "node:crypto";
import { createReadStream, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { Readable, Writable } from "node:stream";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { inspect } from "node:util";

// The package as it is published, in the project that ./build makes.
const { resolve } = createRequire(new URL(".cache/project/", import.meta.url));
const lpfileshare = await import(resolve("lpfileshare"));
const {
  agentToken, ChecksumKind, ConsumerSession, ConsumerTokens, consumerToken, ConversationState, externalConsumerId, FileType, ImageMetadata,
  LpFileShare, LpFileShareError, ParticipantRole, PublishMode, SinkError, SourceError, UploadState, WatchResetError,
} = lpfileshare;

const clients = new Map();
const running = new Map(); // AbortControllers by id
const outcomes = new Map(); // results and errors by id, for print

const send = (message) => process.stdout.write(`${JSON.stringify(message)}\n`);
const name = (type, value) => type[value] ?? value;
const hex = (bytes) => Buffer.from(bytes ?? []).toString("hex");

function identity(spec) {
  switch (spec?.kind) {
    case "consumer":
      return consumerToken(tokenSource(spec));
    case "agent":
      return agentToken(tokenSource(spec));
    case "external":
      return externalConsumerId(spec.externalConsumerId);
    default:
      return undefined;
  }
}

function tokenSource({ token, tokens, session }) {
  if (session) {
    const { expiresAtMs, ...rest } = session;
    return new ConsumerTokens(new ConsumerSession({ ...rest, expires: expiresAtMs ? new Date(expiresAtMs) : undefined }));
  }
  if (!tokens) {
    return token;
  }
  let at = 0;
  return (rejected) => {
    if (rejected !== undefined && at < tokens.length - 1) {
      at++;
    }
    return tokens[at];
  };
}

function tls(spec) {
  if (!spec) {
    return undefined;
  }
  const read = ([kind, path]) => [kind, readFileSync(path)];
  return spec.plaintext ? false : Object.fromEntries(Object.entries(spec).filter(([, path]) => path).map(read));
}

/** The pieces of a file that fail, wait or end elsewhere as the command says. */
async function* pieces(path, { failAfter, delayMs }, length) {
  let read = 0, since = 0;
  for await (let piece of createReadStream(path)) {
    if (length !== undefined) {
      piece = piece.subarray(0, Math.max(length - read, 0));
    }
    if (failAfter !== undefined && read + piece.length >= failAfter) {
      yield piece.subarray(0, failAfter - read);
      throw new Error("source failed");
    }
    read += piece.length;
    if (piece.length > 0) {
      yield piece;
    }
    if (delayMs && (since += piece.length) >= 65536) {
      since = 0;
      await sleep(delayMs);
    }
  }
  if (length !== undefined && read < length) {
    yield new Uint8Array(length - read);
  }
}

function source(spec) {
  const { kind, path, declaredBytes } = spec;
  switch (kind) {
    case "path":
      return path;
    case "bytes":
      return readFileSync(path);
    case "seekable": {
      let pass = 0;
      return () => pieces(path, spec, pass++ === 0 ? declaredBytes : undefined);
    }
    case "stream":
      return Readable.from(pieces(path, spec));
    default:
      throw new Error(`unknown source ${kind}`);
  }
}

/** Reports progress: the first, the last, each attempt's first, and one in each 256 KiB. */
function progress(id) {
  let next = 0;
  return (sent, total) => {
    if (sent === 0 || sent === total || sent >= next) {
      next = sent + 192 * 1024;
      send({ id, event: { progress: [sent, total ?? -1] } });
    }
  };
}

function fileAnswer(file) {
  return file && {
    name: file.name, storagePath: file.storagePath, fileType: name(FileType, file.fileType), contentType: file.contentType,
    sizeBytes: file.storedSizeBytes, caption: file.caption, displayName: file.displayName, etag: file.etag,
    senderRole: name(ParticipantRole, file.senderRole), sha256: hex(file.uploadedChecksums?.sha256), crc32c: file.uploadedChecksums?.crc32c,
  };
}

function errorAnswer(error) {
  const text = String(error);
  if (!(error instanceof LpFileShareError)) {
    return { kind: error instanceof TypeError || error instanceof RangeError ? "usage" : "call", code: "", reason: "", message: error.message, text };
  }
  const kind =
    error.name === "AbortError" ? "cancelled"
    : error.name === "TimeoutError" ? "deadline"
    : error instanceof SourceError ? "source"
    : error instanceof SinkError ? "sink"
    : error instanceof WatchResetError ? "watchReset"
    : "call";
  const { code = "", reason = "", details, metadata, violations, retryAfterMs, requestId, attempts, finished } = error;
  return { kind, code, reason, message: details, metadata, violations, retryAfterMs, requestId, attempts, finished, text };
}

async function download(client, { id, file, options = {}, sink }, call) {
  const sha = createHash("sha256");
  let bytes = 0, since = 0;
  const take = async (piece) => {
    if (sink.failAfter !== undefined && bytes + piece.length > sink.failAfter) {
      throw new Error("sink failed");
    }
    bytes += piece.length;
    sha.update(piece);
    if (sink.delayMs && (since += piece.length) >= 65536) {
      since = 0;
      await sleep(sink.delayMs);
    }
  };
  const all = { ...options, ...call, onProgress: progress(id) };
  let result;
  switch (sink.kind) {
    case "path":
      result = await client.downloadTo(file, sink.path, all);
      await take(readFileSync(sink.path));
      break;
    case "memory": {
      const write = (piece, _, done) => void take(piece).then(() => done(), done);
      result = await client.downloadTo(file, new Writable({ write }).on("error", () => undefined), all);
      break;
    }
    default: {
      const open = await client.download(file, all);
      for await (const piece of open) {
        await take(piece);
      }
      result = open.result;
    }
  }
  const { startBytes: start, totalBytes: total } = result.range;
  return { file: fileAnswer(result.file), bytes, sha256: sha.digest("hex"), start, total };
}

async function watch(client, { id, parent, token, maxSilenceMs, retryForMs, limit, delayMs }, call) {
  const onConnection = (connection) => send({ id, event: { connection } });
  const watching = client.watch(parent, { token, maxSilenceMs, retryForMs, ...call, onConnection });
  const files = [];
  for await (const file of watching) {
    files.push(fileAnswer(file));
    send({ id, event: { file: fileAnswer(file), token: watching.token } });
    if (limit && files.length >= limit) {
      break;
    }
    if (delayMs) {
      await sleep(delayMs, undefined, { signal: call.signal });
    }
  }
  return { files, token: watching.token };
}

function uploadOptions({ fileType, image, publishMode, wantChecksums, ...rest }) {
  return {
    ...rest,
    ...(fileType && { fileType: FileType[fileType] ?? fileType }),
    ...(image && { image: { fit: image.includes("fit"), stripMetadata: image.includes("strip") } }),
    ...(publishMode && { publishMode: PublishMode[publishMode] }),
    ...(wantChecksums && { wantChecksums: wantChecksums.map((kind) => ChecksumKind[kind]) }),
  };
}

function imageAnswer(image) {
  const { inputSizeBytes, recoded, scaled, removedMetadata } = image ?? {};
  return image ? { inputSizeBytes, recoded, scaled, removedMetadata: removedMetadata.map((kind) => name(ImageMetadata, kind)) } : null;
}

const commands = {
  open({ client, target, account, identity: who, tls: secure, fromEnvironment }) {
    clients.set(client, fromEnvironment ? LpFileShare.fromEnv() : new LpFileShare({ target, account, identity: identity(who), tls: tls(secure) }));
    return {};
  },
  as({ client, from, identity: who }) {
    clients.set(client, clients.get(from).as(identity(who)));
    return {};
  },
  async close({ client }) {
    await clients.get(client).close();
    return {};
  },
  async upload({ id, client, source: from, options }, call) {
    const result = await clients.get(client).upload(source(from), { ...uploadOptions(options), ...call, onProgress: progress(id) });
    const { upload, requestId, replayed, previewOmitted, file, image } = result;
    return { upload, requestId, replayed, previewOmitted, file: fileAnswer(file), image: imageAnswer(image) };
  },
  download: (command, call) => download(clients.get(command.client), command, call),
  async files({ client, parent, options: { senderRole, ...options } = {} }, call) {
    const list = clients.get(client).files(parent, { ...options, ...call, ...(senderRole && { senderRole: ParticipantRole[senderRole] }) });
    const files = (await list.toArray()).map(fileAnswer);
    return { files, watchToken: list.watchToken, unreadable: list.unreadable.map((conversation) => conversation.name) };
  },
  watch: (command, call) => watch(clients.get(command.client), command, call),
  stat: async ({ client, file }, call) => ({ file: fileAnswer(await clients.get(client).stat(file, call)) }),
  async getUpload({ client, upload }, call) {
    const found = await clients.get(client).getUpload(upload, call);
    return { upload: found.name, state: name(UploadState, found.state) };
  },
  async publishUpload({ client, upload }, call) {
    const { file, replayed } = await clients.get(client).publishUpload(upload, call);
    return { file: fileAnswer(file), replayed };
  },
  async capabilities({ client }, call) {
    const { maxFileBytes, maxSmallFileBytes, fileTypes, serverVersion } = await clients.get(client).capabilities(call);
    return { maxFileBytes, maxSmallFileBytes, fileTypes: fileTypes.map((type) => name(FileType, type)), serverVersion };
  },
  async signInConsumer({ client, request }, call) {
    const how = request.anonymous ? { anonymous: { connectorId: request.anonymous } } : request;
    const session = await clients.get(client).signInConsumer(how, call);
    const { token, renewalSecret, consumerId, expires } = session;
    return secret({ token, renewalSecret, consumerId, expiresAtMs: expires?.getTime() ?? 0 }, session);
  },
  async signInAgent({ client, request: { userName: username, password } }, call) {
    const session = await clients.get(client).signInAgent({ username, password }, call);
    return secret({ token: session.token }, session);
  },
  async signOutAgent({ client }, call) {
    await clients.get(client).signOutAgent(call);
    return {};
  },
  createConversation: async ({ client, requestId }, call) =>
    ({ conversation: (await clients.get(client).createConversation({ requestId, ...call })).name }),
  closeConversation: async ({ client, conversation }, call) =>
    ({ state: name(ConversationState, (await clients.get(client).closeConversation(conversation, call)).state) }),
  async conversations({ client }, call) {
    const conversations = [];
    for await (const conversation of clients.get(client).conversations(call)) {
      conversations.push(conversation.name);
    }
    return { conversations };
  },
  cancel({ call }) {
    running.get(call)?.abort();
    return {};
  },
  print({ client, call }) {
    const things = [clients.get(client), clients.get(client) && Object.values(clients.get(client)), outcomes.get(call)].filter(Boolean);
    const ways = [String, inspect, (thing) => inspect(thing, { depth: Infinity, showHidden: true, getters: false }), JSON.stringify, (thing) => thing.stack ?? ""];
    return { text: things.flatMap((thing) => ways.map((way) => way(thing))) };
  },
};

/** An answer that carries secrets, beside what the client returned, which is what print prints. */
function secret(answer, session) {
  return Object.defineProperty(answer, "printed", { value: session, enumerable: false });
}

async function run(command) {
  const { id, op, deadlineMs } = command;
  const abort = new AbortController();
  running.set(id, abort);
  try {
    const result = await commands[op](command, { signal: abort.signal, ...(deadlineMs && { timeoutMs: deadlineMs }) });
    outcomes.set(id, result.printed ?? result);
    send({ id, result });
  } catch (error) {
    outcomes.set(id, error);
    send({ id, error: errorAnswer(error) });
  } finally {
    running.delete(id);
  }
}

const lines = createInterface({ input: process.stdin });
lines.on("line", (line) => void run(JSON.parse(line)));
lines.on("close", () => {
  for (const client of clients.values()) {
    void client.close();
  }
});
