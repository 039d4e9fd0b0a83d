"""The verification of downloads."""

from __future__ import annotations

import contextlib
import hashlib

import grpc
import pytest

import lpfileshare
from lpfileshare._parts import Download, DownloadOptions, crc32c
from lpfileshare.errors import CallFailed
from lpfileshare.v1 import file_pb2, file_sharing_service_pb2 as pb

DATA = b"0123456789"
MD5 = hashlib.md5(DATA).digest()
OTHER_MD5 = hashlib.md5(b"other").digest()


def header(start=0, end=10, etag="e", total=10, stored_md5=b""):
    return pb.DownloadResponse(
        header=pb.DownloadHeader(
            file=file_pb2.File(name="f", etag=etag),
            content_range=pb.ContentRange(start_bytes=start, end_bytes=end, total_bytes=total),
            stored_md5=stored_md5,
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


def receive(d, messages):
    """Receives one call to its end. Returns the new bytes."""
    _, part = d.begin()
    got = b"".join(part.feed(m) for m in messages)
    part.end()
    return got


@pytest.mark.parametrize(
    "messages",
    [
        [header(stored_md5=MD5), chunk(0, DATA), trailer(DATA)],
        [header(stored_md5=b""), chunk(0, DATA), trailer(DATA)],
        [header(start=1, stored_md5=OTHER_MD5), chunk(1, DATA[1:]), trailer(DATA[1:])],
        [header(end=9, stored_md5=OTHER_MD5), chunk(0, DATA[:9]), trailer(DATA[:9])],
        [header(end=0, total=0, stored_md5=hashlib.md5(b"").digest()), trailer(b"")],
    ],
    ids=["same", "not stated", "without the first byte", "without the last byte", "empty file"],
)
def test_stored_md5_is_that_of_a_whole_file(messages):
    d = download()
    receive(d, messages)
    assert d.complete


@pytest.mark.parametrize(
    "messages",
    [
        [header(stored_md5=OTHER_MD5), chunk(0, DATA[:4]), chunk(4, DATA[4:]), trailer(DATA)],
        [header(end=0, total=0, stored_md5=OTHER_MD5), trailer(b"")],
    ],
    ids=["file", "empty file"],
)
def test_another_stored_md5_is_final(messages):
    d = download()
    with pytest.raises(CallFailed) as caught:
        receive(d, messages)
    error = caught.value.error
    assert (type(error), error.code, error.reason) == (lpfileshare.LpFileShareError, grpc.StatusCode.DATA_LOSS, "")
    assert "MD5 that the store states" in error.message
    assert not d.complete


@pytest.mark.parametrize(("md5", "complete"), [(MD5, True), (OTHER_MD5, False)], ids=["same", "other"])
def test_stored_md5_covers_the_bytes_of_all_calls(md5, complete):
    d = download()
    _, part = d.begin()
    for m in (header(stored_md5=md5), chunk(0, DATA[:4])):
        part.feed(m)
    with contextlib.suppress(CallFailed):
        receive(d, [header(4, stored_md5=md5), chunk(4, DATA[4:]), trailer(DATA[4:])])
    assert d.complete == complete
