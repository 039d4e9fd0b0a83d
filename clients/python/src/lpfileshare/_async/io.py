"""How the asynchronous client calls gRPC and waits. _sync/io.py has the same names for threads."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

import grpc
import grpc.aio

from .._secret import HiddenMetadata
from .._target import Settings
from ..errors import CallFailed, DeadlineExceeded

Req = TypeVar("Req")
Resp = TypeVar("Resp")
T = TypeVar("T")

AsyncChannel = grpc.aio.Channel
UnaryMethod = grpc.aio.UnaryUnaryMultiCallable
StreamMethod = grpc.aio.UnaryStreamMultiCallable
Task = asyncio.Task


def open_channel(settings: Settings, address: str) -> grpc.aio.Channel:
    """Returns a channel, which connects on demand. It belongs to the running event loop."""
    if settings.credentials is None:
        return grpc.aio.insecure_channel(address, settings.options)
    return grpc.aio.secure_channel(address, settings.credentials, settings.options)


class Operation:
    """An operation of the caller over any number of calls, with its deadline. timeout is in seconds. asyncio cancels it."""

    def __init__(self, name: str, timeout: float | None) -> None:
        self.name = name
        self._deadline = None if timeout is None else time.monotonic() + timeout

    def check(self) -> None:
        """Raises DeadlineExceeded if the deadline has passed."""
        if self._deadline is not None and time.monotonic() >= self._deadline:
            raise DeadlineExceeded("the timeout has passed", op=self.name, code=grpc.StatusCode.DEADLINE_EXCEEDED)

    def remaining(self, limit: float | None) -> float | None:
        """Returns the seconds until the deadline, at most limit. None: there is no limit."""
        if self._deadline is None:
            return limit
        left = max(self._deadline - time.monotonic(), 0.0)
        return left if limit is None else min(left, limit)

    async def sleep(self, seconds: float) -> None:
        """Waits, at most until the deadline."""
        await asyncio.sleep(self.remaining(seconds) or 0.0)
        self.check()

    async def join(self, task: asyncio.Task[T]) -> T:
        """Waits for a task that also others wait for."""
        done, _ = await asyncio.wait([task], timeout=self.remaining(None))
        if not done:
            self.check()
        return task.result()


def spawn(function: Callable[[], Coroutine[Any, Any, T]]) -> asyncio.Task[T]:
    """Runs a function that must finish even if nobody waits for it any more."""
    return asyncio.get_running_loop().create_task(function())


async def unary(
    op: Operation,
    method: UnaryMethod[Req, Resp],
    request: Req,
    *,
    metadata: HiddenMetadata,
    limit: float,
    wait_for_ready: bool,
) -> Resp:
    """Makes a call of at most limit seconds. Raises CallFailed."""
    try:
        return await method(request, timeout=op.remaining(limit), metadata=metadata, wait_for_ready=wait_for_ready)
    except grpc.aio.AioRpcError as e:
        raise failure(e) from None
    except asyncio.CancelledError:
        pass
    raise ended()


# No error that reaches the caller may have a traceback with gRPC's call: it keeps the connection open, even after close.


def failure(error: grpc.aio.AioRpcError) -> CallFailed:
    """Converts an error of gRPC."""
    return CallFailed.of(error.code(), error.details(), error.trailing_metadata())


def ended() -> BaseException:
    """Returns the error of a call that was cancelled: CancelledError if that was the running task, and otherwise what it means that
    another task has closed the channel."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        return asyncio.CancelledError()
    return CallFailed.of(grpc.StatusCode.CANCELLED, "the connection was closed", ())


class ServerStream(Generic[Resp]):
    """A call with one request and any number of responses."""

    def __init__(
        self,
        op: Operation,
        method: StreamMethod[Any, Resp],
        request: object,
        *,
        metadata: HiddenMetadata,
        limit: float | None,
    ) -> None:
        self._call: Any = method(request, timeout=op.remaining(limit), metadata=metadata)

    async def receive(self, silence: float | None = None) -> Resp | None:
        """Returns the next message, or None after the last one. Raises CallFailed. silence: seconds to wait for the message."""
        try:
            async with asyncio.timeout(silence):
                message = await self._read()
            return None if message is grpc.aio.EOF else message
        except TimeoutError:
            self.cancel()
            raise CallFailed.of(grpc.StatusCode.UNAVAILABLE, f"no message for {silence:g} s", ()) from None
        except grpc.aio.AioRpcError as e:
            raise failure(e) from None

    async def _read(self) -> Any:
        try:
            return await self._call.read()
        except asyncio.CancelledError:
            self.cancel()
        raise ended()

    def cancel(self) -> None:
        """Ends the call."""
        call, self._call = self._call, None
        if call is not None:
            call.cancel()
