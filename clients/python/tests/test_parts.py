"""The verification of downloads."""

from __future__ import annotations

import hashlib

import pytest

import lpfileshare
from lpfileshare._parts import Download, DownloadOptions, crc32c
from lpfileshare.errors import CallFailed
from lpfileshare.v1 import file_pb2, file_sharing_service_pb2 as pb

DATA = b"0123456789"


def header(start=0, end=10, etag="e"):
    return pb.DownloadResponse(
        header=pb.DownloadHeader(
            file=file_pb2.File(name="f", etag=etag),
            content_range=pb.ContentRange(start_bytes=start, end_bytes=end, total_bytes=len(DATA)),
        )
    )


def chunk(offset, data, crc=None):
    return pb.DownloadResponse(chunk=file_pb2.DataChunk(offset=offset, data=data, crc32c=crc32c(data) if crc is None else crc))


def trailer(data):
    sums = file_pb2.Checksums(crc32c=crc32c(data), sha256=hashlib.sha256(data).digest())
    return pb.DownloadResponse(trailer=pb.DownloadTrailer(sent_bytes=len(data), sent_checksums=sums))


def feed(messages):
    """Feeds messages of one call. None is its end."""
    _, part = download().begin()
    for m in messages:
        if m is None:
            part.end()
        else:
            part.feed(m)


def download(**options):
    return Download(DownloadOptions("f", **options), None)


def test_whole_file():
    d = download(verify_sha256=True)
    request, part = d.begin()
    assert (request.name, request.want_checksums) == ("f", [file_pb2.CHECKSUM_KIND_SHA256])
    got = b"".join(part.feed(m) for m in (header(), chunk(0, DATA[:4]), chunk(4, DATA[4:]), trailer(DATA)))
    assert not d.complete
    part.end()
    result = d.result(1)
    assert (got, d.complete, result.size, result.total) == (DATA, True, 10, 10)
    assert result.checksums.sha256 == hashlib.sha256(DATA).digest()


def test_continues_with_the_next_byte():
    d = download()
    _, part = d.begin()
    part.feed(header())
    part.feed(chunk(0, DATA[:4]))
    request, part = d.begin()
    assert (request.read_offset, request.read_limit, request.if_match_etag) == (4, 6, "e")
    got = b"".join(part.feed(m) for m in (header(4), chunk(4, DATA[4:]), trailer(DATA[4:])))
    part.end()
    assert (got, d.result(2).size) == (DATA[4:], 10)


def test_requests_the_last_byte_again_if_only_the_trailer_is_missing():
    d = download()
    _, part = d.begin()
    part.feed(header())
    part.feed(chunk(0, DATA))
    request, part = d.begin()
    assert (request.read_offset, request.read_limit) == (9, 1)
    assert b"".join(part.feed(m) for m in (header(9), chunk(9, DATA[9:]), trailer(DATA[9:]))) == b""
    part.end()
    assert d.complete


def test_without_an_etag_it_cannot_continue():
    d = download()
    _, part = d.begin()
    part.feed(header(etag=""))
    assert d.obstacle() == ""
    part.feed(chunk(0, DATA[:1]))
    assert "no ETag" in d.obstacle()


@pytest.mark.parametrize(
    "messages",
    [
        [header(), chunk(0, DATA, crc=1)],
        [header(), chunk(0, DATA[:4]), trailer(DATA[:4])],
        [header(), chunk(0, DATA), None],
    ],
    ids=["checksum of a chunk", "trailer too early", "no trailer"],
)
def test_damage_is_repeated(messages):
    with pytest.raises(CallFailed) as caught:
        feed(messages)
    assert isinstance(caught.value.error, lpfileshare.ConnectionLost)


@pytest.mark.parametrize(
    "messages",
    [
        [chunk(0, DATA)],
        [header(), header()],
        [header(), chunk(1, DATA[1:])],
        [header(end=4), chunk(0, DATA)],
        [header(), chunk(0, DATA), trailer(DATA[::-1])],
        [header(), pb.DownloadResponse(chunk=file_pb2.DataChunk(data=DATA))],
        [pb.DownloadResponse()],
    ],
    ids=["no header", "two headers", "gap", "too many bytes", "checksum of the whole", "chunk without checksum", "unknown"],
)
def test_violation_of_the_contract_is_final(messages):
    with pytest.raises(CallFailed) as caught:
        feed(messages)
    assert not isinstance(caught.value.error, lpfileshare.ConnectionLost)
