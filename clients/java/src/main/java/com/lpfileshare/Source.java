package com.lpfileshare;

import java.io.ByteArrayInputStream;
import java.io.FilterInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.nio.file.Files;
import java.nio.file.Path;

/**
 * The bytes of an upload. A lambda that opens a stream is one that can be read again. Each pass
 * over them opens a stream, which the client closes.
 */
public interface Source {
  /** Opens the bytes from the beginning. */
  InputStream open() throws IOException;

  /**
   * Returns whether {@link #open} can be called again. Otherwise an upload cannot be repeated once
   * bytes were read.
   */
  default boolean repeatable() {
    return true;
  }

  /** Returns the display name of an upload that sets none. Empty: none. */
  default String name() {
    return "";
  }

  /** Returns a file of the local disk. Its name is the default of the display name. */
  static Source of(Path path) {
    return new Source() {
      @Override
      public InputStream open() throws IOException {
        return Files.newInputStream(path);
      }

      @Override
      public String name() {
        return path.getFileName() == null ? "" : path.getFileName().toString();
      }
    };
  }

  /** Returns bytes, which must not change until the upload ends. */
  static Source of(byte[] data) {
    return () -> new ByteArrayInputStream(data);
  }

  /** Returns a stream, from its current position, that is read once. The caller closes it. */
  static Source of(InputStream stream) {
    return new Source() {
      @Override
      public InputStream open() {
        return new FilterInputStream(stream) {
          @Override
          public void close() {}
        };
      }

      @Override
      public boolean repeatable() {
        return false;
      }
    };
  }
}
