package com.lpfileshare;

import com.google.protobuf.ByteString;
import com.lpfileshare.v1.Checksums;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.util.zip.CRC32C;

/** The checksums of bytes: CRC-32C and SHA-256. */
final class Sums {
  private final CRC32C crc = new CRC32C();
  private final MessageDigest sha = digest("SHA-256");

  static MessageDigest digest(String algorithm) {
    try {
      return MessageDigest.getInstance(algorithm);
    } catch (NoSuchAlgorithmException e) {
      throw new IllegalStateException(e); // every Java has MD5 and SHA-256
    }
  }

  static int crc32c(byte[] data, int n) {
    CRC32C crc = new CRC32C();
    crc.update(data, 0, n);
    return (int) crc.getValue();
  }

  void update(byte[] data, int n) {
    crc.update(data, 0, n);
    sha.update(data, 0, n);
  }

  int crc32c() {
    return (int) crc.getValue();
  }

  /** Returns the checksums. No more bytes can be added. */
  Checksums message() {
    return Checksums.newBuilder()
        .setCrc32C(crc32c())
        .setSha256(ByteString.copyFrom(sha.digest()))
        .build();
  }
}
