"""The verification of downloads, without any input or output."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import google_crc32c

from .errors import broken_contract, damaged
from .types import Checksums, DownloadResult, File, FileRef, set_source
from .v1 import file_pb2, file_sharing_service_pb2 as pb


def crc32c(data: bytes, crc: int = 0) -> int:
    """Returns the CRC-32C of data after bytes whose CRC-32C is crc."""
    extended: int = google_crc32c.extend(crc, data)
    return extended


@dataclass(frozen=True)
class DownloadOptions:
    """The arguments of a download: see Client.download."""

    file: FileRef
    offset: int = 0
    limit: int = 0
    if_match_etag: str = ""
    chunk_bytes: int = 0
    verify_sha256: bool = False


class Download:
    """A file over any number of calls, each of which is a Part."""

    def __init__(self, options: DownloadOptions, on_progress: Callable[[int, int], object] | None) -> None:
        self._options, self._on_progress = options, on_progress
        self.header: pb.DownloadHeader | None = None  # of the first call
        self.complete = False  # the trailer and the whole were verified
        self.received = 0
        self.last = b""  # the last byte that was received
        self._crc, self._sha = 0, hashlib.sha256()
        # Compared with header.stored_md5. None: the store states none, or only a part is read.
        self._md5: hashlib._Hash | None = None

    def begin(self) -> tuple[pb.DownloadRequest, Part]:
        """Returns the request for the missing bytes, and what verifies the response. If only the trailer is missing, it requests the last
        byte again, because a download without a trailer is not complete."""
        o = self._options
        request = pb.DownloadRequest(
            read_offset=o.offset,
            read_limit=o.limit,
            if_match_etag=o.if_match_etag,
            max_chunk_bytes=o.chunk_bytes,
            want_checksums=[file_pb2.CHECKSUM_KIND_SHA256] if o.verify_sha256 else [],
        )
        set_source(request, o.file)
        skip = 0
        if self.header is not None and (self.received or self.header.file.etag):
            r = self.header.content_range
            position = r.start_bytes + self.received
            if position == r.end_bytes and self.received:
                position, skip = position - 1, 1
            request.read_offset, request.read_limit = position, r.end_bytes - position
            request.if_match_etag = self.header.file.etag
        return request, Part(self, skip, o.verify_sha256)

    def obstacle(self) -> str:
        """Returns why the download cannot continue after an interruption. Empty: it can."""
        if self.received and self.header is not None and not self.header.file.etag:
            return "the server sent no ETag, so the rest could be of another file"
        return ""

    def start(self, header: pb.DownloadHeader) -> None:
        """Notes the header of the first call."""
        self.header = header
        r = header.content_range
        if header.stored_md5 and r.start_bytes == 0 and r.end_bytes == r.total_bytes:
            self._md5 = hashlib.md5(usedforsecurity=False)
        self.report()

    def take(self, data: bytes) -> None:
        """Counts bytes that were verified and not seen before."""
        self._crc = crc32c(data, self._crc)
        self._sha.update(data)
        if self._md5 is not None:
            self._md5.update(data)
        self.received += len(data)
        self.last = data[-1:]

    def finish(self) -> None:
        """Verifies the whole after the last call, and completes the download."""
        if self._md5 is not None and self.header is not None and self._md5.digest() != self.header.stored_md5:
            raise broken_contract(
                "the file does not have the MD5 that the store states: "
                "it was damaged in the store, or on the way from it to the server; discard it"
            )
        self.complete = True

    def report(self) -> None:
        """Reports the progress."""
        if self._on_progress is not None and self.header is not None:
            r = self.header.content_range
            self._on_progress(self.received, r.end_bytes - r.start_bytes)

    def result(self, attempts: int) -> DownloadResult:
        """Returns the result of a complete download."""
        header = self.header or pb.DownloadHeader()
        return DownloadResult(
            file=File.of(header.file),
            start=header.content_range.start_bytes,
            total=header.content_range.total_bytes,
            size=self.received,
            checksums=Checksums(self._crc, self._sha.digest()),
            attempts=attempts,
        )


class Part:
    """Verifies the response of one call. Its methods raise CallFailed."""

    def __init__(self, download: Download, skip: int, verify_sha256: bool) -> None:
        self._download = download
        self._skip = skip  # number of bytes at the beginning that an earlier call has returned
        self._start = self._end = self._offset = 0
        self._crc = 0
        self._sha = hashlib.sha256() if verify_sha256 else None
        self._header = self._trailer = False

    def feed(self, message: pb.DownloadResponse) -> bytes:
        """Verifies one message. Returns the new bytes in it."""
        match message.WhichOneof("payload"):
            case "header":
                self._begin(message.header)
                return b""
            case "chunk":
                return self._chunk(message.chunk)
            case "trailer":
                self._finish(message.trailer)
                return b""
        raise broken_contract("the server sent a message of an unknown kind")

    def end(self) -> None:
        """Verifies that the call ended after its trailer, and then the whole."""
        if not self._trailer:
            raise damaged(f"the download ended without a trailer, {self._end - self._offset} bytes before its end")
        self._download.finish()

    def _begin(self, header: pb.DownloadHeader) -> None:
        r = header.content_range
        if self._header:
            raise broken_contract("the server sent a second header")
        if not 0 <= r.start_bytes <= r.end_bytes <= r.total_bytes:
            raise broken_contract(f"the server sent an impossible range: {r.start_bytes} to {r.end_bytes} of {r.total_bytes}")
        self._header, self._start, self._offset, self._end = True, r.start_bytes, r.start_bytes, r.end_bytes
        first = self._download.header
        if first is None:
            self._download.start(header)
            return
        f = first.content_range
        wanted = (f.start_bytes + self._download.received - self._skip, f.end_bytes, f.total_bytes, first.file.etag)
        if (r.start_bytes, r.end_bytes, r.total_bytes, header.file.etag) != wanted:
            raise broken_contract(
                "the server continued with other bytes than requested: "
                f"{r.start_bytes} to {r.end_bytes} of {r.total_bytes}, ETag {header.file.etag!r}"
            )

    def _chunk(self, chunk: file_pb2.DataChunk) -> bytes:
        data = chunk.data
        if not self._header or self._trailer:
            raise broken_contract("the server sent bytes before the header or after the trailer")
        if chunk.offset != self._offset:
            raise broken_contract(f"the server sent byte {chunk.offset} instead of byte {self._offset}")
        if len(data) > self._end - self._offset:
            raise broken_contract(f"the server sent more bytes than the {self._end} that it announced")
        if not chunk.HasField("crc32c"):
            raise broken_contract("the server sent bytes without a checksum")
        if crc32c(data) != chunk.crc32c:
            raise damaged(f"the bytes from offset {self._offset} on were damaged in transit")
        self._offset += len(data)
        self._crc = crc32c(data, self._crc)
        if self._sha is not None:
            self._sha.update(data)
        if self._skip and data:
            if data[:1] != self._download.last:
                raise broken_contract("the file has changed, although its ETag has not")
            self._skip, data = 0, data[1:]
        if data:
            self._download.take(data)
        return data

    def _finish(self, trailer: pb.DownloadTrailer) -> None:
        sent = self._offset - self._start
        sums = trailer.sent_checksums
        if not self._header or self._trailer:
            raise broken_contract("the server sent a trailer before the header, or a second one")
        if self._offset != self._end:
            raise damaged(f"the server ended the download {self._end - self._offset} bytes before its end")
        if trailer.sent_bytes != sent:
            raise damaged(f"{sent} bytes arrived of {trailer.sent_bytes} that were sent")
        if not sums.HasField("crc32c"):
            raise broken_contract("the server sent a trailer without a checksum")
        if self._sha is not None and not sums.sha256:
            raise broken_contract("the server sent a trailer without the requested SHA-256")
        if sums.crc32c != self._crc or (self._sha is not None and sums.sha256 != self._sha.digest()):
            raise broken_contract(
                "the checksums of the sent and the received bytes differ, although each chunk was correct; download the file again"
            )
        self._trailer = True
