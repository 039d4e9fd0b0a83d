package com.lpfileshare;

import com.google.protobuf.ByteString;
import com.lpfileshare.v1.Checksums;
import com.lpfileshare.v1.ContentRange;
import com.lpfileshare.v1.DataChunk;
import com.lpfileshare.v1.DownloadHeader;
import com.lpfileshare.v1.DownloadRequest;
import com.lpfileshare.v1.DownloadResponse;
import com.lpfileshare.v1.DownloadTrailer;
import com.lpfileshare.v1.FileSharingServiceGrpc;
import io.grpc.Status;
import io.grpc.StatusException;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.security.MessageDigest;
import java.time.Duration;
import java.util.Arrays;
import java.util.Objects;
import java.util.zip.CRC32C;

/**
 * Reads a file, or a part of it. Every chunk is verified before it is read. Before the end is
 * reported, the whole is verified against the trailer and, if the whole file is read, against the
 * MD5 that the store states. If the connection or the store breaks off, it continues with the next
 * byte of the same object. If the object was replaced, it fails with FILE_CHANGED. After a failure,
 * the bytes that were read are a correct beginning of the file, unless the failure says that the
 * file was damaged in the store or on the way from it.
 *
 * <p>Its methods throw {@link LpFileShareException}, not IOException. It is not safe for concurrent
 * use, except that {@link #close} may be called at any time. The caller closes it.
 */
public final class DownloadStream extends InputStream {
  private static final Duration ATTEMPT = Duration.ofMinutes(10);
  private static final byte[] NONE = {};

  private final Caller caller;
  private final DownloadRequest first;
  private final Progress progress;
  private final Operation op;
  private final Pacer pace;
  private final Sums sums = new Sums();
  // Compared with the header's stored_md5. Null: the store states none, or only a part is read.
  private MessageDigest md5;
  private DownloadHeader header; // of the first call; null: not received yet
  private long received; // number of bytes that were verified
  private byte last; // the last one of them
  private DownloadResult result; // null: not complete
  private LpFileShareException failure; // ends the download. Null: it has not failed
  private Part part; // the open call; null: none
  private byte[] data = NONE; // verified, and not read from position on
  private int position;

  DownloadStream(Caller caller, DownloadOptions options, Duration timeout) {
    this.caller = caller;
    this.first = options.request.build();
    this.progress = options.progress;
    this.op = new Operation("download", timeout);
    this.pace = new Pacer(op, options.retryFor);
  }

  /** Reads the first bytes, so that a missing file is reported now. */
  DownloadStream start() {
    try {
      data = next();
      return this;
    } catch (LpFileShareException e) {
      close();
      throw e;
    }
  }

  /** Returns the file, and the range of its bytes. */
  public DownloadHeader header() {
    return header;
  }

  /** Returns the result, once the end was read. */
  public DownloadResult result() {
    if (result == null) {
      throw new IllegalStateException("the download is not complete");
    }
    return result;
  }

  @Override
  public int read() {
    byte[] one = new byte[1];
    return read(one, 0, 1) < 0 ? -1 : one[0] & 0xff;
  }

  @Override
  public int read(byte[] into, int offset, int length) {
    Objects.checkFromIndexSize(offset, length, into.length);
    if (length == 0) {
      return 0;
    }
    if (data == null || position == data.length) {
      data = next();
      position = 0;
    }
    if (data == null) {
      return -1;
    }
    int n = Math.min(length, data.length - position);
    System.arraycopy(data, position, into, offset, n);
    position += n;
    return n;
  }

  @Override
  public int available() {
    return data == null ? 0 : data.length - position;
  }

  /** Writes all bytes to a stream, which is not closed. */
  DownloadResult writeTo(OutputStream out) {
    for (byte[] bytes = next(); bytes != null; bytes = next()) {
      try {
        out.write(bytes);
      } catch (IOException | RuntimeException e) {
        op.check();
        throw new LpFileShareException.SinkFailed(op.name, e).attempts(pace.attempts());
      }
    }
    return result;
  }

