package com.lpfileshare;

import com.lpfileshare.v1.Checksums;
import com.lpfileshare.v1.DownloadHeader;

/**
 * The result of a complete download.
 *
 * @param header what the server sent before the first byte: the file, and the range of its bytes
 * @param bytes the number of bytes that were downloaded
 * @param checksums those of all downloaded bytes, computed by this client
 * @param attempts the number of calls
 */
public record DownloadResult(
    DownloadHeader header, long bytes, Checksums checksums, int attempts) {}
