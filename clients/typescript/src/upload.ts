import { createHash, randomUUID } from "node:crypto";

import type { MessageInitShape } from "@bufbuild/protobuf";

import type { Connection, SendingCall } from "./connection.js";
import { combine, crc32c } from "./crc32c.js";
import { SourceFailure } from "./errors.js";
import { detectFileType } from "./filetype.js";
import { type ChecksumKind, type ChecksumsSchema, FileType } from "./gen/lpfileshare/v1/file_pb.js";
import {
  FileSharingService, PublishMode, type UploadRequestSchema, type UploadResponseSchema, type UploadSpecSchema, UploadState,
} from "./gen/lpfileshare/v1/file_sharing_service_pb.js";
import type { Identity } from "./identity.js";
import { native, type Upload, type UploadResult } from "./native.js";
import { type CallOptions, Operation, timeouts } from "./operation.js";
import { Pacer } from "./retry.js";
import { type Source, SourceReader } from "./source.js";

const defaultChunkBytes = 64 << 10;
const maxChunkBytes = 1 << 20;
/** The key of the response header that means that the upload was accepted. */
const acceptedKey = "lpfs-request-id";
/** How long an upload waits for that header. Some proxies hold headers back until the call ends. */
const acceptTimeoutMs = 5000;
/** How many bytes gRPC may hold that the connection has not accepted yet; at least two chunks. */
const bytesInFlight = 256 << 10;

/** What is uploaded, and where to. conversation is required. */
export interface UploadOptions extends CallOptions {
  /** accounts/{account}/conversations/{conversation}. */
  conversation: string;
  /** A dialog of the conversation. Default: the main dialog. */
  dialogId?: string | undefined;
  /** A file name, up to Capabilities.maxDisplayNameChars characters. Default: that of the path. It is not sent to LivePerson. */
  displayName?: string | undefined;
  /** The file type. Default: {@link detectFileType} of the first bytes and displayName. */
  fileType?: FileType | undefined;
  /** Text that is shown with the file, up to Capabilities.maxCaptionChars characters. */
  caption?: string | undefined;
  /** A small image of the file as a data URI, or "generate": the server generates one from an image. Default: none. */
  preview?: "generate" | `data:${string}` | undefined;
  /** What may be done to an image before it is stored. UploadResult.image reports what was done. Default: nothing. */
  image?: {
    /** Make it fit the size limit, with lower quality or fewer pixels if necessary. */
    fit?: boolean;
    /** Remove data that is not visible, for example the location. */
    stripMetadata?: boolean;
  } | undefined;
  /** A UUID. Default: a new one. Set it to repeat an upload whose result is not known: the file is published once. */
  requestId?: string | undefined;
  /** Whether the file is published. Default: it is. See also LpFileShare.publishUpload. */
  publishMode?: PublishMode | undefined;
  /** Check what can be checked without the bytes, and change nothing. The result has no file. */
  validateOnly?: boolean | undefined;
  /** The checksums that the result must have in addition to CRC-32C. */
  wantChecksums?: ChecksumKind[] | undefined;
  /** The size in bytes of a source that can be read only once, if it is known. The server then stores while it receives. */
  sizeBytes?: number | undefined;
  /**
   * Receives the number of bytes that were passed to the connection, which can be more than have arrived, and the total, undefined if
   * that is not known. It starts at 0 for each attempt.
   */
  onProgress?: ((sent: number, total: number | undefined) => void) | undefined;
  /** The number of bytes in a message, up to 1 MiB. Default: 64 KiB. */
  chunkBytes?: number | undefined;
  /**
   * How long after the beginning another attempt may begin, and how long to wait for a connection, in milliseconds. Default: two
   * minutes. 0 or less: one attempt, and two minutes for the connection.
   */
  retryForMs?: number | undefined;
}

type Spec = MessageInitShape<typeof UploadSpecSchema>;
type Call = SendingCall<typeof UploadRequestSchema, typeof UploadResponseSchema>;

/** Uploads a file: see LpFileShare.upload. getUpload gets the state of the upload. */
export async function upload(
  connection: Connection, identity: Identity, source: Source, options: UploadOptions,
  getUpload: (name: string, options: CallOptions) => Promise<Upload>,
): Promise<UploadResult> {
  const { chunkBytes = defaultChunkBytes } = options;
  if (!(chunkBytes >= 1 && chunkBytes <= maxChunkBytes)) {
    throw new RangeError(`upload: chunkBytes is ${chunkBytes}, must be 1 to ${maxChunkBytes}`);
  }
  const reader = new SourceReader(source, chunkBytes);
  const displayName = options.displayName ?? reader.name;
  const name = displayName ? `upload ${displayName}` : "upload";
  const operation = new Operation(name, [options.signal, connection.closed.signal], options.timeoutMs ?? timeouts.transfer);
  const pacer = new Pacer(operation, options);
  const requestId = options.requestId || randomUUID();
  pacer.about = { requestId, finished: false };
  const attempts = new UploadAttempts(connection, identity, reader, { ...options, displayName, requestId, chunkBytes }, pacer);
  try {
    return await attempts.run(getUpload);
  } finally {
    operation.finish();
  }
}

/** One file over any number of attempts. */
class UploadAttempts {
  #readOnce = false; // no attempt can follow, because the source was read

  constructor(
    readonly connection: Connection,
    readonly identity: Identity,
    readonly source: SourceReader,
    readonly options: UploadOptions & { displayName: string; requestId: string; chunkBytes: number },
    readonly pacer: Pacer,
  ) {}