  /** Ends the download. */
  @Override
  public void close() {
    op.cancel();
    Part open = part;
    if (open != null) {
      open.call.close();
    }
  }

  /** Returns the next bytes, verified. Null: the download is complete. */
  private byte[] next() {
    if (failure != null) {
      throw failure;
    }
    try {
      return pull();
    } catch (LpFileShareException e) {
      failure = e;
      throw e;
    }
  }

  private byte[] pull() {
    while (result == null) {
      String token = "";
      try {
        if (part == null) {
          pace.attempt();
          token = caller.token(op);
          part = open(token);
        }
        token = part.token;
        byte[] bytes = part.receive();
        if (bytes == null) {
          endPart();
          result = new DownloadResult(header, received, sums.message(), pace.attempts());
        } else if (bytes.length > 0) {
          sums.update(bytes, bytes.length);
          if (md5 != null) {
            md5.update(bytes);
          }
          received += bytes.length;
          last = bytes[bytes.length - 1];
          pace.progress();
          ContentRange r = header.getContentRange();
          progress.report(received, r.getEndBytes() - r.getStartBytes());
          return bytes;
        }
      } catch (StatusException e) {
        endPart();
        try {
          pace.retry(e, caller, token, this::impossible);
        } catch (Pacer.NotPossible n) {
          throw n.error;
        }
      } catch (LpFileShareException e) {
        endPart();
        throw e.attempts(pace.attempts());
      }
    }
    return null;
  }

  private void endPart() {
    if (part != null) {
      part.call.close();
      part = null;
    }
  }

  private String impossible() {
    return received > 0 && header.getFile().getEtag().isEmpty()
        ? "the server sent no ETag, so the rest could be of another file"
        : null;
  }

  /**
   * Begins a call for the missing bytes. If only the trailer is missing, it requests the last byte
   * again, because a download without a trailer is not complete.
   */
  private Part open(String token) throws StatusException {
    DownloadRequest request = first;
    int skip = 0;
    if (header != null && (received > 0 || !header.getFile().getEtag().isEmpty())) {
      ContentRange r = header.getContentRange();
      long next = r.getStartBytes() + received;
      if (next == r.getEndBytes() && received > 0) {
        next--;
        skip = 1;
      }
      request =
          first.toBuilder()
              .setReadOffset(next)
              .setReadLimit(r.getEndBytes() - next)
              .setIfMatchEtag(header.getFile().getEtag())
              .build();
    }
    Call<DownloadRequest, DownloadResponse> call =
        caller.connection.call(
            FileSharingServiceGrpc.getDownloadMethod(), op, caller.metadata(token), ATTEMPT);
    Part opened = new Part(call, token, skip);
    try {
      call.reach(pace.reach());
      call.sendOnly(request);
      return opened;
    } catch (StatusException | LpFileShareException e) {
      call.close();
      throw e;
    }
  }

  /** An error of a server that does not keep to the contract. It is not repeated. */
  private static StatusException violation(String text) {
    return Status.DATA_LOSS.withDescription(text).asException();
  }

  private static StatusException damaged(String text) {
    return new Pacer.DamagedException(text);
  }

  /** The response of one call. */
  private final class Part {
    final Call<DownloadRequest, DownloadResponse> call;
    final String token;
    private int skip; // number of bytes at the beginning that an earlier call has returned
    private final CRC32C crc = new CRC32C();
    // Null: not requested.
    private final MessageDigest sha =
        first.getWantChecksumsCount() > 0 ? Sums.digest("SHA-256") : null;
    private ContentRange range; // null: no header yet
    private long offset; // of the next chunk
    private boolean complete;

    Part(Call<DownloadRequest, DownloadResponse> call, String token, int skip) {
      this.call = call;
      this.token = token;
      this.skip = skip;
    }

