//! The type of a file by its first bytes and its name.

use crate::proto::FileType;

/// The number of first bytes that [`detect_file_type`] uses.
pub(crate) const SNIFF_BYTES: usize = 512;

struct Row {
    file_type: FileType,
    extensions: &'static [&'static str],
    /// The possible first bytes. None: text in UTF-8.
    signatures: &'static [&'static [u8]],
}

const ZIP: &[&[u8]] = &[b"PK\x03\x04"];

const ROWS: [Row; 8] = [
    Row { file_type: FileType::Jpeg, extensions: &["jpg", "jpeg", "jpe"], signatures: &[b"\xff\xd8\xff"] },
    Row { file_type: FileType::Png, extensions: &["png"], signatures: &[b"\x89PNG\r\n\x1a\n"] },
    Row { file_type: FileType::Gif, extensions: &["gif"], signatures: &[b"GIF87a", b"GIF89a"] },
    Row { file_type: FileType::Pdf, extensions: &["pdf"], signatures: &[b"%PDF-"] },
    Row { file_type: FileType::Txt, extensions: &["txt"], signatures: &[] },
    Row { file_type: FileType::Docx, extensions: &["docx"], signatures: ZIP },
    Row { file_type: FileType::Xlsx, extensions: &["xlsx"], signatures: ZIP },
    Row { file_type: FileType::Pptx, extensions: &["pptx"], signatures: ZIP },
];

const AS_IMAGE: &str = "; save it as JPEG or PNG";
const UNPACK: &str = "; send the files in it";

/// Formats that LivePerson does not accept, but that people try to send. `?` stands for any byte. The first match counts.
#[rustfmt::skip]
const FOREIGN: [(&[&[u8]], &str, &str); 20] = [
    (&[b"????ftypheic", b"????ftypheix", b"????ftypheim", b"????ftypheis", b"????ftyphevc", b"????ftyphevx", b"????ftypmif1", b"????ftypmsf1"],
        "a HEIC image", "; save it as JPEG or PNG (on an iPhone: Settings, Camera, Formats, Most Compatible)"),
    (&[b"????ftypavif", b"????ftypavis"], "an AVIF image", AS_IMAGE),
    (&[b"RIFF????WEBP"], "a WebP image", AS_IMAGE),
    (&[b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+"], "a TIFF image", AS_IMAGE),
    (&[b"BM????\x00\x00\x00\x00"], "a BMP image", AS_IMAGE),
    (&[b"\x00\x00\x00\x0cjP  "], "a JPEG 2000 image", AS_IMAGE),
    (&[b"\x00\x00\x00\x0cJXL ", b"\xff\x0a"], "a JPEG XL image", AS_IMAGE),
    (&[b"8BPS"], "a Photoshop document", AS_IMAGE),
    (&[b"\x00\x00\x01\x00"], "an icon", AS_IMAGE),
    (&[b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"], "a Word, Excel or PowerPoint file in the legacy format (.doc, .xls, .ppt), or one with a password",
        "; save it as .docx, .xlsx, .pptx or PDF, without a password"),
    (&[b"????ftyp"], "an MP4 or QuickTime video", ""),
    (&[b"RIFF????AVI "], "an AVI video", ""),
    (&[b"\x1a\x45\xdf\xa3"], "a WebM or Matroska video", ""),
    (&[b"RIFF????WAVE"], "a WAV recording", ""),
    (&[b"OggS\x00"], "an Ogg recording", ""),
    (&[b"ID3\x02", b"ID3\x03", b"ID3\x04", b"\xff\xfb"], "an MP3 recording", ""),
    (&[b"\x1f\x8b"], "a gzip archive", UNPACK),
    (&[b"7z\xbc\xaf\x27\x1c"], "a 7-Zip archive", UNPACK),
    (&[b"Rar!\x1a\x07"], "a RAR archive", UNPACK),
    (&[b"\xff\xfe", b"\xfe\xff"], "a text that is not in UTF-8", "; save it with the encoding UTF-8"),
];

/// Returns the type of a file by its first bytes (512 are enough) and, if several types have the same first bytes, by the extension of
/// its name. The bytes take precedence, because the server rejects a file whose bytes do not match its type. The error says why there is
/// none, for example that the bytes are those of a HEIC image.
pub fn detect_file_type(name: &str, head: &[u8]) -> Result<FileType, String> {
    let head = &head[..head.len().min(SNIFF_BYTES)];
    if let Some((_, format, advice)) = FOREIGN.iter().find(|(signatures, ..)| starts(head, signatures)) {
        return Err(format!("it is {format}, which LivePerson does not accept{advice}"));
    }
    // A byte order mark or white space may come before the signature of a PDF.
    let text = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head).trim_ascii_start();
    let signed = |row: &&Row| starts(head, row.signatures) || row.file_type == FileType::Pdf && starts(text, row.signatures);
    let mut by_bytes = ROWS.iter().filter(signed);
    let extension = name.rsplit_once('.').map_or(String::new(), |(_, e)| e.to_ascii_lowercase());
    let by_name = ROWS.iter().find(|row| row.extensions.contains(&extension.as_str()));
    match (by_bytes.next(), by_bytes.next(), by_name) {
        (Some(only), None, _) => Ok(only.file_type),
        (_, _, Some(named)) => Ok(named.file_type),
        (None, ..) if !head.is_empty() && is_text(head) => Ok(FileType::Txt),
        _ => {
            Err("the file type cannot be detected from the bytes or the name; set file_type, or a display_name with an extension"
                .to_owned())
        }
    }
}

fn starts(head: &[u8], signatures: &[&[u8]]) -> bool {
    signatures.iter().any(|s| head.len() >= s.len() && s.iter().zip(head).all(|(want, got)| *want == b'?' || want == got))
}

/// Reports whether bytes are UTF-8 without the control characters that text does not contain. The last character may be cut off.
fn is_text(head: &[u8]) -> bool {
    let valid = match std::str::from_utf8(head) {
        Ok(_) => true,
        Err(e) => e.error_len().is_none(),
    };
    valid && !head.iter().any(|c| *c < b' ' && !b"\t\n\r\x0c".contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn detects() {
        for (name, head, want) in [
            ("", &b"\xff\xd8\xff\xe0"[..], Some(FileType::Jpeg)),
            ("cat.png", b"\xff\xd8\xff\xe0", Some(FileType::Jpeg)),
            ("", b" \r\n%PDF-1.4", Some(FileType::Pdf)),
            ("a.XLSX", b"PK\x03\x04", Some(FileType::Xlsx)),
            ("a", b"PK\x03\x04", None),
            ("", b"hello", Some(FileType::Txt)),
            ("", b"cut \xe2\x82", Some(FileType::Txt)),
            ("a.pdf", b"not one", Some(FileType::Pdf)),
            ("a.jpg", b"\x00\x00\x00\x18ftypheic", None),
            ("", b"MZ\x90\x00", None),
            ("", b"", None),
            ("a.txt", b"", Some(FileType::Txt)),
        ] {
            assert_eq!(detect_file_type(name, head).ok(), want, "{name:?} {head:?}");
        }
        let heic = detect_file_type("a.jpg", b"\x00\x00\x00\x18ftypheic").unwrap_err();
        assert!(heic.starts_with("it is a HEIC image, which LivePerson does not accept; save it as JPEG or PNG"), "{heic}");
    }
}
