package com.lpfileshare;

import io.grpc.Attributes;
import io.grpc.CallOptions;
import io.grpc.ClientCall;
import io.grpc.ClientStreamTracer;
import io.grpc.ManagedChannel;
import io.grpc.Metadata;
import io.grpc.MethodDescriptor;
import io.grpc.Status;
import io.grpc.StatusException;
import java.time.Duration;
import java.util.ArrayDeque;
import java.util.Queue;
import java.util.concurrent.TimeUnit;

/**
 * One gRPC call that the caller's thread drives. Unlike a StreamObserver it does not buffer what is
 * sent: {@link #send} waits until the transport is ready. All state is guarded by the operation.
 */
final class Call<Q, R> implements AutoCloseable {
  private static final int PREFETCH = 4; // messages that are received ahead
  // Bytes that gRPC may queue before send waits. Its default of 32 KiB is less than a chunk: the
  // caller's thread and that of the transport would wait for each other after every message.
  private static final int QUEUE = 256 << 10;
  private static final long RECONNECT = TimeUnit.SECONDS.toNanos(1);
  // The operation's own deadline is to end a call before the server's copy of it does, so that the
  // status is no race.
  private static final long MARGIN = TimeUnit.SECONDS.toNanos(2);

  private final ManagedChannel channel;
  private final Operation op;
  private final ClientCall<Q, R> call;
  private final Queue<R> messages = new ArrayDeque<>();
  private boolean reached; // there is a connection
  private Metadata header;
  private Status status; // null: the call goes on
  private Metadata trailer;

  /** Begins a call, which may take as long as limit. A null limit means no limit. */
  Call(
      ManagedChannel channel,
      MethodDescriptor<Q, R> method,
      Operation op,
      Metadata metadata,
      Duration limit) {
    this.channel = channel;
    this.op = op;
    op.check();
    long nanos = limit == null ? Long.MAX_VALUE : limit.toNanos();
    if (op.remaining() < nanos) {
      nanos = op.remaining() + MARGIN;
    }
    CallOptions options =
        CallOptions.DEFAULT
            .withWaitForReady()
            .withExecutor(Runnable::run)
            .withOnReadyThreshold(QUEUE)
            .withStreamTracerFactory(new Tracer());
    if (nanos != Long.MAX_VALUE) {
      options = options.withDeadlineAfter(nanos, TimeUnit.NANOSECONDS);
    }
    call = channel.newCall(method, options);
    call.start(new Listener(), metadata);
    call.request(PREFETCH);
  }

  /**
   * Waits for a connection, at most for limit nanoseconds. gRPC's own pause between connects can be
   * minutes, so this ends it.
   */
  void reach(long limit) throws StatusException {
    long start = System.nanoTime();
    while (!op.await(
        () -> reached || status != null,
        Math.min(RECONNECT, limit - (System.nanoTime() - start)))) {
      if (System.nanoTime() - start >= limit) {
        throw Status.UNAVAILABLE
            .withDescription("the server was not reached within " + Texts.seconds(limit))
            .asException();
      }
      channel.resetConnectBackoff();
    }
  }

  /**
   * Sends a message when the transport is ready for it. False: the call has ended; the message was
   * not sent.
   */
  boolean send(Q message) {
    op.await(() -> status != null || call.isReady(), Long.MAX_VALUE);
    if (ended()) {
      return false;
    }
    call.sendMessage(message);
    return true;
  }

  /** Sends the only message of a unary or server streaming call. */
  void sendOnly(Q message) {
    call.sendMessage(message);
    call.halfClose();
  }

  void halfClose() {
    call.halfClose();
  }

  /** Waits until the header has a key, or the call has ended, at most for limit nanoseconds. */
  void awaitHeader(Metadata.Key<String> key, long limit) {
    op.await(() -> status != null || header != null && header.containsKey(key), limit);
  }

  boolean ended() {
    synchronized (op) {
      return status != null;
    }
  }

  /**
   * Waits for a message or the end of the call, at most for limit nanoseconds. Returns whether
   * there is one.
   */
  boolean awaitNext(long limit) {
    return op.await(() -> status != null || !messages.isEmpty(), limit);
  }

  /** Returns the next message. Null: the call has ended with OK. */
  R next() throws StatusException {
    awaitNext(Long.MAX_VALUE);
    synchronized (op) {
      R message = messages.poll();
      if (message != null) {
        call.request(1);
        return message;
      }
      if (status.isOk()) {
        return null;
      }
      throw status.asException(trailer);
    }
  }

  /** Returns the only message of the response once the call has ended. */
  R only() throws StatusException {
    op.await(() -> status != null, Long.MAX_VALUE);
    R message = status.isOk() ? messages.poll() : next();
    if (message == null) {
      throw Status.INTERNAL.withDescription("the server sent no response").asException();
    }
    return message;
  }

  /** Ends the call if it goes on. */
  @Override
  public void close() {
    call.cancel("the client ended the call", null);
  }

  private final class Listener extends ClientCall.Listener<R> {
    @Override
    public void onHeaders(Metadata headers) {
      synchronized (op) {
        header = headers;
        op.notifyAll();
      }
    }

    @Override
    public void onMessage(R message) {
      synchronized (op) {
        messages.add(message);
        op.notifyAll();
      }
    }

    @Override
    public void onReady() {
      synchronized (op) {
        op.notifyAll();
      }
    }

    @Override
    public void onClose(Status s, Metadata trailers) {
      synchronized (op) {
        status = s;
        trailer = trailers;
        op.notifyAll();
      }
    }
  }

  /** Notes when the call gets a connection. */
  private final class Tracer extends ClientStreamTracer.Factory {
    @Override
    public ClientStreamTracer newClientStreamTracer(
        ClientStreamTracer.StreamInfo info, Metadata headers) {
      return new ClientStreamTracer() {
        @Override
        public void streamCreated(Attributes transport, Metadata headers) {
          synchronized (op) {
            reached = true;
            op.notifyAll();
          }
        }
      };
    }
  }
}
