"""Watches."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Self

import grpc

from .._retry import Pacer
from .._secret import Secret
from ..errors import CallFailed, ConnectionLost, LpFileShareError
from ..types import File, UnreadableConversation
from ..v1.file_sharing_service_pb2 import WatchFilesRequest, WatchFilesResponse
from .caller import AsyncCaller
from .connection import AsyncServer
from .io import Operation, ServerStream

_MISSED_HEARTBEATS = 3  # a watch without a message for this many intervals is dead
_FIRST_SILENCE = 90.0  # seconds, until the first heartbeat has reported the interval
_MIN_SILENCE = 1.0  # seconds, however short the interval: a busy machine is not a dead one
_MAX_AGE = 25 * 60.0  # seconds after which a watch is opened again, so that every call has an end
_STEADY = 10.0  # seconds: a call that has sent messages for this long counts as progress


class AsyncWatch:
    """The files of a watch, each as it is published. It ends only with an error.

    If the loop breaks off, iterating again continues after the last file. close, or leaving the with block, ends the call. It must
    not be iterated concurrently.
    """

    def __init__(
        self,
        caller: AsyncCaller,
        op: Operation,
        parent: str,
        token: str,
        *,
        on_connection: Callable[[LpFileShareError | None], object] | None,
        on_unreadable: Callable[[UnreadableConversation], object] | None,
        max_silence: float | None,
        retry_for: float,
    ) -> None:
        self._caller, self._op, self._parent, self._token = caller, op, parent, token
        self._on_connection, self._on_unreadable = on_connection, on_unreadable
        self._max_silence = max_silence
        self._silence = _FIRST_SILENCE if max_silence is None else max_silence
        self._open: bool | None = None  # what on_connection was called with last
        self._pace = Pacer(op.name, retry_for)
        self._stream: ServerStream[WatchFilesResponse] | None = None
        self._server: AsyncServer | None = None
        self._secret: Secret | None = None  # of the open call
        self._began = self._first = 0.0

    @property
    def token(self) -> str:
        """The token that continues the watch, in this or another process, after the last message that arrived: in the body of the loop,
        after the current file. Heartbeats advance it too, so that it does not become too old."""
        return self._token

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> File:
        while True:
            try:
                file = await self._next()
            except CallFailed as e:
                error = e.error
            except BaseException:
                await self.close()
                raise
            else:
                if file is not None:
                    return file
                continue
            await self.close()
            if self._server is not None:
                await self._caller.again(self._op, self._pace, error, self._server, self._secret, waiting=self._report)

    async def _next(self) -> File | None:
        """Receives one message. None: it was not a file."""
        stream = self._stream or await self._begin()
        if time.monotonic() - self._began >= _MAX_AGE:
            await self.close()
            return None
        message = await stream.receive(self._silence)
        if message is None:
            raise CallFailed(ConnectionLost("the server ended the watch", code=grpc.StatusCode.UNAVAILABLE))
        self._first = self._first or time.monotonic()
        self._report(None)
        self._token = message.resume_token or self._token
        event = message.WhichOneof("event")
        if event == "file":
            self._pace.progress()
            return File.of(message.file)
        if event == "heartbeat":
            self._beat(message.heartbeat.interval.ToTimedelta().total_seconds())
        elif event == "unreadable_conversation" and self._on_unreadable is not None:
            self._on_unreadable(UnreadableConversation.of(message.unreadable_conversation))
        return None

    async def _begin(self) -> ServerStream[WatchFilesResponse]:
        self._op.check()
        self._pace.attempts += 1
        self._server = self._caller.connection.pick()
        self._secret = await self._caller.identity.token(self._op)
        self._began, self._first = time.monotonic(), 0.0
        self._stream = ServerStream(
            self._op,
            self._server.files.WatchFiles,
            WatchFilesRequest(parent=self._parent, resume_token=self._token),
            metadata=self._caller.identity.metadata(self._secret),
            limit=None,
        )
        return self._stream

    def _beat(self, interval: float) -> None:
        if interval > 0 and self._max_silence is None:
            self._silence = max(_MISSED_HEARTBEATS * interval, _MIN_SILENCE)
        # The first heartbeat is no progress: a server or proxy that ends each call right after it would be called without backoff.
        if time.monotonic() - self._first >= _STEADY:
            self._pace.progress()

    def _report(self, error: LpFileShareError | None) -> None:
        is_open = error is None
        if self._on_connection is not None and is_open != self._open:
            self._open = is_open
            self._on_connection(error)

    async def close(self) -> None:
        """Ends the call. A later iteration opens another one."""
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.cancel()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