    /**
     * Receives one message and returns its bytes. Null: the call has ended after a valid trailer.
     */
    byte[] receive() throws StatusException {
      DownloadResponse m = call.next();
      if (m == null) {
        if (!complete) {
          throw damaged("the download ended without a trailer");
        }
        if (md5 != null && !header.getStoredMd5().equals(ByteString.copyFrom(md5.digest()))) {
          throw violation(
              "the file does not have the MD5 that the store states: it was damaged in the store, or on the way from it to the server; discard it");
        }
        return null;
      }
      switch (m.getPayloadCase()) {
        case HEADER -> begin(m.getHeader());
        case CHUNK -> {
          return chunk(m.getChunk());
        }
        case TRAILER -> finish(m.getTrailer());
        default -> throw violation("the server sent a message of an unknown kind");
      }
      return NONE;
    }

    private void begin(DownloadHeader h) throws StatusException {
      ContentRange r = h.getContentRange();
      if (range != null) {
        throw violation("the server sent a second header");
      }
      if (r.getStartBytes() < 0
          || r.getStartBytes() > r.getEndBytes()
          || r.getEndBytes() > r.getTotalBytes()) {
        throw violation("the server sent an impossible range: " + text(r));
      }
      range = r;
      offset = r.getStartBytes();
      if (header == null) {
        header = h;
        if (!h.getStoredMd5().isEmpty()
            && r.getStartBytes() == 0
            && r.getEndBytes() == r.getTotalBytes()) {
          md5 = Sums.digest("MD5");
        }
        progress.report(0, r.getEndBytes() - r.getStartBytes());
        return;
      }
      ContentRange f = header.getContentRange();
      if (r.getStartBytes() != f.getStartBytes() + received - skip
          || r.getEndBytes() != f.getEndBytes()
          || r.getTotalBytes() != f.getTotalBytes()
          || !h.getFile().getEtag().equals(header.getFile().getEtag())) {
        throw violation("the server continued with other bytes than requested: " + text(r));
      }
    }

    private byte[] chunk(DataChunk c) throws StatusException {
      // One copy: a checksum of a ByteString copies it piece by piece.
      byte[] bytes = c.getData().toByteArray();
      if (range == null || complete) {
        throw violation("the server sent bytes before the header or after the trailer");
      }
      if (c.getOffset() != offset) {
        throw violation("the server sent byte " + c.getOffset() + " instead of byte " + offset);
      }
      if (bytes.length > range.getEndBytes() - offset) {
        throw violation(
            "the server sent more bytes than the " + range.getEndBytes() + " that it announced");
      }
      if (!c.hasCrc32C()) {
        throw violation("the server sent bytes without a checksum");
      }
      if (Sums.crc32c(bytes, bytes.length) != c.getCrc32C()) {
        throw damaged("the bytes from offset " + offset + " on were damaged in transit");
      }
      offset += bytes.length;
      crc.update(bytes);
      if (sha != null) {
        sha.update(bytes);
      }
      if (skip > 0 && bytes.length > 0) {
        if (bytes[0] != last) {
          throw violation("the file has changed, although its ETag has not");
        }
        skip = 0;
        return Arrays.copyOfRange(bytes, 1, bytes.length);
      }
      return bytes;
    }

    private void finish(DownloadTrailer t) throws StatusException {
      if (range == null || complete) {
        throw violation("the server sent a trailer before the header, or a second one");
      }
      if (offset != range.getEndBytes()) {
        throw damaged(
            "the server ended the download "
                + (range.getEndBytes() - offset)
                + " bytes before its end");
      }
      long sent = offset - range.getStartBytes();
      if (t.getSentBytes() != sent) {
        throw damaged(sent + " bytes arrived of " + t.getSentBytes() + " that were sent");
      }
      Checksums want = t.getSentChecksums();
      if (!want.hasCrc32C()) {
        throw violation("the server sent a trailer without a checksum");
      }
      if (sha != null && want.getSha256().isEmpty()) {
        throw violation("the server sent a trailer without the requested SHA-256");
      }
      if (want.getCrc32C() != (int) crc.getValue()
          || sha != null && !want.getSha256().equals(ByteString.copyFrom(sha.digest()))) {
        throw violation(
            "the checksums of the sent and the received bytes differ, although each chunk was correct; download the file again");
      }
      complete = true;
    }

    private String text(ContentRange r) {
      return r.getStartBytes() + " to " + r.getEndBytes() + " of " + r.getTotalBytes();
    }
  }
}
