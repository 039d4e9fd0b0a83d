package com.lpfileshare;

import io.grpc.Metadata;
import io.grpc.MethodDescriptor;
import io.grpc.StatusException;
import java.time.Duration;

/** Makes calls over a connection with an identity. */
final class Caller {
  private static final Duration UNARY_RETRY = Duration.ofSeconds(15);
  private static final int UNARY_ATTEMPTS = 4;

  final Connection connection;
  private final Identity identity;
  private final Identity.Tokens tokens; // null: no identity

  Caller(Connection connection, Identity identity, String account) {
    this.connection = connection;
    this.identity = identity;
    this.tokens = identity.tokens(connection, account);
  }

  boolean closed() {
    return connection.closed();
  }

  /** Returns the token of the next call. Empty: no identity. */
  String token(Operation op) {
    return tokens == null ? "" : tokens.token(op);
  }

  /** Returns the metadata of a call with a token. */
  Metadata metadata(String token) {
    Metadata m = new Metadata();
    if (identity.key() != null) {
      m.put(identity.key(), token);
    }
    return m;
  }

  /** Gets another token if the server rejected this one. Returns whether there is one. */
  boolean renew(Operation op, LpFileShareException error, String rejected) {
    boolean asked =
        switch (error.reason()) {
          case ERROR_REASON_TOKEN_INVALID, ERROR_REASON_LP_IDENTITY_EXPIRED -> true;
          default -> false;
        };
    if (!asked || tokens == null) {
      return false;
    }
    try {
      return !tokens.renew(op, rejected).equals(rejected);
    } catch (LpFileShareException e) {
      op.check();
      return false;
    }
  }

  /**
   * Makes a unary call, and repeats it by the retry rule. That is safe for every method that takes
   * an identity: those that change something are idempotent or have a request id.
   */
  <Q, R> R unary(Operation op, MethodDescriptor<Q, R> method, Q request) {
    Pacer pace = new Pacer(op, UNARY_RETRY, UNARY_ATTEMPTS);
    while (true) {
      pace.attempt();
      String token = token(op);
      try {
        return connection.attempt(op, method, request, metadata(token), pace.reach());
      } catch (StatusException e) {
        pace.retry(e, this, token, () -> null);
      } catch (LpFileShareException e) {
        throw e.attempts(pace.attempts());
      }
    }
  }
}
