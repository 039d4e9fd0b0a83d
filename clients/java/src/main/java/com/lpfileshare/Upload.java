package com.lpfileshare;

import com.google.protobuf.ByteString;
import com.google.protobuf.UnsafeByteOperations;
import com.lpfileshare.v1.DataChunk;
import com.lpfileshare.v1.FileSharingServiceGrpc;
import com.lpfileshare.v1.FileType;
import com.lpfileshare.v1.GetUploadRequest;
import com.lpfileshare.v1.PublishMode;
import com.lpfileshare.v1.UploadFinish;
import com.lpfileshare.v1.UploadRequest;
import com.lpfileshare.v1.UploadResponse;
import com.lpfileshare.v1.UploadSpec;
import com.lpfileshare.v1.UploadState;
import io.grpc.Metadata;
import io.grpc.StatusException;
import java.io.IOException;
import java.io.InputStream;
import java.io.InterruptedIOException;
import java.time.Duration;
import java.util.Arrays;
import java.util.UUID;
import java.util.concurrent.TimeUnit;

/** One file over any number of attempts. */
final class Upload {
  private static final Duration ATTEMPT = Duration.ofMinutes(10);
  private static final Duration SETTLE = Duration.ofSeconds(10);
  // Some proxies hold headers back until the call ends.
  private static final long ACCEPT = TimeUnit.SECONDS.toNanos(5);
  private static final Metadata.Key<String> ACCEPTED =
      Metadata.Key.of("lpfs-request-id", Metadata.ASCII_STRING_MARSHALLER);

  private final Caller caller;
  private final Operation op;
  private final UploadOptions options;
  private final Source source;
  private final Pacer pace;
  private UploadSpec spec;
  private InputStream once; // the stream of a source that can be read once
  private byte[] head = {}; // of once: bytes that were read for the type
  private boolean taken; // bytes of once were sent
  private boolean finished; // an attempt has sent finish: the file may have been published

  Upload(Caller caller, UploadOptions options, Source source, Duration timeout) {
    this.caller = caller;
    this.options = options;
    this.source = source;
    String name =
        options.spec.getDisplayName().isEmpty() ? source.name() : options.spec.getDisplayName();
    this.op = new Operation(name.isEmpty() ? "upload" : "upload " + name, timeout);
    this.pace = new Pacer(op, options.retryFor);
  }

  UploadResponse run() {
    try {
      spec = describe();
      return attempts();
    } catch (LpFileShareException e) {
      throw e.attempts(pace.attempts()).upload(spec == null ? "" : spec.getRequestId(), finished);
    } finally {
      closeOnce();
    }
  }

  private UploadResponse attempts() {
    while (true) {
      pace.attempt();
      String token = caller.token(op);
      try {
        return attempt(token);
      } catch (StatusException e) {
        try {
          pace.retry(e, caller, token, this::impossible);
        } catch (Pacer.NotPossible n) {
          UploadResponse settled = settle();
          if (settled == null) {
            throw n.error;
          }
          return settled;
        }
      }
    }
  }

  private String impossible() {
    return taken
        ? "the source can be read only once; use one that is repeatable, or send the whole file again under the same request id"
        : null;
  }

  /** Reads what the spec says about the bytes. A repeatable source is read as a whole. */
  private UploadSpec describe() {
    UploadSpec.Builder b = options.spec.clone();
    if (b.getRequestId().isEmpty()) {
      b.setRequestId(UUID.randomUUID().toString());
    }
    if (b.getDisplayName().isEmpty()) {
      b.setDisplayName(source.name());
    }
    boolean detect = b.getFileType() == FileType.FILE_TYPE_UNSPECIFIED;
    if (source.repeatable()) {
      try (InputStream in = open()) {
        Sums sums = new Sums();
        byte[] buffer = new byte[64 << 10];
        long size = 0;
        for (int n = read(in, buffer); n > 0; n = read(in, buffer)) {
          op.check();
          if (size == 0) {
            head = Arrays.copyOf(buffer, Math.min(n, FileTypes.SNIFF_BYTES));
          }
          sums.update(buffer, n);
          size += n;
        }
        b.setSizeBytes(size).setChecksums(sums.message());
      } catch (IOException e) {
        throw sourceFailed(e);
      }
    } else {
      once = open();
      if (detect) {
        byte[] buffer = new byte[FileTypes.SNIFF_BYTES];
        int n = read(once, buffer);
        head = Arrays.copyOf(buffer, n);
      }
    }
    if (detect) {
      b.setFileType(FileTypes.detectOrThrow(b.getDisplayName(), head));
    }
    return b.build();
  }

  private UploadResponse attempt(String token) throws StatusException {
    try (Call<UploadRequest, UploadResponse> call =
        caller.connection.call(
            FileSharingServiceGrpc.getUploadMethod(), op, caller.metadata(token), ATTEMPT)) {
      call.reach(pace.reach());
      // A send that is refused says only that the server has ended the call. The response says how,
      // and it can be OK.
      if (call.send(UploadRequest.newBuilder().setSpec(spec).build())) {
        boolean whole = spec.getValidateOnly();
        if (!whole) {
          call.awaitHeader(ACCEPTED, ACCEPT);
          whole = sendFile(call);
        }
        if (whole) {
          call.halfClose();
        }
      }
      return call.only();
    }
  }

