package com.lpfileshare;

import com.google.protobuf.Timestamp;
import com.lpfileshare.v1.IdentityServiceGrpc;
import com.lpfileshare.v1.RenewConsumerRequest;
import com.lpfileshare.v1.RenewConsumerResponse;
import java.time.Duration;
import java.time.Instant;
import java.util.concurrent.CompletableFuture;
import java.util.function.Consumer;

/** The tokens of a session that is renewed. Concurrent operations share one renewal. */
final class SessionTokens implements Identity.Tokens {
  private static final Duration BEFORE =
      Duration.ofMinutes(1); // how long before it expires a token is renewed
  private static final Duration TIMEOUT = Duration.ofSeconds(20); // of one renewal
  // How long after a failed renewal a token that has not expired is used without another try.
  private static final Duration PAUSE = Duration.ofSeconds(5);

  private final Connection connection;
  private final String account;
  private final Consumer<ConsumerSession> onRenew;
  private ConsumerSession session;
  private Instant paused = Instant.MIN; // no renewal before the token expires until then
  private CompletableFuture<ConsumerSession> running; // null: none

  SessionTokens(
      Connection connection,
      String account,
      ConsumerSession session,
      Consumer<ConsumerSession> onRenew) {
    this.connection = connection;
    this.account = account;
    this.session = session;
    this.onRenew = onRenew;
  }

  @Override
  public String token(Operation op) {
    ConsumerSession s;
    boolean due;
    Instant now = Instant.now();
    synchronized (this) {
      s = session;
      due =
          !s.renewalSecret().isEmpty()
              && s.expires() != null
              && now.plus(BEFORE).isAfter(s.expires())
              && !now.isBefore(paused);
    }
    if (!due) {
      return s.token();
    }
    try {
      return renew(op, s.token());
    } catch (LpFileShareException e) {
      op.check();
      if (now.isBefore(s.expires())) {
        return s.token();
      }
      throw e;
    }
  }

  @Override
  public String renew(Operation op, String rejected) {
    CompletableFuture<ConsumerSession> renewal;
    synchronized (this) {
      if (!session.token().equals(rejected) || session.renewalSecret().isEmpty()) {
        return session.token();
      }
      if (running == null) {
        // It goes on when its caller ends, because others may wait for it, and the server may have
        // used up the secret.
        String secret = session.renewalSecret();
        running = new CompletableFuture<>();
        CompletableFuture<ConsumerSession> started = running;
        connection.executor().execute(() -> run(secret, started));
      }
      renewal = running;
    }
    renewal.whenComplete(
        (s, e) -> {
          synchronized (op) {
            op.notifyAll();
          }
        });
    op.await(renewal::isDone, Long.MAX_VALUE);
    if (renewal.isCompletedExceptionally()) {
      throw (LpFileShareException) renewal.handle((s, e) -> e).join();
    }
    return renewal.join().token();
  }

  private void run(String secret, CompletableFuture<ConsumerSession> renewal) {
    ConsumerSession next = null;
    LpFileShareException failure = null;
    try {
      RenewConsumerRequest request =
          RenewConsumerRequest.newBuilder().setAccount(account).setRenewalSecret(secret).build();
      Operation op = new Operation("renew token", TIMEOUT);
      RenewConsumerResponse r =
          connection.once(op, IdentityServiceGrpc.getRenewConsumerMethod(), request);
      next =
          new ConsumerSession(
              r.getConsumerToken(),
              r.getRenewalSecret(),
              r.getConsumerId(),
              r.hasExpireTime() ? instant(r.getExpireTime()) : null);
      onRenew.accept(next);
    } catch (LpFileShareException e) {
      failure = e;
    } catch (RuntimeException e) {
      failure =
          new LpFileShareException(
              "renew token", io.grpc.Status.UNKNOWN.withDescription(e.toString()), null, e);
    }
    synchronized (this) {
      running = null;
      if (failure == null) {
        session = next;
      } else {
        paused = Instant.now().plus(PAUSE);
      }
    }
    if (failure == null) {
      renewal.complete(next);
    } else {
      renewal.completeExceptionally(failure);
    }
  }

  static Instant instant(Timestamp t) {
    return Instant.ofEpochSecond(t.getSeconds(), t.getNanos());
  }

  @Override
  public String toString() {
    return "[token]";
  }
}
