import com.google.gson.JsonArray;
import com.google.gson.JsonElement;
import com.google.gson.JsonNull;
import com.google.gson.JsonObject;
import com.google.gson.JsonPrimitive;
import com.google.protobuf.ByteString;
import com.google.protobuf.Descriptors.EnumValueDescriptor;
import com.google.protobuf.Message;
import com.lpfileshare.ConsumerSession;
import com.lpfileshare.LpFileShareException;
import com.lpfileshare.v1.File;
import java.time.Duration;
import java.util.HexFormat;

/** Converts what the client returns to the JSON of the runner. */
final class Values {
  private Values() {}

  static JsonElement file(File f) {
    if (f.equals(File.getDefaultInstance())) {
      return JsonNull.INSTANCE;
    }
    JsonObject o = new JsonObject();
    o.addProperty("name", f.getName());
    o.addProperty("storagePath", f.getStoragePath());
    o.add("fileType", enumOf(f, "file_type", "FILE_TYPE_"));
    o.addProperty("contentType", f.getContentType());
    o.addProperty("caption", f.getCaption());
    o.addProperty("displayName", f.getDisplayName());
    o.addProperty("etag", f.getEtag());
    o.add("senderRole", enumOf(f, "sender_role", "PARTICIPANT_ROLE_"));
    o.addProperty("sha256", hex(f.getUploadedChecksums().getSha256()));
    if (f.hasStoredSizeBytes()) {
      o.addProperty("sizeBytes", f.getStoredSizeBytes());
    }
    if (f.getUploadedChecksums().hasCrc32C()) {
      o.addProperty("crc32c", Integer.toUnsignedLong(f.getUploadedChecksums().getCrc32C()));
    }
    return o;
  }

  static String hex(ByteString bytes) {
    return HexFormat.of().formatHex(bytes.toByteArray());
  }

  /** Returns the name of a value without prefix, or the number of one that is not known. */
  static JsonElement enumOf(Message m, String field, String prefix) {
    EnumValueDescriptor v = (EnumValueDescriptor) m.getField(m.getDescriptorForType().findFieldByName(field));
    return v.getIndex() < 0 ? new JsonPrimitive(v.getNumber()) : new JsonPrimitive(v.getName().replace(prefix, ""));
  }

  static JsonObject session(ConsumerSession s) {
    JsonObject o = new JsonObject();
    o.addProperty("token", s.token());
    o.addProperty("renewalSecret", s.renewalSecret());
    o.addProperty("consumerId", s.consumerId());
    o.addProperty("expiresAtMs", s.expires() == null ? 0 : s.expires().toEpochMilli());
    return o;
  }

  /** Returns what a user of the client sees of an error. */
  static JsonObject error(Exception e) {
    JsonObject o = new JsonObject();
    o.addProperty("kind", kind(e));
    o.addProperty("text", e.toString());
    o.addProperty("code", "");
    o.addProperty("reason", "");
    o.addProperty("message", e.getMessage());
    if (!(e instanceof LpFileShareException failure)) {
      return o;
    }
    o.addProperty("code", failure.code().name());
    o.addProperty("reason", failure.reasonName());
    o.addProperty("message", failure.statusMessage());
    JsonObject metadata = new JsonObject();
    failure.metadata().forEach(metadata::addProperty);
    o.add("metadata", metadata);
    JsonArray violations = new JsonArray();
    failure
        .violations()
        .forEach(
            v -> {
              JsonObject violation = new JsonObject();
              violation.addProperty("field", v.field());
              violation.addProperty("description", v.description());
              violations.add(violation);
            });
    o.add("violations", violations);
    o.addProperty("retryAfterMs", failure.retryAfter().orElse(Duration.ZERO).toMillis());
    o.addProperty("requestId", failure.requestId());
    o.addProperty("attempts", failure.attempts());
    o.addProperty("finished", failure.finished());
    return o;
  }

  private static String kind(Exception e) {
    if (e instanceof LpFileShareException.Cancelled) {
      return "cancelled";
    } else if (e instanceof LpFileShareException.DeadlineExceeded) {
      return "deadline";
    } else if (e instanceof LpFileShareException.SourceFailed) {
      return "source";
    } else if (e instanceof LpFileShareException.SinkFailed) {
      return "sink";
    } else if (e instanceof LpFileShareException.WatchReset) {
      return "watchReset";
    }
    return e instanceof LpFileShareException ? "call" : "usage";
  }
}
