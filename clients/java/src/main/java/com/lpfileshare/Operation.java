package com.lpfileshare;

import java.time.Duration;
import java.util.function.BooleanSupplier;

/**
 * One operation of the caller over any number of calls, with its deadline. It is also the monitor
 * of these calls: everything that the caller's thread waits for is signalled on it. Interrupting
 * the thread cancels the operation.
 */
final class Operation {
  final String name;
  private final boolean limited;
  private final long deadline; // of System.nanoTime
  private boolean cancelled;

  /** A null timeout means no deadline. */
  Operation(String name, Duration timeout) {
    this.name = name;
    this.limited = timeout != null;
    this.deadline = limited ? System.nanoTime() + timeout.toNanos() : 0;
  }

  /** Returns the nanoseconds until the deadline. Without one it returns Long.MAX_VALUE. */
  long remaining() {
    return limited ? deadline - System.nanoTime() : Long.MAX_VALUE;
  }

  /** Cancels the operation from any thread. */
  synchronized void cancel() {
    cancelled = true;
    notifyAll();
  }

  /** Throws if the caller has cancelled, or its deadline has passed. */
  synchronized void check() {
    if (cancelled || Thread.currentThread().isInterrupted()) {
      throw new LpFileShareException.Cancelled(name);
    }
    if (remaining() <= 0) {
      throw new LpFileShareException.DeadlineExceeded(name);
    }
  }

  /**
   * Waits until the condition holds, at most for limit nanoseconds, and returns whether it does.
   */
  synchronized boolean await(BooleanSupplier condition, long limit) {
    long start = System.nanoTime();
    while (true) {
      check();
      if (condition.getAsBoolean()) {
        return true;
      }
      long left = Math.min(limit - (System.nanoTime() - start), remaining());
      if (left <= 0 && remaining() > 0) {
        return false;
      }
      try {
        wait(Math.min(Math.max(left, 0) / 1_000_000 + 1, Integer.MAX_VALUE));
      } catch (InterruptedException e) {
        Thread.currentThread().interrupt();
      }
    }
  }

  /** Waits for a number of nanoseconds. */
  void sleep(long nanos) {
    await(() -> false, nanos);
  }
}
