package com.lpfileshare;

import java.time.Instant;

/**
 * The result of signing in an agent or bot. It does not print its token.
 *
 * @param token the token for calls; secret
 * @param agentId LivePerson's id of the agent
 * @param expires when the token expires; null: not known
 */
public record AgentSession(String token, String agentId, Instant expires) {
  @Override
  public String toString() {
    return "session of agent " + agentId;
  }
}
