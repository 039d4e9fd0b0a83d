package com.lpfileshare;

import static java.nio.charset.StandardCharsets.ISO_8859_1;

import com.lpfileshare.v1.FileType;
import java.nio.ByteBuffer;
import java.nio.CharBuffer;
import java.nio.charset.CoderResult;
import java.nio.charset.CodingErrorAction;
import java.nio.charset.StandardCharsets;
import java.util.List;
import java.util.Locale;
import java.util.Map;

/** Detection of file types. The tables are those of the server. */
public final class FileTypes {
  /** The number of first bytes that {@link #detect} uses. */
  public static final int SNIFF_BYTES = 512;

  private record Signature(FileType type, String bytes) {}

  private record Foreign(String name, String advice, String... signatures) {}

  // "?" stands for any byte. The first match counts.
  private static final List<Signature> SIGNATURES =
      List.of(
          new Signature(FileType.FILE_TYPE_JPEG, "\u00ff\u00d8\u00ff"),
          new Signature(FileType.FILE_TYPE_PNG, "\u0089PNG\r\n\u001a\n"),
          new Signature(FileType.FILE_TYPE_GIF, "GIF87a"),
          new Signature(FileType.FILE_TYPE_GIF, "GIF89a"),
          new Signature(FileType.FILE_TYPE_PDF, "%PDF-"));

  private static final String ZIP = "PK\u0003\u0004";

  private static final Map<String, FileType> EXTENSIONS =
      Map.of(
          "jpg", FileType.FILE_TYPE_JPEG,
          "jpeg", FileType.FILE_TYPE_JPEG,
          "jpe", FileType.FILE_TYPE_JPEG,
          "png", FileType.FILE_TYPE_PNG,
          "gif", FileType.FILE_TYPE_GIF,
          "pdf", FileType.FILE_TYPE_PDF,
          "txt", FileType.FILE_TYPE_TXT,
          "docx", FileType.FILE_TYPE_DOCX,
          "xlsx", FileType.FILE_TYPE_XLSX,
          "pptx", FileType.FILE_TYPE_PPTX);

  private static final String IMAGE = "; save it as JPEG or PNG";
  private static final String ARCHIVE = "; send the files in it";

  // Formats that LivePerson does not accept, but that people try to send.
  private static final List<Foreign> FOREIGN =
      List.of(
          new Foreign(
              "a HEIC image", IMAGE, "????ftyphei", "????ftyphev", "????ftypmif1", "????ftypmsf1"),
          new Foreign("an AVIF image", IMAGE, "????ftypavif", "????ftypavis"),
          new Foreign("a WebP image", IMAGE, "RIFF????WEBP"),
          new Foreign("a TIFF image", IMAGE, "II*\0", "MM\0*", "II+\0", "MM\0+"),
          new Foreign("a BMP image", IMAGE, "BM????\0\0\0\0"),
          new Foreign("a JPEG 2000 image", IMAGE, "\0\0\0\fjP  "),
          new Foreign("a JPEG XL image", IMAGE, "\0\0\0\fJXL ", "\u00ff\n"),
          new Foreign("a Photoshop document", IMAGE, "8BPS"),
          new Foreign("an icon", IMAGE, "\0\0\u0001\0"),
          new Foreign(
              "a Word, Excel or PowerPoint file in the legacy format (.doc, .xls, .ppt), or one with a password",
              "; save it as .docx, .xlsx, .pptx or PDF, without a password",
              "\u00d0\u00cf\u0011\u00e0\u00a1\u00b1\u001a\u00e1"),
          new Foreign("an MP4 or QuickTime video", "", "????ftyp"),
          new Foreign("an AVI video", "", "RIFF????AVI "),
          new Foreign("a WebM or Matroska video", "", "\u001aE\u00df\u00a3"),
          new Foreign("a WAV recording", "", "RIFF????WAVE"),
          new Foreign("an Ogg recording", "", "OggS\0"),
          new Foreign(
              "an MP3 recording", "", "ID3\u0002", "ID3\u0003", "ID3\u0004", "\u00ff\u00fb"),
          new Foreign("a gzip archive", ARCHIVE, "\u001f\u008b"),
          new Foreign("a 7-Zip archive", ARCHIVE, "7z\u00bc\u00af'\u001c"),
          new Foreign("a RAR archive", ARCHIVE, "Rar!\u001a\u0007"));

  private FileTypes() {}

  /**
   * Returns the type of a file by its first bytes (512 are enough) and, if several types have the
   * same first bytes, by the extension of its name. The bytes take precedence, because the server
   * rejects a file whose bytes do not match its type. Unspecified: the type is not known, or
   * LivePerson does not accept it, for example HEIC.
   */
  public static FileType detect(String name, byte[] head) {
    if (!foreign(head).isEmpty()) {
      return FileType.FILE_TYPE_UNSPECIFIED;
    }
    String text = new String(head, ISO_8859_1);
    // White space or a byte order mark may precede the signature of a PDF.
    String behind = text.replaceFirst("^(\u00ef\u00bb\u00bf)?[ \t\r\n\f\0]*", "");
    for (Signature s : SIGNATURES) {
      if (text.startsWith(s.bytes())
          || s.type() == FileType.FILE_TYPE_PDF && behind.startsWith(s.bytes())) {
        return s.type();
      }
    }
    String extension = name.substring(name.lastIndexOf('.') + 1).toLowerCase(Locale.ROOT);
    if (name.contains(".") && EXTENSIONS.containsKey(extension)) {
      return EXTENSIONS.get(extension);
    }
    boolean plain = head.length > 0 && !text.startsWith(ZIP) && isText(head);
    return plain ? FileType.FILE_TYPE_TXT : FileType.FILE_TYPE_UNSPECIFIED;
  }

  /** Returns the type, or throws an IllegalArgumentException that says why there is none. */
  static FileType detectOrThrow(String name, byte[] head) {
    FileType type = detect(name, head);
    if (type == FileType.FILE_TYPE_UNSPECIFIED) {
      String foreign = foreign(head);
      throw new IllegalArgumentException(
          foreign.isEmpty()
              ? "the file type cannot be detected from the bytes or the name; set fileType, or a displayName with an extension"
              : "it is " + foreign);
    }
    return type;
  }

  private static String foreign(byte[] head) {
    for (Foreign f : FOREIGN) {
      for (String s : f.signatures()) {
        if (matches(head, s)) {
          return f.name() + ", which LivePerson does not accept" + f.advice();
        }
      }
    }
    return "";
  }

  private static boolean matches(byte[] head, String signature) {
    if (head.length < signature.length()) {
      return false;
    }
    for (int i = 0; i < signature.length(); i++) {
      if (signature.charAt(i) != '?' && signature.charAt(i) != (head[i] & 0xff)) {
        return false;
      }
    }
    return true;
  }

  /**
   * Returns whether head is UTF-8 without control characters that text does not contain. Its last
   * character may be cut off.
   */
  private static boolean isText(byte[] head) {
    for (byte b : head) {
      if (b >= 0 && b < 0x20 && "\t\n\r\f".indexOf(b) < 0) {
        return false;
      }
    }
    CoderResult result =
        StandardCharsets.UTF_8
            .newDecoder()
            .onMalformedInput(CodingErrorAction.REPORT)
            .decode(ByteBuffer.wrap(head), CharBuffer.allocate(head.length), false);
    return !result.isError();
  }
}
