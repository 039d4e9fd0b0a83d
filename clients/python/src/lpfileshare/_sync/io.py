"""How the synchronous client calls gRPC and waits. _async/io.py has the same names for asyncio."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Generic, TypeVar

import grpc

from .._cancellation import Cancellation
from .._secret import HiddenMetadata
from .._target import Settings
from ..errors import CallFailed, Cancelled, DeadlineExceeded

Req = TypeVar("Req")
Resp = TypeVar("Resp")
T = TypeVar("T")

Channel = grpc.Channel
UnaryMethod = grpc.UnaryUnaryMultiCallable
StreamMethod = grpc.UnaryStreamMultiCallable
Task = Future


def open_channel(settings: Settings, address: str) -> grpc.Channel:
    """Returns a channel, which connects on demand."""
    if settings.credentials is None:
        return grpc.insecure_channel(address, settings.options)
    return grpc.secure_channel(address, settings.credentials, settings.options)


class Operation:
    """An operation of the caller over any number of calls, with its deadline and cancellation. timeout is in seconds."""

    def __init__(self, name: str, timeout: float | None, cancel: Cancellation | None = None) -> None:
        self.name = name
        self._deadline = None if timeout is None else time.monotonic() + timeout
        self._cancel = cancel

    def check(self) -> None:
        """Raises Cancelled or DeadlineExceeded if the operation has ended."""
        if self._cancel is not None and self._cancel.cancelled:
            raise Cancelled("it was cancelled", op=self.name, code=grpc.StatusCode.CANCELLED)
        if self._deadline is not None and time.monotonic() >= self._deadline:
            raise DeadlineExceeded("the timeout has passed", op=self.name, code=grpc.StatusCode.DEADLINE_EXCEEDED)

    def remaining(self, limit: float | None) -> float | None:
        """Returns the seconds until the deadline, at most limit. None: there is no limit."""
        if self._deadline is None:
            return limit
        left = max(self._deadline - time.monotonic(), 0.0)
        return left if limit is None else min(left, limit)

    def sleep(self, seconds: float) -> None:
        """Waits, at most until the operation ends."""
        seconds = self.remaining(seconds) or 0.0
        if self._cancel is not None:
            self._cancel.wait(seconds)
        else:
            time.sleep(seconds)
        self.check()

    def on_cancel(self, action: Callable[[], object]) -> AbstractContextManager[None]:
        """Calls action if the operation is cancelled inside the with block."""
        return nullcontext() if self._cancel is None else self._cancel.on_cancel(action)

    def join(self, task: Future[T]) -> T:
        """Waits for a task that also others wait for."""
        done = threading.Event()
        task.add_done_callback(lambda _: done.set())
        with self.on_cancel(done.set):
            done.wait(self.remaining(None))
        if not task.done():
            self.check()
        return task.result()


def spawn(function: Callable[[], T]) -> Future[T]:
    """Runs a function that must finish even if nobody waits for it any more."""
    task: Future[T] = Future()

    def run() -> None:
        try:
            task.set_result(function())
        except BaseException as e:
            task.set_exception(e)

    threading.Thread(target=run, name="lpfileshare-renew", daemon=True).start()
    return task


def unary(
    op: Operation,
    method: UnaryMethod[Req, Resp],
    request: Req,
    *,
    metadata: HiddenMetadata,
    limit: float,
    wait_for_ready: bool,
) -> Resp:
    """Makes a call of at most limit seconds. Raises CallFailed."""
    call: Any = method.future(request, timeout=op.remaining(limit), metadata=metadata, wait_for_ready=wait_for_ready)
    try:
        with op.on_cancel(call.cancel):
            code = call.code()  # waits for the end of the call
    except BaseException:  # KeyboardInterrupt
        call.cancel()
        raise
    if code is not grpc.StatusCode.OK:
        raise CallFailed.of(code, call.details(), call.trailing_metadata())
    response: Resp = call.result()
    return response


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
        self._op = op
        self._call: Any = method(request, timeout=op.remaining(limit), metadata=metadata)
        self._silent = False  # receive has ended the call because of its silence

    def receive(self, silence: float | None = None) -> Resp | None:
        """Returns the next message, or None after the last one. Raises CallFailed. silence: seconds to wait for the message."""
        timer = None if silence is None else threading.Timer(silence, self._silence)
        if timer is not None:
            timer.daemon = True
            timer.start()
        try:
            with self._op.on_cancel(self._call.cancel):
                message: Resp = next(self._call)
                return message
        except StopIteration:
            return None
        except grpc.RpcError:
            pass
        finally:
            if timer is not None:
                timer.cancel()
        if self._silent:
            raise CallFailed.of(grpc.StatusCode.UNAVAILABLE, f"no message for {silence:g} s", ())
        raise CallFailed.of(self._call.code(), self._call.details(), self._call.trailing_metadata())

    def _silence(self) -> None:
        self._silent = True
        self._call.cancel()

    def cancel(self) -> None:
        """Ends the call."""
        self._call.cancel()
