package com.lpfileshare;

import com.lpfileshare.v1.File;
import com.lpfileshare.v1.FileSharingServiceGrpc;
import com.lpfileshare.v1.WatchFilesRequest;
import com.lpfileshare.v1.WatchFilesResponse;
import io.grpc.Status;
import io.grpc.StatusException;
import java.time.Duration;
import java.util.Iterator;
import java.util.NoSuchElementException;
import java.util.Optional;
import java.util.concurrent.TimeUnit;

/**
 * Returns each file as it is published, by any sender: iterate over it. The iterator blocks until
 * the next file. It continues from its last message if the connection breaks or stays silent, or
 * the server shuts down, and otherwise throws {@link LpFileShareException}.
 *
 * <p>It must not be iterated over concurrently. {@link #close} may be called at any time and ends
 * the iteration; the caller calls it.
 */
public final class FileWatch implements Iterator<File>, Iterable<File>, AutoCloseable {
  private static final int MISSED_HEARTBEATS =
      3; // a watch without a message for this many intervals is dead
  private static final Duration FIRST_SILENCE =
      Duration.ofSeconds(90); // until a heartbeat has reported the interval
  private static final Duration LEAST_SILENCE =
      Duration.ofSeconds(1); // a busy machine is not a dead one
  private static final Duration AGE =
      Duration.ofMinutes(25); // then it is opened again, so that every call has an end
  private static final long STEADY =
      TimeUnit.SECONDS.toNanos(10); // a call that has sent messages for this long is progress

  private final Caller caller;
  private final WatchOptions options;
  private final Operation op;
  private final Pacer pace;
  private long silence; // nanoseconds without any message after which the call is given up
  private Boolean open; // what onConnection reported last; null: nothing
  private File next;
  private volatile String token;
  private volatile boolean closed;

  private Call<WatchFilesRequest, WatchFilesResponse> call; // null: none
  private String callToken = ""; // the identity's token of the call
  private long begun; // when the call began
  private long firstMessage; // when its first message arrived; 0: not yet

  FileWatch(Caller caller, WatchOptions options, Duration timeout) {
    this.caller = caller;
    this.options = options;
    this.op = new Operation("watch", timeout);
    this.pace = new Pacer(op, options.retryFor);
    this.pace.onWait(e -> connection(Optional.of(e)));
    this.token = options.token;
    this.silence = (options.maxSilence.isZero() ? FIRST_SILENCE : options.maxSilence).toNanos();
  }

  /**
   * Returns the token that continues the watch, in this or another process, after the last message
   * that arrived. That is after the file that {@link #next} returned last: store it when the file
   * is processed. Heartbeats advance it too. Any thread may call it.
   */
  public String token() {
    return token;
  }

  /** Returns this. */
  @Override
  public Iterator<File> iterator() {
    return this;
  }

  /** Waits for the next file. False: the watch was closed. */
  @Override
  public boolean hasNext() {
    while (next == null && !closed) {
      try {
        receive();
      } catch (StatusException e) {
        end();
        retry(e);
      } catch (LpFileShareException e) {
        end();
        if (!closed) {
          throw e.attempts(pace.attempts());
        }
      }
    }
    return next != null;
  }

  private void retry(StatusException e) {
    try {
      pace.retry(e, caller, callToken, () -> null);
    } catch (LpFileShareException error) {
      if (!closed) {
        throw error;
      }
    }
  }

  @Override
  public File next() {
    if (!hasNext()) {
      throw new NoSuchElementException();
    }
    File file = next;
    next = null;
    return file;
  }

  /** Ends the watch. */
  @Override
  public void close() {
    closed = true;
    op.cancel();
    Call<?, ?> running = call;
    if (running != null) {
      running.close();
    }
  }

  private void end() {
    if (call != null) {
      call.close();
      call = null;
    }
  }

  /** Receives one message of the call, or of a new one. */
  private void receive() throws StatusException {
    if (call == null) {
      pace.attempt();
      callToken = caller.token(op);
      begun = System.nanoTime();
      firstMessage = 0;
      call =
          caller.connection.call(
              FileSharingServiceGrpc.getWatchFilesMethod(), op, caller.metadata(callToken), null);
      call.reach(Math.min(silence, pace.reach()));
      call.sendOnly(
          WatchFilesRequest.newBuilder().setParent(options.parent).setResumeToken(token).build());
    }
    long age = AGE.toNanos() - (System.nanoTime() - begun);
    if (!call.awaitNext(Math.min(silence, age))) {
      if (age <= silence) {
        end(); // and open it again
        return;
      }
      throw Status.UNAVAILABLE
          .withDescription("no message for " + Texts.seconds(silence))
          .asException();
    }
    WatchFilesResponse m = call.next();
    if (m == null) {
      throw Status.UNAVAILABLE.withDescription("the server ended the watch").asException();
    }
    handle(m);
  }

  private void handle(WatchFilesResponse m) {
    if (firstMessage == 0) {
      firstMessage = System.nanoTime();
    }
    connection(Optional.empty());
    if (!m.getResumeToken().isEmpty()) {
      token = m.getResumeToken();
    }
    switch (m.getEventCase()) {
      case HEARTBEAT -> {
        long interval = nanos(m.getHeartbeat().getInterval());
        if (interval > 0 && options.maxSilence.isZero()) {
          silence = Math.max(MISSED_HEARTBEATS * interval, LEAST_SILENCE.toNanos());
        }
        // The first heartbeat is no progress: a server that ends each call right after it would be
        // called without backoff.
        if (System.nanoTime() - firstMessage >= STEADY) {
          pace.progress();
        }
      }
      case FILE -> {
        pace.progress();
        next = m.getFile();
      }
      case UNREADABLE_CONVERSATION -> options.unreadable.accept(m.getUnreadableConversation());
      default -> {} // an event of a newer server
    }
  }

  private static long nanos(com.google.protobuf.Duration d) {
    return Duration.ofSeconds(d.getSeconds(), d.getNanos()).toNanos();
  }

  private void connection(Optional<LpFileShareException> lost) {
    if (open == null || open != lost.isEmpty()) {
      open = lost.isEmpty();
      options.connection.accept(lost);
    }
  }
}
