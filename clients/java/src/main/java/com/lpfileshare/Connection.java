package com.lpfileshare;

import io.grpc.ManagedChannel;
import io.grpc.Metadata;
import io.grpc.MethodDescriptor;
import io.grpc.StatusException;
import java.time.Duration;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.TimeUnit;

/** The connection that a client shares with those that {@link LpFileShareClient#as} makes. */
final class Connection {
  private static final Duration UNARY = Duration.ofSeconds(15); // a single attempt
  private static final Duration PUBLISH = Duration.ofSeconds(60);
  private static final Duration SIGN_IN = Duration.ofSeconds(30);

  private final ManagedChannel channel;
  private final ExecutorService executor;

  Connection(ManagedChannel channel) {
    this.channel = channel;
    this.executor =
        Executors.newCachedThreadPool(
            task -> {
              Thread t = new Thread(task, "lpfileshare");
              t.setDaemon(true);
              return t;
            });
  }

  ManagedChannel channel() {
    return channel;
  }

  /** Runs asynchronous operations. Its threads are daemons and end when they are idle. */
  ExecutorService executor() {
    return executor;
  }

  <Q, R> Call<Q, R> call(
      MethodDescriptor<Q, R> method, Operation op, Metadata metadata, Duration limit) {
    return new Call<>(channel, method, op, metadata, limit);
  }

  /** Makes one attempt of a unary call. */
  <Q, R> R attempt(
      Operation op, MethodDescriptor<Q, R> method, Q request, Metadata metadata, long reach)
      throws StatusException {
    Duration limit =
        switch (method.getFullMethodName()) {
          case "lpfileshare.v1.FileSharingService/PublishUpload" -> PUBLISH;
          case "lpfileshare.v1.IdentityService/SignInConsumer",
              "lpfileshare.v1.IdentityService/SignInAgent" ->
              SIGN_IN;
          default -> UNARY;
        };
    try (Call<Q, R> call = call(method, op, metadata, limit)) {
      call.reach(Math.min(reach, limit.toNanos()));
      call.sendOnly(request);
      return call.only();
    }
  }

  /** Makes a unary call without an identity. It is not repeated. */
  <Q, R> R once(Operation op, MethodDescriptor<Q, R> method, Q request) {
    try {
      return attempt(op, method, request, new Metadata(), Long.MAX_VALUE);
    } catch (StatusException e) {
      op.check();
      throw LpFileShareException.of(op.name, e).attempts(1);
    }
  }

  boolean closed() {
    return channel.isShutdown();
  }

  /** Ends the connection and every call on it. It waits at most a second for that. */
  void close() {
    channel.shutdownNow();
    executor.shutdown();
    try {
      channel.awaitTermination(1, TimeUnit.SECONDS);
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
    }
  }
}
