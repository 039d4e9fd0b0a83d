import com.google.gson.JsonArray;
import com.google.gson.JsonElement;
import com.google.gson.JsonNull;
import com.google.gson.JsonObject;
import com.lpfileshare.DownloadOptions;
import com.lpfileshare.DownloadStream;
import com.lpfileshare.LpFileShareClient;
import com.lpfileshare.Progress;
import com.lpfileshare.Source;
import com.lpfileshare.UploadOptions;
import com.lpfileshare.v1.ChecksumKind;
import com.lpfileshare.v1.DownloadHeader;
import com.lpfileshare.v1.FileType;
import com.lpfileshare.v1.ImageChange;
import com.lpfileshare.v1.ImageOptions;
import com.lpfileshare.v1.UploadResponse;
import java.io.ByteArrayInputStream;
import java.io.FilterInputStream;
import java.io.IOException;
import java.io.InterruptedIOException;
import java.io.OutputStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.time.Duration;
import java.util.Arrays;
import java.util.HexFormat;
import java.util.List;

/** Uploads and downloads. */
final class Transfers {
  private Transfers() {}

  static JsonObject upload(LpFileShareClient client, JsonObject c) throws IOException {
    JsonObject in = Driver.object(c, "options");
    UploadOptions o =
        UploadOptions.to(Driver.text(in, "conversation"))
            .dialogId(Driver.text(in, "dialogId"))
            .displayName(Driver.text(in, "displayName"))
            .caption(Driver.text(in, "caption"))
            .requestId(Driver.text(in, "requestId"))
            .onProgress(progress(c));
    if (in.has("fileType")) {
      o.fileType(FileType.valueOf("FILE_TYPE_" + Driver.text(in, "fileType")));
    }
    if (Driver.text(in, "preview").equals("generate")) {
      o.generatePreview();
    } else if (in.has("preview")) {
      o.preview(Driver.text(in, "preview"));
    }
    List<String> image = Driver.strings(in, "image");
    if (!image.isEmpty()) {
      o.image(ImageOptions.newBuilder().setFit(image.contains("fit")).setStripMetadata(image.contains("strip")).build());
    }
    if (Driver.text(in, "publishMode").equals("STORE_ONLY")) {
      o.storeOnly();
    }
    if (in.has("validateOnly") && in.get("validateOnly").getAsBoolean()) {
      o.validateOnly();
    }
    Driver.strings(in, "wantChecksums").forEach(k -> o.wantChecksum(ChecksumKind.valueOf("CHECKSUM_KIND_" + k)));
    if (Driver.number(in, "chunkBytes") != 0) {
      o.chunkBytes((int) Driver.number(in, "chunkBytes"));
    }
    if (Driver.number(in, "retryForMs") != 0) {
      o.retryFor(Duration.ofMillis(Driver.number(in, "retryForMs")));
    }
    UploadResponse r = client.upload(o, source(Driver.object(c, "source")));
    JsonObject result = new JsonObject();
    result.addProperty("upload", r.getUpload());
    result.addProperty("requestId", r.getRequestId());
    result.addProperty("replayed", r.getReplayed());
    result.addProperty("previewOmitted", r.getPreviewOmitted());
    result.add("file", Values.file(r.getFile()));
    result.add("image", r.hasImage() ? image(r.getImage()) : JsonNull.INSTANCE);
    return result;
  }

  private static JsonElement image(ImageChange i) {
    JsonObject o = new JsonObject();
    o.addProperty("inputSizeBytes", i.getInputSizeBytes());
    o.addProperty("recoded", i.getRecoded());
    o.addProperty("scaled", i.getScaled());
    JsonArray removed = new JsonArray();
    i.getRemovedMetadataList().forEach(m -> removed.add(m.name().replace("IMAGE_METADATA_", "")));
    o.add("removedMetadata", removed);
    return o;
  }

  private static Source source(JsonObject s) throws IOException {
    Path path = Path.of(Driver.text(s, "path"));
    if (Driver.text(s, "kind").equals("path")) {
      return Source.of(path);
    }
    byte[] data = Files.readAllBytes(path);
    switch (Driver.text(s, "kind")) {
      case "bytes":
        return Source.of(data);
      case "stream":
        return Source.of(new Slow(data, s));
      default:
        int declared = (int) Driver.number(s, "declaredBytes");
        int[] passes = {0};
        return () -> new Slow(passes[0]++ == 0 && declared > 0 ? Arrays.copyOf(data, declared) : data, s);
    }
  }

