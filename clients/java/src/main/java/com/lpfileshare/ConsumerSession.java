package com.lpfileshare;

import java.time.Instant;

/**
 * The result of signing in a consumer. It does not print its secrets.
 *
 * @param token the token for calls; secret
 * @param renewalSecret gets the next token; empty: the session cannot be renewed; secret
 * @param consumerId LivePerson's id of the consumer
 * @param expires when the token expires; null: not known
 */
public record ConsumerSession(
    String token, String renewalSecret, String consumerId, Instant expires) {
  @Override
  public String toString() {
    return "session of consumer " + consumerId;
  }
}
