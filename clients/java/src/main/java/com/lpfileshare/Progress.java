package com.lpfileshare;

/** Receives the progress of a transfer. It must return quickly. */
@FunctionalInterface
public interface Progress {
  /** Receives the number of bytes that are done, and of all. A total of -1 is not known. */
  void report(long done, long total);
}
