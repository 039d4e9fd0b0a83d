"""What failed operations leave in memory. A server in this process rejects them."""

from __future__ import annotations

import asyncio
import gc
import io
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

import lpfileshare


class Rejecting(grpc.GenericRpcHandler):
    """Rejects each upload after its first, second or last message: the conversation says which. It has no health service, so clients
    take it as healthy."""

    def service(self, details):
        if not details.method.endswith("/Upload"):
            return None

        def reject(requests, context):
            spec = next(requests)
            if b"/first" not in spec:
                context.send_initial_metadata((("lpfs-request-id", "r"),))
                next(requests, None)
                if b"/last" in spec:
                    for _ in requests:
                        pass
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, "no")

        return grpc.stream_stream_rpc_method_handler(reject)


@pytest.fixture(scope="module")
def address():
    server = grpc.server(ThreadPoolExecutor(4), handlers=[Rejecting()])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None).wait()


@pytest.fixture
def without_gc():
    gc.collect()
    gc.disable()
    yield
    gc.enable()


class Source(io.BytesIO):
    """A source that fails in its pass number fails_in, and reports when it is released."""

    def __init__(self, fails_in):
        super().__init__(b"\xff\xd8\xff" + bytes(3_000_000))
        self.fails_in, self.passes, self.released = fails_in, 1, threading.Event()
        weakref.finalize(self, self.released.set)

    def seek(self, offset, whence=0):
        self.passes += 1
        return super().seek(offset, whence)

    def read(self, size=-1):
        if self.passes == self.fails_in:
            raise OSError("no disk")
        return super().read(size)


def raises(error):
    return pytest.raises(lpfileshare.LpFileShareError, match=rf": {error} \[")


def upload(address, source, conversation, error):
    with lpfileshare.Client(address, identity=lpfileshare.ConsumerToken("t")) as client, raises(error):
        client.upload(source, conversation=conversation, file_type=lpfileshare.FileType.JPEG)


def upload_async(address, source, conversation, error):
    async def run():
        # An error that leaves asyncio.run is in a cycle of asyncio.
        async with lpfileshare.AsyncClient(address, identity=lpfileshare.ConsumerToken("t")) as client:
            with raises(error):
                await client.upload(source, conversation=conversation, file_type=lpfileshare.FileType.JPEG)

    asyncio.run(run())


@pytest.mark.usefixtures("without_gc")
@pytest.mark.parametrize("call", [upload, upload_async])
@pytest.mark.parametrize(
    ("fails_in", "conversation", "error"),
    [(0, "first", "no"), (0, "second", "no"), (1, "first", "read source: no disk"), (2, "last", "read source: no disk")],
    ids=["rejected", "rejected while it is sent", "source fails first", "source fails while it is sent"],
)
def test_failed_upload_releases_its_source_without_the_garbage_collector(address, call, fails_in, conversation, error):
    source = Source(fails_in)
    released = source.released
    call(address, source, f"accounts/1/conversations/{conversation}", error)
    del source
    assert released.wait(30)
