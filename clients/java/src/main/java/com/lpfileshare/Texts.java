package com.lpfileshare;

import java.util.concurrent.TimeUnit;

/** Names of resources, and words of messages. */
final class Texts {
  private static final String ACCOUNTS = "accounts/";

  private Texts() {}

  /** Returns accounts/{account}, given either the id or the name. Empty stays empty. */
  static String accountName(String account) {
    return account.isEmpty() || account.startsWith(ACCOUNTS) ? account : ACCOUNTS + account;
  }

  /**
   * Returns the resource name of an upload into a conversation. Empty: the conversation has no
   * account.
   */
  static String uploadName(String conversation, String requestId) {
    String[] parts = conversation.split("/", 3);
    boolean named = parts.length == 3 && conversation.startsWith(ACCOUNTS) && !parts[1].isEmpty();
    return named ? ACCOUNTS + parts[1] + "/uploads/" + requestId : "";
  }

  static String seconds(long nanos) {
    return TimeUnit.NANOSECONDS.toMillis(nanos + 50_000_000) / 100 / 10.0 + " s";
  }
}
