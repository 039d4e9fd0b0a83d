package com.lpfileshare;

import io.grpc.Metadata;
import java.util.function.Consumer;

/** Identifies the caller of calls. It does not print its token. */
public final class Identity {
  /** Adds nothing to calls. Only signing in works without an identity. */
  public static final Identity NONE = new Identity(null, null, null);

  private final Metadata.Key<String> key; // null: none
  private final TokenSource source; // null: none, or a session
  private final Session session; // null: the source is not a session

  private record Session(ConsumerSession first, Consumer<ConsumerSession> onRenew) {}

  private Identity(String key, TokenSource source, Session session) {
    this.key = key == null ? null : Metadata.Key.of(key, Metadata.ASCII_STRING_MARSHALLER);
    this.source = source;
    this.session = session;
  }

  /** Returns a consumer with a LivePerson token. */
  public static Identity consumerToken(String token) {
    return consumerToken(() -> token);
  }

  /** Returns a consumer whose token comes from a source, which is asked for each call. */
  public static Identity consumerToken(TokenSource source) {
    return new Identity("lp-consumer-token", source, null);
  }

  /**
   * Returns a consumer that has signed in. The client renews the session: see the other method of
   * this name.
   */
  public static Identity consumerSession(ConsumerSession session) {
    return consumerSession(session, renewed -> {});
  }

  /**
   * Returns a consumer that has signed in. The client renews the session a minute before it
   * expires, and once when the server rejects its token; concurrent calls share one renewal.
   * onRenew receives each new session before a call uses it, for example to store it.
   */
  public static Identity consumerSession(
      ConsumerSession session, Consumer<ConsumerSession> onRenew) {
    return new Identity("lp-consumer-token", null, new Session(session, onRenew));
  }

  /** Returns an agent or bot, with a token from {@link LpFileShareClient#signInAgent}. */
  public static Identity agentToken(String token) {
    return agentToken(() -> token);
  }

  /** Returns an agent or bot whose token comes from a source, which is asked for each call. */
  public static Identity agentToken(TokenSource source) {
    return new Identity("lp-agent-token", source, null);
  }

  /**
   * Returns a consumer by the id that the brand knows, for accounts that the server has credentials
   * of. The server accepts it only on connections that authenticate the caller: TLS with a client
   * certificate, or loopback.
   */
  public static Identity externalConsumerId(String id) {
    return new Identity("lp-external-consumer-id", () -> id, null);
  }

  Metadata.Key<String> key() {
    return key;
  }

  /** Returns what calls of a client get their tokens from. Null: no identity. */
  Tokens tokens(Connection connection, String account) {
    if (session != null) {
      return new SessionTokens(connection, account, session.first(), session.onRenew());
    }
    return source == null ? null : new SourceTokens(source);
  }

  /** Returns the kind of the identity, without the token. */
  @Override
  public String toString() {
    return key == null ? "no identity" : key.name() + " [token]";
  }

  /** Gives tokens to operations. */
  interface Tokens {
    /** Returns the token to use now. */
    String token(Operation op);

    /**
     * Returns a token other than the rejected one. The rejected one, or an exception: there is
     * none.
     */
    String renew(Operation op, String rejected);
  }

  private record SourceTokens(TokenSource source) implements Tokens {
    @Override
    public String token(Operation op) {
      return source.get();
    }

    @Override
    public String renew(Operation op, String rejected) {
      return source.renew(rejected);
    }
  }
}
