package com.lpfileshare;

import com.google.protobuf.Any;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.rpc.BadRequest;
import com.google.rpc.ErrorInfo;
import com.google.rpc.RetryInfo;
import com.lpfileshare.v1.ErrorReason;
import io.grpc.Status;
import io.grpc.StatusException;
import io.grpc.protobuf.StatusProto;
import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.Optional;

/**
 * A failed operation. Its subclasses are the caller's own end of it ({@link Cancelled}, {@link
 * DeadlineExceeded}), a failed source or sink, and a watch that must begin again. Wrong arguments
 * are an IllegalArgumentException instead.
 */
public class LpFileShareException extends RuntimeException {
  private static final long serialVersionUID = 1;
  private static final String DOMAIN = "lpfileshare";
  private static final String REASON_PREFIX = "ERROR_REASON_";

  /**
   * An invalid field of a request: its path, for example "spec.file_type", and what is wrong with
   * it.
   */
  public record FieldViolation(String field, String description) {}

  private final String operation;
  private final Status.Code code;
  private final String statusMessage;
  private final transient Details details;
  private String requestId = "";
  private int attempts;
  private String notRepeated = "";
  private boolean finished;

  LpFileShareException(String operation, Status status, Details details, Throwable cause) {
    super(cause);
    this.operation = operation;
    this.code = status.getCode();
    this.statusMessage = status.getDescription() == null ? "" : status.getDescription();
    this.details = details;
  }

  /** Converts the status of a call. */
  static LpFileShareException of(String operation, StatusException e) {
    Details details = Details.of(e);
    Status status = e.getStatus();
    if (details.reason().equals("WATCH_RESET")) {
      return new WatchReset(operation, status, details);
    }
    if (status.getCode() == Status.Code.DEADLINE_EXCEEDED && details.info() == null) {
      return new DeadlineExceeded(operation);
    }
    // The cause of a broken connection says more than the status, for example "Connection refused".
    Throwable cause = status.getCause();
    if (cause != null && cause.getMessage() != null && details.info() == null) {
      status = status.augmentDescription(cause.getMessage());
    }
    return new LpFileShareException(operation, status, details, cause);
  }

  /** Returns the gRPC code. */
  public Status.Code code() {
    return code;
  }

  /**
   * Returns the named condition. Unspecified: the server did not create the error, or the reason is
   * newer than this client.
   */
  public ErrorReason reason() {
    try {
      return ErrorReason.valueOf(REASON_PREFIX + reasonName());
    } catch (IllegalArgumentException e) {
      return ErrorReason.ERROR_REASON_UNSPECIFIED;
    }
  }

  /**
   * Returns the reason as ErrorInfo spells it, for example "FILE_TOO_LARGE". Empty: the server did
   * not create the error.
   */
  public String reasonName() {
    return details().reason();
  }

  /** Returns the message of the status, without what {@link #getMessage} adds. */
  public String statusMessage() {
    return statusMessage;
  }

  /** Returns the details that the reason's comment promises, for example "maxBytes". */
  public Map<String, String> metadata() {
    return details().info() == null ? Map.of() : details().info().getMetadataMap();
  }

  /** Returns the invalid fields of the request, if any. */
  public List<FieldViolation> violations() {
    return details().violations();
  }

  /** Returns the delay that the server asks for before a repeat. Empty: it did not ask for one. */
  public Optional<Duration> retryAfter() {
    return Optional.ofNullable(details().retryAfter());
  }

  /**
   * Returns the request id of a failed upload. Set it in UploadOptions to repeat the upload. Empty
   * for other operations.
   */
  public String requestId() {
    return requestId;
  }

  /** Returns the number of attempts that were made. */
  public int attempts() {
    return attempts;
  }

  /**
   * Returns why a repeatable error was not followed by another attempt. Empty if that does not
   * apply.
   */
  public String notRepeated() {
    return notRepeated;
  }

  /**
   * Returns whether a failed upload was sent to its end at least once. If so, it may have been
   * published; otherwise it was not.
   */
  public boolean finished() {
    return finished;
  }

  /** Returns what to do about the error. Empty: there is no advice. */
  public String advice() {
    return Advice.of(code, reasonName());
  }

