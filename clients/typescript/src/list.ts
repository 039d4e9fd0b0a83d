import { ParticipantRole } from "./gen/lpfileshare/v1/file_pb.js";
import type { ListFilesResponse } from "./gen/lpfileshare/v1/file_sharing_service_pb.js";
import { native, type SharedFile, type UnreadableConversation } from "./native.js";
import type { CallOptions } from "./operation.js";
import type { Stubs } from "./stubs.js";

/** Which files are listed. */
export interface FilesOptions extends CallOptions {
  /** Sort by creation time, newest first. Default: oldest first, by conversation and dialog. */
  newestFirst?: boolean | undefined;
  /** Only files of this dialog. */
  dialogId?: string | undefined;
  /** Only files of senders with this role. */
  senderRole?: ParticipantRole | undefined;
  /** The maximum number of files per request. Default: the server's. */
  pageSize?: number | undefined;
}

/**
 * A listing of files. It makes no call before it is looped over, and reads page after page as the loop proceeds. Looping over it again
 * starts from the beginning. signal and timeoutMs hold for each page.
 */
export class FileList implements AsyncIterable<SharedFile> {
  #watchToken = "";
  #unreadable: UnreadableConversation[] = [];

  /** @internal Use LpFileShare.files. */
  constructor(
    private readonly stubs: Stubs,
    private readonly parent: string,
    private readonly options: FilesOptions,
  ) {}

  /**
   * The token that starts a watch exactly where the listing ends, so that no file is missed or repeated. Empty until the loop has read
   * the first page.
   */
  get watchToken(): string {
    return this.#watchToken;
  }

  /** The conversations that the listing leaves out, in part or as a whole, because the server could not read them. */
  get unreadable(): readonly UnreadableConversation[] {
    return this.#unreadable;
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<SharedFile, undefined> {
    const { newestFirst = false, dialogId = "", senderRole = ParticipantRole.UNSPECIFIED, pageSize = 0, ...call } = this.options;
    this.#unreadable = [];
    let pageToken = "";
    do {
      const page = await this.stubs.files.listFiles(
        { parent: this.parent, newestFirst, dialogId, senderRole, pageSize, pageToken }, call,
      );
      this.#note(page);
      for (const file of page.files) {
        yield native(file);
      }
      pageToken = page.nextPageToken;
    } while (pageToken);
    return undefined;
  }

  /** Reads all files into an array. */
  async toArray(): Promise<SharedFile[]> {
    const files: SharedFile[] = [];
    for await (const file of this) {
      files.push(file);
    }
    return files;
  }

  #note(page: ListFilesResponse): void {
    this.#watchToken = page.watchToken || this.#watchToken;
    for (const u of page.unreadableConversations) {
      if (!this.#unreadable.some((known) => known.name === u.name && known.dialogId === u.dialogId)) {
        this.#unreadable.push(native(u));
      }
    }
  }
}