  /** Sends chunks and finish. False: the server has ended the call. */
  private boolean sendFile(Call<UploadRequest, UploadResponse> call) throws StatusException {
    if (call.ended()) {
      return false;
    }
    boolean measured = spec.hasSizeBytes();
    long total = measured ? spec.getSizeBytes() : -1;
    long sent = 0;
    Sums sums = new Sums();
    options.progress.report(0, total);
    try (InputStream in = source.repeatable() ? open() : InputStream.nullInputStream()) {
      while (true) {
        byte[] data =
            new byte
                [options
                    .chunkBytes]; // gRPC may use it until the call ends, so it is not used again
        int n = next(source.repeatable() ? in : once, data);
        if (n == 0) {
          break;
        }
        if (!measured) {
          sums.update(data, n);
        }
        ByteString bytes = UnsafeByteOperations.unsafeWrap(data, 0, n);
        DataChunk chunk =
            DataChunk.newBuilder()
                .setOffset(sent)
                .setData(bytes)
                .setCrc32C(Sums.crc32c(data, n))
                .build();
        if (!call.send(UploadRequest.newBuilder().setChunk(chunk).build())) {
          return false;
        }
        sent += n;
        options.progress.report(sent, total);
      }
    } catch (IOException e) {
      throw sourceFailed(e);
    }
    if (measured && sent != total) {
      String text =
          "it had "
              + total
              + " bytes first and "
              + sent
              + " now; send it when it no longer changes";
      throw new LpFileShareException.SourceFailed(op.name, text, null);
    }
    UploadFinish.Builder finish = UploadFinish.newBuilder();
    if (!measured) {
      finish.setChecksums(sums.message());
    }
    boolean done = call.send(UploadRequest.newBuilder().setFinish(finish).build());
    finished |= done;
    return done;
  }

  /** Fills data from the head and the stream. 0: the end. */
  private int next(InputStream in, byte[] data) {
    if (source.repeatable()) {
      return read(in, data);
    }
    taken = true;
    int n = Math.min(head.length, data.length);
    System.arraycopy(head, 0, data, 0, n);
    head = Arrays.copyOfRange(head, n, head.length);
    return n > 0 && n == data.length ? n : n + read(in, data, n);
  }

  private int read(InputStream in, byte[] data) {
    return read(in, data, 0);
  }

  /**
   * Reads until data is full or the stream ends. Whatever the source throws is its failure, unless
   * the caller has cancelled.
   */
  private int read(InputStream in, byte[] data, int from) {
    try {
      return in.readNBytes(data, from, data.length - from);
    } catch (IOException | RuntimeException e) {
      throw sourceFailed(e);
    }
  }

  private InputStream open() {
    try {
      return source.open();
    } catch (IOException | RuntimeException e) {
      throw sourceFailed(e);
    }
  }

  private LpFileShareException sourceFailed(Exception e) {
    if (e instanceof InterruptedIOException) {
      Thread.currentThread().interrupt();
    }
    op.check();
    String text = e.getMessage() == null ? e.toString() : e.getMessage();
    return new LpFileShareException.SourceFailed(op.name, text, e);
  }

  private void closeOnce() {
    if (once != null) {
      try {
        once.close();
      } catch (IOException e) {
        // The upload has its result.
      }
    }
  }

  /**
   * Returns the result of an upload whose response was lost and that cannot be sent again. Null: it
   * is not known to be done.
   */
  private UploadResponse settle() {
    String name = Texts.uploadName(spec.getConversation(), spec.getRequestId());
    if (!finished || name.isEmpty()) {
      return null;
    }
    try {
      GetUploadRequest request = GetUploadRequest.newBuilder().setName(name).build();
      Duration limit =
          op.remaining() < SETTLE.toNanos() ? Duration.ofNanos(op.remaining()) : SETTLE;
      Operation ask = new Operation("get upload", limit);
      com.lpfileshare.v1.Upload u =
          caller.unary(ask, FileSharingServiceGrpc.getGetUploadMethod(), request).getUpload();
      boolean storeOnly = spec.getPublishMode() == PublishMode.PUBLISH_MODE_STORE_ONLY;
      if (u.getState() != UploadState.UPLOAD_STATE_PUBLISHED
          && !(storeOnly && u.getState() == UploadState.UPLOAD_STATE_STORED)) {
        return null;
      }
      UploadResponse.Builder b =
          UploadResponse.newBuilder()
              .setFile(u.getFile())
              .setRequestId(spec.getRequestId())
              .setUpload(name)
              .setReplayed(true);
      return u.hasImage() ? b.setImage(u.getImage()).build() : b.build();
    } catch (LpFileShareException e) {
      return null;
    }
  }
}
