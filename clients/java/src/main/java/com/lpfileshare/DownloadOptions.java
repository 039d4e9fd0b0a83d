package com.lpfileshare;

import com.lpfileshare.v1.ChecksumKind;
import com.lpfileshare.v1.DownloadRequest;
import com.lpfileshare.v1.StorageRef;
import java.time.Duration;

/** Says which file to download, and which part of it. */
public final class DownloadOptions {
  final DownloadRequest.Builder request = DownloadRequest.newBuilder();
  Progress progress = (received, total) -> {};
  Duration retryFor = Pacer.TRANSFER;

  private DownloadOptions() {}

  /** Begins options for a file, accounts/{account}/conversations/{conversation}/files/{file}. */
  public static DownloadOptions of(String name) {
    DownloadOptions o = new DownloadOptions();
    o.request.setName(name);
    return o;
  }

  /** Begins options for a file by LivePerson's relativePath, "/v1/AUTH_...". */
  public static DownloadOptions of(StorageRef ref) {
    DownloadOptions o = new DownloadOptions();
    o.request.setStorage(ref);
    return o;
  }

  /** Sets the first byte. Negative: this many bytes before the end. */
  public DownloadOptions offset(long bytes) {
    request.setReadOffset(bytes);
    return this;
  }

  /** Sets the maximum number of bytes. 0, the default: to the end. */
  public DownloadOptions limit(long bytes) {
    request.setReadLimit(bytes);
    return this;
  }

  /** Makes the download fail with FILE_CHANGED unless the file has this ETag. */
  public DownloadOptions ifMatchEtag(String etag) {
    request.setIfMatchEtag(etag);
    return this;
  }

  /** Sets the maximum number of bytes in a message, 1 KiB to 1 MiB. 0: the server's default. */
  public DownloadOptions chunkBytes(int n) {
    request.setMaxChunkBytes(n);
    return this;
  }

  /** Verifies SHA-256 too. CRC-32C always is. */
  public DownloadOptions verifySha256() {
    request.clearWantChecksums().addWantChecksums(ChecksumKind.CHECKSUM_KIND_SHA256);
    return this;
  }

  /** Sets what receives the number of bytes that were verified, and of all. */
  public DownloadOptions onProgress(Progress listener) {
    progress = listener;
    return this;
  }

  /**
   * Sets how long after the last progress another attempt may begin, and how long to wait for a
   * connection (at least a second). Default: two minutes. Negative: one attempt, and two minutes
   * for the connection.
   */
  public DownloadOptions retryFor(Duration limit) {
    retryFor = limit;
    return this;
  }
}
