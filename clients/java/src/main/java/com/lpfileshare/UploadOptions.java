package com.lpfileshare;

import com.lpfileshare.v1.ChecksumKind;
import com.lpfileshare.v1.FileType;
import com.lpfileshare.v1.ImageOptions;
import com.lpfileshare.v1.Preview;
import com.lpfileshare.v1.PublishMode;
import com.lpfileshare.v1.UploadSpec;
import java.time.Duration;

/**
 * Says where a file is uploaded, and how. An object can be used for several uploads, one after the
 * other.
 */
public final class UploadOptions {
  private static final int MAX_CHUNK = 1 << 20;

  final UploadSpec.Builder spec = UploadSpec.newBuilder();
  Progress progress = (sent, total) -> {};
  int chunkBytes = 64 << 10;
  Duration retryFor = Pacer.TRANSFER;

  private UploadOptions(String conversation) {
    spec.setConversation(conversation);
  }

  /** Begins options for a conversation, accounts/{account}/conversations/{conversation}. */
  public static UploadOptions to(String conversation) {
    return new UploadOptions(conversation);
  }

  /** Sets a dialog of the conversation. Default: the main dialog. */
  public UploadOptions dialogId(String id) {
    spec.setDialogId(id);
    return this;
  }

  /** Sets a file name. Default: that of the source. It is not sent to LivePerson. */
  public UploadOptions displayName(String name) {
    spec.setDisplayName(name);
    return this;
  }

  /**
   * Sets the file type. Default: detected from the first bytes and the name, see {@link
   * FileTypes#detect}.
   */
  public UploadOptions fileType(FileType type) {
    spec.setFileType(type);
    return this;
  }

  /**
   * Sets text that is shown with the file, up to GetCapabilitiesResponse.max_caption_chars
   * characters.
   */
  public UploadOptions caption(String text) {
    spec.setCaption(text);
    return this;
  }

  /** Sets a small image of the file, "data:image/jpeg;base64,...". */
  public UploadOptions preview(String dataUri) {
    spec.setPreview(Preview.newBuilder().setDataUri(dataUri));
    return this;
  }

  /** Makes the server generate the preview. */
  public UploadOptions generatePreview() {
    spec.setPreview(Preview.newBuilder().setGenerate(true));
    return this;
  }

  /**
   * Sets what may be done to an image before it is stored. UploadResponse.image reports what was
   * done.
   */
  public UploadOptions image(ImageOptions options) {
    spec.setImage(options);
    return this;
  }

  /**
   * Sets the request id, a UUID. Default: a new one for each upload. Set it to repeat an upload
   * whose result is not known: the file is published once, however often it is sent.
   */
  public UploadOptions requestId(String uuid) {
    spec.setRequestId(uuid);
    return this;
  }

  /** Stores the file and does not publish it: see {@link LpFileShareClient#publishUpload}. */
  public UploadOptions storeOnly() {
    spec.setPublishMode(PublishMode.PUBLISH_MODE_STORE_ONLY);
    return this;
  }

  /**
   * Checks what can be checked without the bytes, and changes nothing. The response has no file.
   */
  public UploadOptions validateOnly() {
    spec.setValidateOnly(true);
    return this;
  }

  /** Adds a checksum that the response must have in addition to CRC-32C. */
  public UploadOptions wantChecksum(ChecksumKind kind) {
    spec.addWantChecksums(kind);
    return this;
  }

  /**
   * Sets what receives the number of bytes that were passed to the connection, which can be more
   * than have arrived. It starts at 0 for each attempt.
   */
  public UploadOptions onProgress(Progress listener) {
    progress = listener;
    return this;
  }

  /** Sets the number of bytes in a message, up to 1 MiB. Default: 64 KiB. */
  public UploadOptions chunkBytes(int n) {
    if (n < 1 || n > MAX_CHUNK) {
      throw new IllegalArgumentException("chunkBytes is " + n + ", must be 1 to " + MAX_CHUNK);
    }
    chunkBytes = n;
    return this;
  }

  /**
   * Sets how long after the beginning another attempt may begin, and how long to wait for a
   * connection (at least a second). Default: two minutes. Negative: one attempt, and two minutes
   * for the connection.
   */
  public UploadOptions retryFor(Duration limit) {
    retryFor = limit;
    return this;
  }
}
