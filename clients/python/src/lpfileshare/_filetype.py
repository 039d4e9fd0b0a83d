"""Detection of file types. The tables are those of the server (internal/share)."""

from __future__ import annotations

import os

from .types import FileType

SNIFF_BYTES = 512  # number of first bytes that detect uses

_SIGNATURES = {
    FileType.JPEG: (b"\xff\xd8\xff",),
    FileType.PNG: (b"\x89PNG\r\n\x1a\n",),
    FileType.GIF: (b"GIF87a", b"GIF89a"),
    FileType.PDF: (b"%PDF-",),
}
_ZIP = b"PK\x03\x04"
_EXTENSIONS = {
    ".jpg": FileType.JPEG,
    ".jpeg": FileType.JPEG,
    ".jpe": FileType.JPEG,
    ".png": FileType.PNG,
    ".gif": FileType.GIF,
    ".pdf": FileType.PDF,
    ".txt": FileType.TXT,
    ".docx": FileType.DOCX,
    ".xlsx": FileType.XLSX,
    ".pptx": FileType.PPTX,
}

# Formats that LivePerson does not accept, but that people try to send. "?" stands for any byte. The first match counts.
_IMAGE = "save it as JPEG or PNG"
_FOREIGN = (
    ("a HEIC image", _IMAGE, [b"????ftyp" + b for b in (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")]),
    ("an AVIF image", _IMAGE, [b"????ftypavif", b"????ftypavis"]),
    ("a WebP image", _IMAGE, [b"RIFF????WEBP"]),
    ("a TIFF image", _IMAGE, [b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+"]),
    ("a BMP image", _IMAGE, [b"BM????\x00\x00\x00\x00"]),
    ("a JPEG 2000 image", _IMAGE, [b"\x00\x00\x00\x0cjP  "]),
    ("a JPEG XL image", _IMAGE, [b"\x00\x00\x00\x0cJXL ", b"\xff\x0a"]),
    ("a Photoshop document", _IMAGE, [b"8BPS"]),
    ("an icon", _IMAGE, [b"\x00\x00\x01\x00"]),
    (
        "a Word, Excel or PowerPoint file in the legacy format (.doc, .xls, .ppt), or one with a password",
        "save it as .docx, .xlsx, .pptx or PDF, without a password",
        [b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"],
    ),
    ("an MP4 or QuickTime video", "", [b"????ftyp"]),
    ("an AVI video", "", [b"RIFF????AVI "]),
    ("a WebM or Matroska video", "", [b"\x1a\x45\xdf\xa3"]),
    ("a WAV recording", "", [b"RIFF????WAVE"]),
    ("an Ogg recording", "", [b"OggS\x00"]),
    ("an MP3 recording", "", [b"ID3\x02", b"ID3\x03", b"ID3\x04", b"\xff\xfb"]),
    ("a gzip archive", "send the files in it", [b"\x1f\x8b"]),
    ("a 7-Zip archive", "send the files in it", [b"7z\xbc\xaf\x27\x1c"]),
    ("a RAR archive", "send the files in it", [b"Rar!\x1a\x07"]),
)


def detect_file_type(name: str, head: bytes) -> FileType:
    """Returns the type of a file by its first bytes (512 are enough) and, if several types have the same first bytes, by the
    extension of its name. The bytes take precedence, because the server rejects a file whose bytes do not match its type.
    UNSPECIFIED: the type is not known, or LivePerson does not accept it, for example HEIC."""
    if foreign_format(head):
        return FileType.UNSPECIFIED
    # White space or a byte order mark may precede the signature of a PDF.
    behind = head.removeprefix(b"\xef\xbb\xbf").lstrip(b" \t\r\n\f\x00")
    for file_type, signatures in _SIGNATURES.items():
        if head.startswith(signatures) or (file_type is FileType.PDF and behind.startswith(signatures)):
            return file_type
    by_name = _EXTENSIONS.get(os.path.splitext(name)[1].lower())
    if by_name is not None:
        return by_name
    if head and not head.startswith(_ZIP) and _is_text(head):
        return FileType.TXT
    return FileType.UNSPECIFIED


def foreign_format(head: bytes) -> str:
    """Describes the format that the first bytes show, if it is one that LivePerson does not accept. Empty otherwise."""
    for name, advice, signatures in _FOREIGN:
        if any(_matches(head, s) for s in signatures):
            return f"{name}, which LivePerson does not accept" + (f"; {advice}" if advice else "")
    return ""


def undetected(head: bytes) -> str:
    """Returns why detect_file_type returned UNSPECIFIED for these first bytes."""
    foreign = foreign_format(head)
    if foreign:
        return "it is " + foreign
    return "the file type cannot be detected from the bytes or the name; set file_type, or a display_name with an extension"


def _matches(head: bytes, signature: bytes) -> bool:
    return len(head) >= len(signature) and all(s in (ord("?"), h) for s, h in zip(signature, head, strict=False))


def _is_text(head: bytes) -> bool:
    """Whether head is UTF-8 without the control characters that text does not contain. Its last character may be cut off."""
    if any(c < 0x20 and c not in b"\t\n\r\f" for c in head):
        return False
    try:
        head.decode()
    except UnicodeDecodeError as e:
        return e.reason == "unexpected end of data"
    return True
