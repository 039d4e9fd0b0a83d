import type { MessageInitShape } from "@bufbuild/protobuf";

import { crc32c } from "../crc32c.js";
import { Failure, SourceFailure } from "../errors.js";
import { detectFileType, sniffBytes } from "../filetype.js";
import { FileType } from "../gen/lpfileshare/v1/file_pb.js";
import { FileSharingService, PublishMode, type UploadSpecSchema } from "../gen/lpfileshare/v1/file_sharing_service_pb.js";
import type { Identity } from "../identity.js";
import { native, type UploadResult } from "../native.js";
import { Operation, timeouts } from "../operation.js";
import { Pacer } from "../retry.js";
import type { Transport } from "../transport.js";
import type { UploadOptions as NodeUploadOptions } from "../upload.js";
import { newUUID } from "../uuid.js";

/** What is uploaded, and where to. conversation is required. displayName is by default the name of a File. */
export type UploadOptions = Omit<NodeUploadOptions, "chunkBytes" | "onProgress" | "sizeBytes">;

/** Uploads a file: see LpFileShare.upload. maxBytes gets the size limit of an account. */
export async function upload(
  transport: Transport, identity: Identity, source: Blob | Uint8Array, options: UploadOptions, maxBytes: (account: string) => Promise<number>,
): Promise<UploadResult> {
  const displayName = options.displayName ?? (source instanceof Blob && "name" in source ? String(source.name) : "");
  const operation = new Operation(
    displayName ? `upload ${displayName}` : "upload", [options.signal, transport.closed.signal], options.timeoutMs ?? timeouts.transfer,
  );
  const pacer = new Pacer(operation, options);
  const requestId = options.requestId || newUUID();
  pacer.about = { requestId, finished: false };
  try {
    const size = source instanceof Blob ? source.size : source.length;
    const limit = await operation.wait(maxBytes(/^(accounts\/[^/]+)\//.exec(options.conversation)?.[1] ?? ""));
    if (size > limit) {
      throw pacer.report(new Failure("final", {
        code: "INVALID_ARGUMENT", reason: "FILE_TOO_LARGE", details: `the file is ${size} bytes, the limit of uploads from browsers is ${limit}`,
        metadata: { maxBytes: String(limit), actualBytes: String(size) },
      }));
    }
    const data = await operation.wait(bytesOf(source)).catch((error: unknown) => {
      throw pacer.report(operation.signal.aborted ? error : new SourceFailure(error));
    });
    const spec = await makeSpec(data, { ...options, displayName, requestId });
    for (;;) {
      let token = "";
      try {
        pacer.attempts++;
        const credential = await operation.wait(identity.attach());
        token = credential.token;
        pacer.about.finished = true;
        const request = { spec, data: options.validateOnly ? new Uint8Array() : data };
        const response = await transport.unary(FileSharingService.method.uploadSmallFile, request, { operation, credential, reachMs: pacer.reachMs });
        return native(response.result!);
      } catch (error) {
        await pacer.retry(error, identity, token);
      }
    }
  } finally {
    operation.finish();
  }
}

async function bytesOf(source: Blob | Uint8Array): Promise<Uint8Array<ArrayBuffer>> {
  return source instanceof Blob ? new Uint8Array(await source.arrayBuffer()) : new Uint8Array(source);
}

async function makeSpec(
  data: Uint8Array<ArrayBuffer>, { conversation, displayName, requestId, preview, image, ...o }: UploadOptions & { displayName: string; requestId: string },
): Promise<MessageInitShape<typeof UploadSpecSchema>> {
  const fileType = o.fileType ?? detectFileType(displayName, data.subarray(0, sniffBytes));
  if (fileType === FileType.UNSPECIFIED) {
    throw new TypeError("upload: the file type cannot be detected from the bytes or the name; set fileType, or a displayName with an extension");
  }
  const { subtle } = globalThis.crypto as Partial<Crypto>; // undefined on pages that came over plain HTTP
  const sha256 = subtle && new Uint8Array(await subtle.digest("SHA-256", data));
  return {
    conversation, displayName, requestId, fileType,
    dialogId: o.dialogId ?? "",
    caption: o.caption ?? "",
    publishMode: o.publishMode ?? PublishMode.UNSPECIFIED,
    validateOnly: o.validateOnly ?? false,
    wantChecksums: o.wantChecksums ?? [],
    sizeBytes: BigInt(data.length),
    checksums: { crc32c: crc32c(data), ...(sha256 && { sha256 }) },
    ...(image && { image }),
    ...(preview !== undefined && {
      preview: { source: preview === "generate" ? { case: "generate", value: true } : { case: "dataUri", value: preview } },
    }),
  };
}
