package com.lpfileshare;

import com.lpfileshare.v1.UnreadableConversation;
import java.time.Duration;
import java.util.Optional;
import java.util.function.Consumer;

/** Selects the files of a watch. */
public final class WatchOptions {
  static final Duration FOREVER = Duration.ofSeconds(Long.MAX_VALUE);

  final String parent;
  String token = "";
  Consumer<Optional<LpFileShareException>> connection = e -> {};
  Consumer<UnreadableConversation> unreadable = u -> {};
  Duration maxSilence = Duration.ZERO;
  Duration retryFor = FOREVER;

  private WatchOptions(String parent) {
    this.parent = parent;
  }

  /**
   * Begins options for a conversation, accounts/{account}/conversations/{conversation}. "-" as
   * {conversation} selects all conversations of the caller.
   */
  public static WatchOptions of(String parent) {
    return new WatchOptions(parent);
  }

  /**
   * Sets where the watch begins: {@link FileList#watchToken}, or {@link FileWatch#token} of an
   * earlier watch of the same parent. Default: when the server opens the watch. If the connection
   * breaks before the first message, it begins later than the first time; list the files first to
   * have no such gap.
   */
  public WatchOptions token(String watchToken) {
    token = watchToken;
    return this;
  }

  /**
   * Sets what receives changes of the connection: empty when the watch is open (its first message
   * has arrived), and the error when the connection is lost or not possible and is about to be
   * retried. It must return quickly.
   */
  public WatchOptions onConnection(Consumer<Optional<LpFileShareException>> listener) {
    connection = listener;
    return this;
  }

  /**
   * Sets what receives each conversation that a watch of all conversations leaves out, because the
   * server could not read it.
   */
  public WatchOptions onUnreadable(Consumer<UnreadableConversation> listener) {
    unreadable = listener;
    return this;
  }

  /**
   * Sets the time without any message after which the watch is opened again. Default: three of the
   * server's heartbeat intervals.
   */
  public WatchOptions maxSilence(Duration limit) {
    maxSilence = limit;
    return this;
  }

  /**
   * Sets how long after the last progress another attempt may begin. Default: no limit. Negative:
   * one attempt.
   */
  public WatchOptions retryFor(Duration limit) {
    retryFor = limit;
    return this;
  }
}
