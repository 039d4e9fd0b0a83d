import { FileType } from "./gen/lpfileshare/v1/file_pb.js";

/** The number of first bytes that detectFileType uses. */
export const sniffBytes = 512;

const signatures: [FileType, string][] = [
  [FileType.JPEG, "\xff\xd8\xff"],
  [FileType.PNG, "\x89PNG\r\n\x1a\n"],
  [FileType.GIF, "GIF87a"],
  [FileType.GIF, "GIF89a"],
  [FileType.PDF, "%PDF-"],
];

const extensions: Partial<Record<string, FileType>> = {
  ".jpg": FileType.JPEG, ".jpeg": FileType.JPEG, ".jpe": FileType.JPEG, ".png": FileType.PNG, ".gif": FileType.GIF,
  ".pdf": FileType.PDF, ".txt": FileType.TXT, ".docx": FileType.DOCX, ".xlsx": FileType.XLSX, ".pptx": FileType.PPTX,
};

/**
 * Returns the type of a file by its first bytes (512 are enough) and, if they do not show one, by the extension of its name. The bytes
 * take precedence, because the server rejects a file whose bytes do not match its type. Returns FileType.UNSPECIFIED for any other file.
 */
export function detectFileType(name: string, head: Uint8Array): FileType {
  const start = String.fromCharCode(...head.subarray(0, sniffBytes));
  const signed = signatures.find(([type, signature]) =>
    // Only before a PDF may there be a byte order mark and white space.
    (type === FileType.PDF ? start.replace(/^(?:\xef\xbb\xbf)?[ \t\r\n\f\0]*/, "") : start).startsWith(signature),
  );
  return signed?.[0] ?? extensions[extension(name)] ?? (isText(head) ? FileType.TXT : FileType.UNSPECIFIED);
}

/** Returns the extension of a file name in lower case, with its dot. Empty: none. */
function extension(name: string): string {
  const base = name.slice(name.lastIndexOf("/") + 1);
  const dot = base.lastIndexOf(".");
  return dot > 0 ? base.slice(dot).toLowerCase() : "";
}

/** Reports whether head is UTF-8 without the control characters that text does not contain. Its last character may be incomplete. */
function isText(head: Uint8Array): boolean {
  if (head.length === 0 || head.some((c) => c < 0x20 && !"\t\n\r\f".includes(String.fromCharCode(c)))) {
    return false;
  }
  try {
    new TextDecoder("utf-8", { fatal: true }).decode(head, { stream: true });
    return true;
  } catch {
    return false;
  }
}
