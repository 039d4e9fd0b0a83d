package com.lpfileshare;

import io.grpc.Status;
import io.grpc.StatusException;
import java.time.Duration;
import java.util.concurrent.ThreadLocalRandom;
import java.util.concurrent.TimeUnit;
import java.util.function.Consumer;
import java.util.function.Supplier;

/** Decides whether and when a call that failed is made again. It serves one operation. */
final class Pacer {
  static final Duration TRANSFER = Duration.ofMinutes(2);

  private static final long FIRST_PAUSE = TimeUnit.MILLISECONDS.toNanos(200);
  private static final long LONGEST_PAUSE = TimeUnit.SECONDS.toNanos(5);
  // The minimum time to wait for a connection, however little of the time limit is left.
  private static final long LEAST_REACH = TimeUnit.SECONDS.toNanos(1);

  /** A verdict says whether a failed call is made again. */
  enum Verdict {
    FINAL,
    REPEAT,
    /** At most two tries in all. */
    REPEAT_ONCE
  }

  private final Operation op;
  private final long
      limit; // how long after the beginning, or the last progress, an attempt may begin; negative:
  // one attempt only
  private final int maxAttempts;
  private Consumer<LpFileShareException> waiting = e -> {};
  private long since = System.nanoTime(); // the beginning, or the last progress
  private long pause = FIRST_PAUSE;
  private int internal; // INTERNAL errors without ErrorInfo since the last progress
  private boolean renewed; // the token was renewed since the last progress
  private int attempts;

  Pacer(Operation op, Duration limit, int maxAttempts) {
    this.op = op;
    this.limit =
        limit.getSeconds() > Long.MAX_VALUE / 2_000_000_000L ? Long.MAX_VALUE : limit.toNanos();
    this.maxAttempts = maxAttempts;
  }

  Pacer(Operation op, Duration limit) {
    this(op, limit, Integer.MAX_VALUE);
  }

  /** Sets what is called before a wait for the next attempt. */
  void onWait(Consumer<LpFileShareException> listener) {
    waiting = listener;
  }

  /** Counts an attempt that begins. */
  void attempt() {
    attempts++;
  }

  int attempts() {
    return attempts;
  }

  /** Resets time limit, backoff and counters. */
  void progress() {
    since = System.nanoTime();
    internal = 0;
    renewed = false;
    pause = FIRST_PAUSE;
  }

  /** Returns how long an attempt may wait for a connection, in nanoseconds. */
  long reach() {
    return Math.max(
        (limit < 0 ? TRANSFER.toNanos() : limit) - (System.nanoTime() - since), LEAST_REACH);
  }

  /**
   * Applies the retry rule of the contract (see ErrorReason in error_reason.proto) to the status of
   * a call. Which conditions of the server are repeatable is the server's decision alone: it adds
   * RetryInfo to them.
   */
  static Verdict judge(StatusException e) {
    if (e instanceof DamagedException) {
      return Verdict.REPEAT;
    }
    LpFileShareException.Details details = LpFileShareException.Details.of(e);
    if (details.info() != null) {
      return details.retryAfter() != null ? Verdict.REPEAT : Verdict.FINAL;
    }
    return switch (e.getStatus().getCode()) {
      case UNAVAILABLE, CANCELLED, UNKNOWN -> Verdict.REPEAT; // the connection broke
      case INTERNAL -> Verdict.REPEAT_ONCE; // the same, or a proxy that rejects the request
      default -> Verdict.FINAL;
    };
  }

  /**
   * Returns when the next attempt is to be made, after it has waited for it, and otherwise throws
   * the error to report. e is the status of the last attempt, which caller made with token.
   * impossible returns why no attempt can follow, or null.
   */
  void retry(StatusException e, Caller caller, String token, Supplier<String> impossible) {
    op.check();
    if (caller.closed()) {
      throw new LpFileShareException.Cancelled(op.name).attempts(attempts);
    }
    LpFileShareException error = LpFileShareException.of(op.name, e).attempts(attempts);
    boolean renewedNow = !renewed && caller.renew(op, error, token);
    renewed |= renewedNow;
    Verdict verdict = judge(e);
    if (verdict == Verdict.REPEAT_ONCE) {
      internal++;
    }
    if (!renewedNow && (verdict == Verdict.FINAL || internal > 1)) {
      throw error;
    }
    String why = impossible.get();
    if (why != null) {
      throw new NotPossible(error.notRepeated(why));
    }
    if (!renewedNow) {
      pause(error);
    }
  }

  /** Waits until the next attempt may begin, or throws the error. */
  private void pause(LpFileShareException error) {
    long delay = (long) (pause * ThreadLocalRandom.current().nextDouble(0.5, 1.5));
    pause = Math.min(pause * 2, LONGEST_PAUSE);
    long asked = error.retryAfter().orElse(Duration.ZERO).toNanos();
    if (asked > delay) {
      delay =
          asked
              + ThreadLocalRandom.current()
                  .nextLong(asked / 5 + 1); // spreads callers that got the same delay
    }
    if (limit < 0) {
      throw error.notRepeated("retries are disabled");
    }
    if (attempts >= maxAttempts) {
      throw error.notRepeated("the limit is " + maxAttempts + " attempts");
    }
    if (delay > limit - (System.nanoTime() - since)) {
      throw error.notRepeated(
          "the next attempt would begin more than "
              + Texts.seconds(limit)
              + " after the start or the last progress");
    }
    waiting.accept(error);
    op.sleep(delay);
  }

  /** Carries the error of an attempt that cannot be repeated because of its source or sink. */
  static final class NotPossible extends RuntimeException {
    private static final long serialVersionUID = 1;
    final LpFileShareException error;

    NotPossible(LpFileShareException error) {
      super(error);
      this.error = error;
    }
  }

  /**
   * Means that bytes were damaged or lost between server and client. Another attempt may succeed.
   */
  static final class DamagedException extends StatusException {
    private static final long serialVersionUID = 1;

    DamagedException(String what) {
      super(Status.DATA_LOSS.withDescription(what));
    }
  }
}
