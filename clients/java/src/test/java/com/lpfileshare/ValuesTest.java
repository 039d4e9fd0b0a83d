package com.lpfileshare;

import static java.nio.charset.StandardCharsets.UTF_8;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.lpfileshare.v1.FileType;
import java.time.Instant;
import java.util.Map;
import org.junit.jupiter.api.Test;

class ValuesTest {
  @Test
  void bytesTakePrecedenceOverTheName() {
    byte[] jpeg = {(byte) 0xff, (byte) 0xd8, (byte) 0xff};
    assertEquals(FileType.FILE_TYPE_JPEG, FileTypes.detect("a.txt", jpeg));
    assertEquals(
        FileType.FILE_TYPE_DOCX, FileTypes.detect("a.docx", "PK\u0003\u0004".getBytes(UTF_8)));
    assertEquals(FileType.FILE_TYPE_TXT, FileTypes.detect("", "Grüße".getBytes(UTF_8)));
    assertEquals(
        FileType.FILE_TYPE_UNSPECIFIED, FileTypes.detect("a.jpg", "RIFF1234WEBP".getBytes(UTF_8)));
  }

  @Test
  void secretsDoNotPrint() {
    ConsumerSession session = new ConsumerSession("t0ken", "s3cret", "c1", Instant.EPOCH);
    String text =
        session + " " + Identity.consumerSession(session) + " " + Identity.agentToken("t0ken");
    assertFalse(text.contains("t0ken") || text.contains("s3cret"), text);
  }

  @Test
  void onlyLoopbackIsPlaintext() {
    assertTrue(ServerList.isLoopback("localhost:1,127.0.0.1:2,[::1]:3"));
    assertFalse(ServerList.isLoopback("localhost:1,files.example.com:443"));
    assertFalse(ServerList.isLoopback("127.0.0.1.example.com:1"));
  }

  @Test
  void targetsAreCheckedAndQuoted() {
    assertEquals("lpfileshare:///a:1,b:2", ServerList.target("a:1, b:2"));
    assertEquals("dns:///a:1", ServerList.target("dns:///a:1"));
    assertThrows(IllegalArgumentException.class, () -> ServerList.target("a:1,,b:2"));
  }

  @Test
  void environmentWithTwoIdentitiesIsRejected() {
    Map<String, String> env =
        Map.of(
            "LPFILESHARE_ADDRESS",
            "localhost:1",
            "LPFILESHARE_TOKEN",
            "a",
            "LPFILESHARE_AGENT_TOKEN",
            "b");
    assertThrows(
        IllegalArgumentException.class, () -> LpFileShareClient.builder().environment(env));
  }

  @Test
  void uploadNameNeedsAnAccount() {
    assertEquals("accounts/1/uploads/r", Texts.uploadName("accounts/1/conversations/c", "r"));
    assertEquals("", Texts.uploadName("conversations/c", "r"));
  }
}
