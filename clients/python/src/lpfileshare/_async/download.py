"""Downloads."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Self

from .._parts import Download, Part
from .._retry import Pacer
from .._secret import Secret
from ..errors import CallFailed
from ..types import DownloadResult, File
from ..v1.file_sharing_service_pb2 import DownloadResponse
from .caller import AsyncCaller
from .connection import AsyncServer
from .io import Operation, ServerStream

_CALL_LIMIT = 600.0  # seconds for one call


class AsyncDownloadStream:
    """A file, or a part of it, for reading. Every byte was verified.

    The end of the stream is reported only after the whole was verified, and a whole file also against the MD5 that the store states: if a
    check fails, reading raises. After any error but that of the MD5 the bytes before are a correct beginning of the file. Interruptions
    are continued. The caller closes the stream, for example by a with block.
    """

    def __init__(self, caller: AsyncCaller, op: Operation, download: Download, retry_for: float) -> None:
        self._caller, self._op, self._download = caller, op, download
        self._pace = Pacer(op.name, retry_for)
        self._open: tuple[ServerStream[DownloadResponse], Part] | None = None
        self._server: AsyncServer | None = None
        self._secret: Secret | None = None  # of the open call
        self._data = b""  # verified and not read yet
        self._closed = False

    async def start(self) -> Self:
        """Receives the first bytes, so that errors such as FILE_NOT_FOUND are raised here."""
        self._data = await self.next()
        return self

    @property
    def file(self) -> File:
        """The file, with the store's size and ETag."""
        return self._download.result(0).file

    @property
    def start_byte(self) -> int:
        """Position of the first byte in the file."""
        return self._download.result(0).start

    @property
    def size(self) -> int:
        """Number of bytes of this download in all."""
        r = self._download.header.content_range if self._download.header else None
        return r.end_bytes - r.start_bytes if r else 0

    @property
    def result(self) -> DownloadResult | None:
        """The result. None until everything was received and verified."""
        return self._download.result(self._pace.attempts) if self._download.complete else None

    def complete(self) -> DownloadResult:
        """Returns the result after the end of the stream. Raises ValueError before."""
        result = self.result
        if result is None:
            raise ValueError("the download is not complete")
        return result

    async def read(self, size: int = -1) -> bytes:
        """Returns up to size bytes, fewer only at the end. Negative: all that follow. Empty: the end."""
        pieces, missing = [], size
        while missing != 0:
            data = self._data or await self.next()
            if not data:
                break
            piece, self._data = (data, b"") if missing < 0 else (data[:missing], data[missing:])
            if missing > 0:
                missing -= len(piece)
            pieces.append(piece)
            if not self._data:
                self._download.report()
        return b"".join(pieces)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Yields the bytes as they arrive."""
        while data := self._data or await self.next():
            self._data = b""
            yield data
            self._download.report()

    async def next(self) -> bytes:
        """Returns the next bytes, at least one. Empty: the download is complete."""
        if self._closed:
            raise ValueError("read of a closed download")
        while not self._download.complete:
            try:
                data = await self._pull()
            except CallFailed as e:
                error = e.error
            except BaseException:
                self._end()
                raise
            else:
                if data:
                    self._pace.progress()
                    return data
                continue
            self._end()
            if self._server is not None:
                await self._caller.again(self._op, self._pace, error, self._server, self._secret, self._download.obstacle)
        return b""

    async def _pull(self) -> bytes:
        """Receives one message."""
        stream, part = self._open or await self._begin()
        message = await stream.receive()
        if message is not None:
            return part.feed(message)
        part.end()
        self._end()
        return b""

    async def _begin(self) -> tuple[ServerStream[DownloadResponse], Part]:
        self._op.check()
        self._pace.attempts += 1
        self._server = self._caller.connection.pick()
        self._secret = await self._caller.identity.token(self._op)
        request, part = self._download.begin()
        metadata = self._caller.identity.metadata(self._secret)
        self._open = ServerStream(self._op, self._server.files.Download, request, metadata=metadata, limit=_CALL_LIMIT), part
        return self._open

    def _end(self) -> None:
        """Closes the open call."""
        call, self._open = self._open, None
        if call is not None:
            call[0].cancel()

    async def close(self) -> None:
        """Ends the download. May be called repeatedly."""
        self._closed = True
        self._end()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