  async run(getUpload: (name: string, options: CallOptions) => Promise<Upload>): Promise<UploadResult> {
    let spec: Spec | undefined;
    for (;;) {
      let token = "";
      try {
        if (!spec) {
          await this.source.prepare(this.pacer.operation.signal, !this.options.fileType);
          spec = this.#spec();
        }
        this.pacer.attempts++;
        const credential = await this.pacer.operation.wait(this.identity.attach());
        token = credential.token;
        const call = await this.connection.clientStream(FileSharingService.method.upload, {
          operation: this.pacer.operation, credential, reachMs: this.pacer.reachMs,
        });
        try {
          await this.#send(call, spec);
          return native(await call.result);
        } finally {
          call.cancel();
        }
      } catch (error) {
        try {
          await this.pacer.retry(error, this.identity, token, () => {
            const why = this.source.begin();
            this.#readOnce = why !== undefined;
            return why;
          });
        } catch (final) {
          const settled = this.#readOnce ? await this.#settle(getUpload) : undefined;
          if (settled) {
            return settled;
          }
          throw final;
        }
      }
    }
  }

  #spec(): Spec {
    const { conversation, displayName, requestId, preview, image, ...o } = this.options;
    const fileType = o.fileType ?? detectFileType(displayName, this.source.head);
    if (fileType === FileType.UNSPECIFIED) {
      throw new TypeError("upload: the file type cannot be detected from the bytes or the name; set fileType, or a displayName with an extension");
    }
    const { measure } = this.source;
    const size = measure?.size ?? o.sizeBytes;
    return {
      conversation, displayName, requestId, fileType,
      dialogId: o.dialogId ?? "",
      caption: o.caption ?? "",
      publishMode: o.publishMode ?? PublishMode.UNSPECIFIED,
      validateOnly: o.validateOnly ?? false,
      wantChecksums: o.wantChecksums ?? [],
      ...(size !== undefined && { sizeBytes: BigInt(size) }),
      ...(measure && { checksums: { crc32c: measure.crc32c, sha256: measure.sha256 } }),
      ...(image && { image }),
      ...(preview !== undefined && {
        preview: { source: preview === "generate" ? { case: "generate", value: true } : { case: "dataUri", value: preview } },
      }),
    };
  }

  /** Sends the upload, until it is sent or the server has ended the call. Only the answer says how: it can be OK. */
  async #send(call: Call, spec: Spec): Promise<void> {
    await call.send({ firstMessage: { case: "spec", value: spec } });
    if (!spec.validateOnly) {
      await accepted(call);
      const finish = await this.#sendFile(call);
      if (!finish) {
        return;
      }
      this.pacer.about.finished = true; // even if sending it fails
      await call.send({ finish });
    }
    call.closeSend();
  }

  /** Sends the chunks, and returns what the finish message says. Undefined: the server has ended the call. */
  async #sendFile(call: Call): Promise<{ checksums?: MessageInitShape<typeof ChecksumsSchema> } | undefined> {
    const { chunkBytes, sizeBytes, onProgress } = this.options;
    const { measure } = this.source;
    const total = measure?.size ?? sizeBytes;
    const sha = createHash("sha256");
    let sent = 0, crc = 0;
    const sending: Promise<void>[] = [];
    const maxSending = Math.max(bytesInFlight / chunkBytes, 2);
    onProgress?.(0, total);
    if (call.ended) {
      return undefined; // before anything of the source is read
    }
    const chunks = this.source.chunks(chunkBytes);
    try {
      for (;;) {
        const next = await Promise.race([call.end, chunks.next()]);
        if (!next) {
          return undefined;
        }
        if (next.done) {
          break;
        }
        const data = next.value;
        const sum = crc32c(data);
        if (!measure) {
          crc = combine(crc, sum, data.length);
          sha.update(data);
        }
        if (sending.push(call.send({ chunk: { offset: BigInt(sent), data, crc32c: sum } })) >= maxSending) {
          await sending.shift();
        }
        sent += data.length;
        onProgress?.(sent, total);
      }
    } finally {
      void chunks.return(undefined).catch(() => undefined);
    }
    if (measure && sent !== measure.size) {
      throw new SourceFailure(
        undefined, `read source: it had ${measure.size} bytes first and ${sent} now; send it when it no longer changes`,
      );
    }
    return measure ? {} : { checksums: { crc32c: crc, sha256: sha.digest() } };
  }

  /** Asks for the result of an upload whose response was lost and that cannot be sent again. Undefined: it is not known to be done. */
  async #settle(getUpload: (name: string, options: CallOptions) => Promise<Upload>): Promise<UploadResult | undefined> {
    const { conversation, requestId, publishMode, signal } = this.options;
    const account = /^(accounts\/[^/]+)\//.exec(conversation)?.[1];
    if (!this.pacer.about.finished || !account) {
      return undefined;
    }
    const name = `${account}/uploads/${requestId}`;
    try {
      const found = await getUpload(name, { signal, timeoutMs: 10_000 });
      const stored = publishMode === PublishMode.STORE_ONLY && found.state === UploadState.STORED;
      if (found.state !== UploadState.PUBLISHED && !stored) {
        return undefined;
      }
      const { file, image } = found;
      return { upload: name, requestId, replayed: true, previewOmitted: false, ...(file && { file }), ...(image && { image }) };
    } catch {
      return undefined;
    }
  }
}

/** Waits until the server has accepted the upload, the call has ended or the time has passed. */
async function accepted(call: Call): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const header = call.header.then((metadata) =>
    // A header without the key does not mean that the upload was accepted.
    metadata.get(acceptedKey).length > 0 ? undefined : new Promise<never>(() => undefined),
  );
  try {
    await Promise.race([header, call.end, new Promise((resolve) => { timer = setTimeout(resolve, acceptTimeoutMs); })]);
  } finally {
    clearTimeout(timer);
  }
}
