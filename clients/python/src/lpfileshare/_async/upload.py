"""Uploads of the asynchronous client: the synchronous code of _sync/upload.py in a thread. See there for the reason."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import AsyncIterable, Callable, Coroutine, Iterator
from concurrent.futures import Future
from dataclasses import replace
from typing import Any, Protocol, TypeVar

from .._cancellation import Cancellation
from .._secret import Secret
from .._source import Source
from .._sync import connection as blocking, identity as blocking_identity, io as blocking_io
from .._sync.caller import Caller
from .._sync.upload import run_upload as run_blocking
from .._uploads import CHUNK_BYTES, UploadOptions
from ..errors import LpFileShareError
from ..types import UploadResult
from .identity import BoundIdentity
from .io import Operation

T = TypeVar("T")


class AsyncReader(Protocol):
    """A file-like object whose read is a coroutine function."""

    async def read(self, n: int, /) -> bytes: ...


AsyncSource = Source | AsyncIterable[bytes] | AsyncReader
"""What upload takes: a Source, an asynchronous iterable of bytes, or a binary file with a coroutine function read."""


async def run_upload(
    connection: blocking.Connection,
    identity: BoundIdentity,
    source: AsyncSource,
    options: UploadOptions,
    timeout: float | None,
) -> UploadResult:
    """Uploads a source: see AsyncClient.upload."""
    loop, cancel, result = asyncio.get_running_loop(), Cancellation(), Future[UploadResult]()
    caller = Caller(connection, _Bridged(identity, loop))
    bridged = _bridge(source, loop, cancel)
    options = replace(options, on_progress=_in_loop(options.on_progress, loop), on_accepted=_in_loop(options.on_accepted, loop))

    def run(result: Future[UploadResult]) -> None:
        try:
            result.set_result(run_blocking(caller, bridged, options, timeout, cancel))
        except BaseException as e:
            result.set_exception(e)
        finally:
            del result  # it keeps the error, whose traceback has this frame: see LpFileShareError.fresh

    threading.Thread(target=run, args=(result,), name="lpfileshare-upload", daemon=True).start()
    waiting = asyncio.wrap_future(result)
    try:
        return await asyncio.shield(waiting)
    except asyncio.CancelledError:
        cancel.cancel()
        await asyncio.wait([waiting])
        if not waiting.cancelled():
            waiting.exception()  # it is Cancelled
        raise
    finally:
        del result, waiting


class _Bridged(blocking_identity.BoundIdentity):
    """The identity of an asynchronous client, for a thread."""

    def __init__(self, identity: BoundIdentity, loop: asyncio.AbstractEventLoop) -> None:
        self._outer, self._loop = identity, loop

    def token(self, op: blocking_io.Operation) -> Secret | None:
        return _wait(self._outer.token(Operation(op.name, op.remaining(None))), self._loop, op.on_cancel)

    def renew(self, op: blocking_io.Operation, error: LpFileShareError, rejected: Secret | None) -> bool:
        inner = Operation(op.name, op.remaining(None))
        return _wait(self._outer.renew(inner, error, rejected), self._loop, op.on_cancel)

    def metadata(self, token: Secret | None) -> Any:
        return self._outer.metadata(token)


def _wait(coroutine: Coroutine[Any, Any, T], loop: asyncio.AbstractEventLoop, on_cancel: Callable[[Callable[[], object]], Any]) -> T:
    """Runs a coroutine in the loop and waits for it, in a thread."""
    future = asyncio.run_coroutine_threadsafe(coroutine, loop)
    try:
        with on_cancel(future.cancel):
            return future.result()
    finally:
        del future  # it keeps the error, whose traceback has this frame: see LpFileShareError.fresh


def _bridge(source: AsyncSource, loop: asyncio.AbstractEventLoop, cancel: Cancellation) -> Source:
    if isinstance(source, AsyncIterable):
        return _pieces(aiter(source).__anext__, loop, cancel)
    read = getattr(source, "read", None)
    if read is not None and inspect.iscoroutinefunction(read):
        return _pieces(lambda: read(CHUNK_BYTES), loop, cancel)
    return source  # type: ignore[return-value]  # all other kinds are handled


def _pieces(read: Callable[[], Any], loop: asyncio.AbstractEventLoop, cancel: Cancellation) -> Iterator[bytes]:
    async def step() -> bytes:
        try:
            piece: bytes = await read()
        except StopAsyncIteration:
            return b""
        return piece

    # An empty piece of an iterable is not its end, but nobody sends one on purpose.
    while piece := _wait(step(), loop, cancel.on_cancel):
        yield piece


def _in_loop(callback: Callable[..., object] | None, loop: asyncio.AbstractEventLoop) -> Callable[..., None] | None:
    if callback is None:
        return None
    called = callback

    def call(*args: object) -> None:
        loop.call_soon_threadsafe(called, *args)

    return call
