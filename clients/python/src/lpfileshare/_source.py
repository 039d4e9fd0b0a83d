"""The bytes of an upload."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from typing import BinaryIO, Protocol, cast

from ._filetype import SNIFF_BYTES
from ._parts import crc32c
from ._target import StrPath
from .errors import SourceError
from .types import Checksums


class BinaryReader(Protocol):
    """A file-like object that is open for reading in binary mode."""

    def read(self, n: int, /) -> bytes: ...


Source = StrPath | bytes | bytearray | memoryview | BinaryReader | Iterable[bytes]
"""The path of a file, bytes, a binary file, or an iterable of bytes."""

_MEASURE_BYTES = 1 << 20


class Bytes:
    """A source that is read by upload. One that can be read twice is measured first, and rewound for each attempt. Of any other, the
    bytes read are counted, because no attempt is possible once some were read. Its methods raise SourceError."""

    def __init__(self, source: Source) -> None:
        self._close = ExitStack()
        self._rewind: Callable[[], object] | None = None
        self.name = ""  # of the file, if it is known
        self.size = -1  # -1: not known
        self.checksums: Checksums | None = None  # None: not known
        self.head = b""  # the first bytes, for the type
        self._unread = b""  # the part of head that was read from a source that cannot be rewound
        self.taken = 0  # number of bytes that attempts have read since the last rewind
        self._reader = self._open(source)

    def _open(self, source: Source) -> BinaryReader:
        if isinstance(source, (str, os.PathLike)):
            file = self._close.enter_context(open(source, "rb"))
            self.name = os.path.basename(os.fspath(source))
            return self._seekable(file)
        if isinstance(source, (bytes, bytearray, memoryview)):
            return self._seekable(io.BytesIO(source))
        if hasattr(source, "read"):
            reader = cast(BinaryReader, source)
            if isinstance(reader, io.TextIOBase):
                raise TypeError("the source must be opened in binary mode")
            return self._seekable(cast(BinaryIO, reader)) if _can_seek(reader) else reader
        return _IterableReader(iter(source))

    def _seekable(self, file: BinaryIO) -> BinaryIO:
        try:
            start = file.tell()
        except OSError:
            return file
        self._rewind = lambda: file.seek(start)
        return file

    def close(self) -> None:
        """Closes the file if this object has opened it."""
        self._close.close()

    def prepare(self, check: Callable[[], None], *, need_head: bool) -> None:
        """Reads a source that can be rewound for its size, checksums and first bytes. Of any other it reads the first bytes if
        need_head is set. check raises if the operation has ended."""
        if self._rewind is None:
            while need_head and len(self._unread) < SNIFF_BYTES:
                data = self._read(SNIFF_BYTES - len(self._unread))
                if not data:
                    break
                self._unread += data
            self.head = self._unread
            return
        crc, sha, size = 0, hashlib.sha256(), 0
        while True:
            check()
            data = self._read(_MEASURE_BYTES)
            if not data:
                break
            if len(self.head) < SNIFF_BYTES:
                self.head = (self.head + data)[:SNIFF_BYTES]
            crc, size = crc32c(data, crc), size + len(data)
            sha.update(data)
        self.size, self.checksums = size, Checksums(crc, sha.digest())
        self._to_start()

    def begin(self) -> str:
        """Prepares the source for another attempt. Returns why that is not possible; empty: it is."""
        if self.taken == 0:
            return ""
        if self._rewind is None:
            return (
                f"the source can be read only once, and {self.taken} bytes of it were read; "
                "use a source that can seek, or send the whole file again under the same request id"
            )
        try:
            self._to_start()
        except SourceError as e:
            return str(e)
        return ""

    def chunks(self, size: int) -> Iterator[bytes]:
        """Yields the bytes in pieces of size bytes, the last one shorter."""
        while True:
            piece = self._unread[:size]
            self._unread = self._unread[size:]
            while len(piece) < size:
                data = self._read(size - len(piece))
                if not data:
                    break
                piece = piece + data if piece else data
            if not piece:
                return
            self.taken += len(piece)
            yield piece

    def _to_start(self) -> None:
        try:
            if self._rewind is not None:
                self._rewind()
        except Exception as e:
            raise _failed(e) from e
        self.taken = 0

    def _read(self, size: int) -> bytes:
        try:
            data = self._reader.read(size)
        except Exception as e:
            raise _failed(e) from e
        if not isinstance(data, (bytes, bytearray, memoryview)):
            raise SourceError(f"read source: it returned {type(data).__name__} instead of bytes")
        return bytes(data)


class _IterableReader:
    """Reads an iterable of bytes."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces, self._rest = pieces, b""

    def read(self, n: int) -> bytes:
        while not self._rest:
            piece = next(self._pieces, None)
            if piece is None:
                return b""
            self._rest = bytes(piece)
        data, self._rest = self._rest[:n], self._rest[n:]
        return data


def _can_seek(reader: object) -> bool:
    seekable = getattr(reader, "seekable", None)
    return bool(seekable()) if seekable is not None else hasattr(reader, "seek") and hasattr(reader, "tell")


def _failed(error: Exception) -> SourceError:
    return SourceError(f"read source: {error}")
