package com.lpfileshare;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertSame;
import static org.junit.jupiter.api.Assertions.assertThrows;

import com.google.protobuf.ByteString;
import com.lpfileshare.v1.Checksums;
import com.lpfileshare.v1.ContentRange;
import com.lpfileshare.v1.DataChunk;
import com.lpfileshare.v1.DownloadHeader;
import com.lpfileshare.v1.DownloadRequest;
import com.lpfileshare.v1.DownloadResponse;
import com.lpfileshare.v1.DownloadTrailer;
import com.lpfileshare.v1.File;
import com.lpfileshare.v1.FileSharingServiceGrpc;
import io.grpc.Server;
import io.grpc.Status;
import io.grpc.netty.shaded.io.grpc.netty.NettyServerBuilder;
import io.grpc.stub.StreamObserver;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.Random;
import java.util.concurrent.atomic.AtomicInteger;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

class DownloadTest {
  private static final DownloadOptions WHOLE =
      DownloadOptions.of("accounts/1/conversations/c/files/f");
  private static final DownloadOptions PART =
      DownloadOptions.of("accounts/1/conversations/c/files/f").offset(1);

  private final FakeServer fake = new FakeServer();
  private Server server;
  private LpFileShareClient client;

  @BeforeEach
  void start() throws IOException {
    InetSocketAddress address = new InetSocketAddress(InetAddress.getLoopbackAddress(), 0);
    server = NettyServerBuilder.forAddress(address).addService(fake).build().start();
    client = LpFileShareClient.builder().target("127.0.0.1:" + server.getPort()).build();
  }

  @AfterEach
  void stop() {
    client.close();
    server.shutdownNow();
  }

  @ParameterizedTest
  @ValueSource(ints = {5000, 0})
  void wholeFileIsComparedWithTheStoredMd5(int size) {
    fake.data = bytes(size);
    fake.storedMd5 = md5(fake.data);
    ByteArrayOutputStream out = new ByteArrayOutputStream();
    assertEquals(size, client.download(WHOLE, out).bytes());
    assertArrayEquals(fake.data, out.toByteArray());

    fake.storedMd5 = md5(bytes(1));
    assertDamaged(() -> client.download(WHOLE, new ByteArrayOutputStream()));
    assertEquals(2, fake.calls.get()); // the failure is not repeated
  }

  @Test
  void piecesAreComparedWithTheStoredMd5AsAWhole() {
    fake.breakAt = 2000;
    fake.storedMd5 = md5(fake.data);
    assertEquals(2, client.download(WHOLE, new ByteArrayOutputStream()).attempts());

    fake.calls.set(0);
    fake.storedMd5 = md5(bytes(1));
    assertDamaged(() -> client.download(WHOLE, new ByteArrayOutputStream()));
    assertEquals(2, fake.calls.get());
  }

  @Test
  void onlyAWholeFileIsComparedAndOnlyIfTheStoreStatesItsMd5() {
    assertEquals(5000, client.download(WHOLE, new ByteArrayOutputStream()).bytes());
    fake.storedMd5 = md5(bytes(1));
    assertEquals(4999, client.download(PART, new ByteArrayOutputStream()).bytes());
  }

  @Test
  void readerFailsInsteadOfReportingTheEndOfADamagedFile() {
    fake.storedMd5 = md5(bytes(1));
    try (DownloadStream stream = client.openDownload(WHOLE)) {
      assertArrayEquals(fake.data, assertReads(stream, 5000));
      LpFileShareException failure = assertDamaged(stream::read);
      assertSame(failure, assertThrows(LpFileShareException.class, stream::read));
      assertThrows(IllegalStateException.class, stream::result);
    }
    assertEquals(1, fake.calls.get());
  }

  @Test
  void damagedFileIsNotKept(@TempDir Path folder) throws IOException {
    fake.storedMd5 = md5(bytes(1));
    assertDamaged(() -> client.downloadTo(WHOLE, folder.resolve("picture.jpg")));
    try (var left = Files.list(folder)) {
      assertEquals(0, left.count());
    }
  }

  private static byte[] assertReads(DownloadStream stream, int n) {
    byte[] got = new byte[n];
    for (int at = 0; at < n; ) {
      at += stream.read(got, at, n - at);
    }
    return got;
  }

  private static LpFileShareException assertDamaged(Runnable download) {
    LpFileShareException e = assertThrows(LpFileShareException.class, download::run);
    assertEquals(Status.Code.DATA_LOSS, e.code());
    assertEquals("", e.reasonName());
    assertEquals(
        "the file does not have the MD5 that the store states: it was damaged in the store, or on the way from it to the server; discard it",
        e.statusMessage());
    return e;
  }

  private static byte[] bytes(int n) {
    byte[] data = new byte[n];
    new Random(n).nextBytes(data);
    return data;
  }

  private static ByteString md5(byte[] data) {
    return ByteString.copyFrom(Sums.digest("MD5").digest(data));
  }

  /** Sends data as the contract says, in chunks of 1,000 bytes. */
  private static final class FakeServer extends FileSharingServiceGrpc.FileSharingServiceImplBase {
    final AtomicInteger calls = new AtomicInteger();
    volatile byte[] data = bytes(5000);
    volatile ByteString storedMd5 = ByteString.EMPTY;
    volatile int breakAt = -1; // of the first call. Negative: it does not break

    @Override
    public void download(DownloadRequest request, StreamObserver<DownloadResponse> to) {
      boolean breaks = calls.incrementAndGet() == 1 && breakAt >= 0;
      int start = (int) request.getReadOffset();
      to.onNext(DownloadResponse.newBuilder().setHeader(header(start)).build());
      for (int at = start; at < data.length; at += 1000) {
        if (breaks && at >= breakAt) {
          to.onError(Status.UNAVAILABLE.withDescription("broken").asRuntimeException());
          return;
        }
        to.onNext(DownloadResponse.newBuilder().setChunk(chunk(at)).build());
      }
      DownloadTrailer.Builder trailer =
          DownloadTrailer.newBuilder()
              .setSentBytes(data.length - start)
              .setSentChecksums(Checksums.newBuilder().setCrc32C(crc(start, data.length)));
      to.onNext(DownloadResponse.newBuilder().setTrailer(trailer).build());
      to.onCompleted();
    }

    private DownloadHeader header(int start) {
      return DownloadHeader.newBuilder()
          .setFile(File.newBuilder().setEtag("e1"))
          .setContentRange(
              ContentRange.newBuilder()
                  .setStartBytes(start)
                  .setEndBytes(data.length)
                  .setTotalBytes(data.length))
          .setStoredMd5(storedMd5)
          .build();
    }

    private DataChunk chunk(int at) {
      int end = Math.min(at + 1000, data.length);
      return DataChunk.newBuilder()
          .setOffset(at)
          .setData(ByteString.copyFrom(data, at, end - at))
          .setCrc32C(crc(at, end))
          .build();
    }

    private int crc(int from, int to) {
      return Sums.crc32c(Arrays.copyOfRange(data, from, to), to - from);
    }
  }
}