  /** Fails and waits as the runner asks. */
  private static final class Slow extends FilterInputStream {
    private final long failAfter; // 0: does not fail
    private final long delay; // after each 64 KiB
    private long n;

    Slow(byte[] data, JsonObject s) {
      super(new ByteArrayInputStream(data));
      failAfter = Driver.number(s, "failAfter");
      delay = Driver.number(s, "delayMs");
    }

    @Override
    public int read() throws IOException {
      byte[] one = new byte[1];
      return read(one, 0, 1) < 0 ? -1 : one[0] & 0xff;
    }

    @Override
    public int read(byte[] b, int off, int len) throws IOException {
      int most = len;
      if (failAfter > 0) {
        if (n >= failAfter) {
          throw new IOException("source failed");
        }
        most = (int) Math.min(most, failAfter - n);
      }
      if (delay > 0) {
        most = Math.min(most, 64 << 10);
      }
      int got = super.read(b, off, most);
      if (got > 0) {
        if (delay > 0 && n + got >> 16 > n >> 16) {
          pause(delay);
        }
        n += got;
      }
      return got;
    }
  }

  private static void pause(long ms) throws InterruptedIOException {
    try {
      Thread.sleep(ms);
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      throw new InterruptedIOException();
    }
  }

  static JsonObject download(LpFileShareClient client, JsonObject c) throws IOException {
    JsonObject in = Driver.object(c, "options");
    DownloadOptions o =
        DownloadOptions.of(Driver.text(c, "file"))
            .offset(Driver.number(in, "offset"))
            .limit(Driver.number(in, "limit"))
            .ifMatchEtag(Driver.text(in, "ifMatchEtag"))
            .chunkBytes((int) Driver.number(in, "chunkBytes"))
            .onProgress(progress(c));
    if (Driver.number(in, "retryForMs") != 0) {
      o.retryFor(Duration.ofMillis(Driver.number(in, "retryForMs")));
    }
    JsonObject s = Driver.object(c, "sink");
    Sink sink = new Sink(s);
    DownloadHeader header;
    switch (Driver.text(s, "kind")) {
      case "path" -> {
        Path path = Path.of(Driver.text(s, "path"));
        header = client.downloadTo(o, path).header();
        Files.copy(path, sink);
      }
      case "reader" -> {
        try (DownloadStream stream = client.openDownload(o)) {
          stream.transferTo(sink);
          header = stream.header();
        }
      }
      default -> header = client.download(o, sink).header();
    }
    JsonObject result = new JsonObject();
    result.add("file", Values.file(header.getFile()));
    result.addProperty("bytes", sink.n);
    result.addProperty("sha256", HexFormat.of().formatHex(sink.hash.digest()));
    result.addProperty("start", header.getContentRange().getStartBytes());
    result.addProperty("total", header.getContentRange().getTotalBytes());
    return result;
  }

  private static final class Sink extends OutputStream {
    private final MessageDigest hash;
    private final long failAfter;
    private final long delay;
    private long n;

    Sink(JsonObject s) {
      failAfter = Driver.number(s, "failAfter");
      delay = Driver.number(s, "delayMs");
      try {
        hash = MessageDigest.getInstance("SHA-256");
      } catch (NoSuchAlgorithmException e) {
        throw new IllegalStateException(e);
      }
    }

    @Override
    public void write(int b) throws IOException {
      write(new byte[] {(byte) b}, 0, 1);
    }

    @Override
    public void write(byte[] b, int off, int len) throws IOException {
      if (failAfter > 0 && n + len > failAfter) {
        throw new IOException("sink failed");
      }
      if (delay > 0 && n + len >> 16 > n >> 16) {
        pause(delay);
      }
      n += len;
      hash.update(b, off, len);
    }
  }

  /** Writes the first and last progress of an attempt, and one in each 256 KiB. */
  private static Progress progress(JsonObject c) {
    long[] last = {-1};
    return (n, total) -> {
      if (last[0] < 0 || n < last[0] || n == total || n >> 18 > last[0] >> 18) {
        last[0] = n;
        JsonArray pair = new JsonArray();
        pair.add(n);
        pair.add(total);
        Driver.event(c, "progress", pair);
      }
    };
  }
}
