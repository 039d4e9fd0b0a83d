"""The bytes of uploads, and their types."""

from __future__ import annotations

import hashlib
import io

import pytest

import lpfileshare
from lpfileshare import FileType, detect_file_type
from lpfileshare._parts import crc32c
from lpfileshare._source import Bytes

DATA = bytes(range(256)) * 5


class Once(io.RawIOBase):
    """A file that cannot seek, and returns few bytes at a time."""

    def __init__(self, data: bytes) -> None:
        self._inner = io.BytesIO(data)

    def read(self, size: int = -1) -> bytes:
        return self._inner.read(min(size, 7))


def test_crc32c_of_the_check_value():
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(b"56789", crc32c(b"1234")) == 0xE3069283


@pytest.fixture(params=["path", "bytes", "memoryview", "seekable"])
def rereadable(request, tmp_path):
    if request.param == "path":
        path = tmp_path / "a.bin"
        path.write_bytes(DATA)
        return path
    if request.param == "seekable":
        return io.BytesIO(DATA)
    return DATA if request.param == "bytes" else memoryview(DATA)


def test_source_that_can_be_read_twice(rereadable):
    source = Bytes(rereadable)
    source.prepare(lambda: None, need_head=True)
    assert (source.size, source.checksums.sha256) == (len(DATA), hashlib.sha256(DATA).digest())
    assert source.head == DATA[:512]
    for _ in range(2):
        assert source.begin() == ""
        pieces = [*source.chunks(1000)]
        assert [len(p) for p in pieces] == [1000, 280]
        assert b"".join(pieces) == DATA
    source.close()


@pytest.mark.parametrize("once", [lambda: Once(DATA), lambda: iter([DATA[:3], b"", DATA[3:]])])
@pytest.mark.parametrize("need_head", [False, True])
def test_source_that_can_be_read_once(once, need_head):
    source = Bytes(once())
    source.prepare(lambda: None, need_head=need_head)
    assert (source.size, source.checksums, source.taken) == (-1, None, 0)
    assert source.begin() == "", "bytes for the type do not count"
    assert b"".join(source.chunks(1000)) == DATA
    assert "can be read only once, and 1280 bytes" in source.begin()


def test_seekable_source_begins_at_its_position():
    file = io.BytesIO(b"skipped" + DATA)
    file.seek(7)
    source = Bytes(file)
    source.prepare(lambda: None, need_head=False)
    assert b"".join(source.chunks(4096)) == DATA
    source.close()
    assert not file.closed


def test_source_that_fails():
    def pieces():
        yield b"abc"
        raise OSError("disk on fire")

    source = Bytes(pieces())
    with pytest.raises(lpfileshare.SourceError, match="disk on fire") as caught:
        list(source.chunks(10))
    assert isinstance(caught.value.__cause__, OSError)


def test_text_is_no_source():
    with pytest.raises(TypeError, match="binary mode"):
        Bytes(io.StringIO("text"))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "head", "file_type"),
    [
        ("", b"\xff\xd8\xff\xe0", FileType.JPEG),
        ("a.txt", b"\x89PNG\r\n\x1a\n", FileType.PNG),
        ("", b"\xef\xbb\xbf \n%PDF-1.7", FileType.PDF),
        ("a.DOCX", b"PK\x03\x04", FileType.DOCX),
        ("a.zip", b"PK\x03\x04", FileType.UNSPECIFIED),
        ("notes", b"hello", FileType.TXT),
        ("notes", "grüß".encode()[:-1], FileType.TXT),
        ("notes", b"\x00\x01", FileType.UNSPECIFIED),
        ("a.jpg", b"\x00\x00\x00\x18ftypheic", FileType.UNSPECIFIED),
        ("a.jpg", b"", FileType.JPEG),
    ],
)
def test_detect_file_type(name, head, file_type):
    assert detect_file_type(name, head) is file_type
