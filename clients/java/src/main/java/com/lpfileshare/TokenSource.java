package com.lpfileshare;

import java.util.function.Supplier;

/**
 * Provides the token of each call. It must be safe for concurrent use. A lambda that returns the
 * current token is one.
 */
@FunctionalInterface
public interface TokenSource extends Supplier<String> {
  /** Returns the token to use now. */
  @Override
  String get();

  /**
   * Returns another token after the server rejected one. A call asks at most once. By default it
   * gets the token again; the same one means that there is no other.
   */
  default String renew(String rejected) {
    return get();
  }
}