  /** Returns what happened and what to do about it. */
  @Override
  public String getMessage() {
    StringBuilder text = new StringBuilder(operation).append(": ").append(statusMessage);
    String separator = ": ";
    for (FieldViolation v : violations()) {
      if (!statusMessage.contains(v.description())) {
        text.append(separator).append(v.field()).append(": ").append(v.description());
        separator = "; ";
      }
    }
    text.append(" [").append(reasonName().isEmpty() ? code : reasonName()).append(']');
    if (attempts > 1) {
      text.append(" (after ").append(attempts).append(" attempts)");
    }
    if (!notRepeated.isEmpty()) {
      text.append("; not repeated: ").append(notRepeated);
    }
    return advice().isEmpty() ? text.toString() : text.append(". ").append(advice()).toString();
  }

  LpFileShareException attempts(int n) {
    attempts = n;
    return this;
  }

  LpFileShareException notRepeated(String why) {
    notRepeated = why;
    return this;
  }

  LpFileShareException upload(String id, boolean sentToTheEnd) {
    requestId = id;
    finished = sentToTheEnd;
    return this;
  }

  private Details details() {
    return details == null ? Details.NONE : details; // null after deserialization
  }

  /** What the status of a call carries. info and retryAfter may be null. */
  record Details(ErrorInfo info, Duration retryAfter, List<FieldViolation> violations) {
    static final Details NONE = new Details(null, null, List.of());

    static Details of(StatusException e) {
      ErrorInfo info = null;
      Duration retryAfter = null;
      List<FieldViolation> violations = List.of();
      for (Any any : StatusProto.fromThrowable(e).getDetailsList()) {
        try {
          if (any.is(ErrorInfo.class)) {
            ErrorInfo found = any.unpack(ErrorInfo.class);
            info = found.getDomain().equals(DOMAIN) ? found : info;
          } else if (any.is(RetryInfo.class)) {
            com.google.protobuf.Duration delay = any.unpack(RetryInfo.class).getRetryDelay();
            retryAfter = Duration.ofSeconds(delay.getSeconds(), delay.getNanos());
          } else if (any.is(BadRequest.class)) {
            violations =
                any.unpack(BadRequest.class).getFieldViolationsList().stream()
                    .map(v -> new FieldViolation(v.getField(), v.getDescription()))
                    .toList();
          }
        } catch (InvalidProtocolBufferException damaged) {
          // A detail that cannot be read is none.
        }
      }
      return new Details(info, retryAfter, violations);
    }

    String reason() {
      return info == null ? "" : info.getReason();
    }
  }

  /**
   * The caller cancelled: it interrupted the thread (whose flag stays set), cancelled the future,
   * or closed what was in use.
   */
  public static final class Cancelled extends LpFileShareException {
    private static final long serialVersionUID = 1;

    Cancelled(String operation) {
      super(operation, Status.CANCELLED.withDescription("cancelled"), Details.NONE, null);
    }
  }

  /** The deadline passed: the caller's, or that of a single call. */
  public static final class DeadlineExceeded extends LpFileShareException {
    private static final long serialVersionUID = 1;

    DeadlineExceeded(String operation) {
      super(
          operation,
          Status.DEADLINE_EXCEEDED.withDescription("deadline exceeded"),
          Details.NONE,
          null);
    }
  }

  /**
   * The source of an upload failed. Nothing was stored. The cause is its exception, unless it
   * changed between two passes.
   */
  public static final class SourceFailed extends LpFileShareException {
    private static final long serialVersionUID = 1;

    SourceFailed(String operation, String message, Throwable cause) {
      super(
          operation,
          Status.ABORTED.withDescription("read source: " + message),
          Details.NONE,
          cause);
    }
  }

  /** The destination of a download failed. The cause is its exception. */
  public static final class SinkFailed extends LpFileShareException {
    private static final long serialVersionUID = 1;

    SinkFailed(String operation, Throwable cause) {
      super(
          operation,
          Status.ABORTED.withDescription("write: " + cause.getMessage()),
          Details.NONE,
          cause);
    }
  }

  /**
   * A watch cannot continue from its token without missing or repeating a file. List the files
   * again, and watch from {@link FileList#watchToken}.
   */
  public static final class WatchReset extends LpFileShareException {
    private static final long serialVersionUID = 1;

    WatchReset(String operation, Status status, Details details) {
      super(operation, status, details, null);
    }
  }
}
