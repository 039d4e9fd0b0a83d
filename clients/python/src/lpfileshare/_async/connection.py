"""The channels of a client, and the choice of a server for each call."""

from __future__ import annotations

import threading
import time

import grpc

from .._target import Settings
from ..errors import Cancelled
from ..v1 import (
    account_service_pb2_grpc,
    conversation_service_pb2_grpc,
    file_sharing_service_pb2_grpc,
    identity_service_pb2_grpc,
)
from .io import AsyncChannel, open_channel

_AVOID = 10.0  # seconds for which a server that was not reached is tried after the others


class AsyncServer:
    """A server with the generated stubs of its services."""

    files: file_sharing_service_pb2_grpc.FileSharingServiceAsyncStub
    conversations: conversation_service_pb2_grpc.ConversationServiceAsyncStub
    identity: identity_service_pb2_grpc.IdentityServiceAsyncStub
    accounts: account_service_pb2_grpc.AccountServiceAsyncStub

    def __init__(self, channel: AsyncChannel) -> None:
        self.channel = channel
        self.files = file_sharing_service_pb2_grpc.FileSharingServiceStub(channel)
        self.conversations = conversation_service_pb2_grpc.ConversationServiceStub(channel)
        self.identity = identity_service_pb2_grpc.IdentityServiceStub(channel)
        self.accounts = account_service_pb2_grpc.AccountServiceStub(channel)
        self.lost = float("-inf")  # when a connection to it was lost last

    def mark_lost(self) -> None:
        """Notes that the server was not reached, or the connection broke."""
        self.lost = time.monotonic()


class AsyncConnection:
    """The servers of a client, in turn. gRPC's own lists of addresses take no host names, so each server has its own channel."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._servers: list[AsyncServer] = []
        self._next = 0
        self._closed = False

    @property
    def single(self) -> bool:
        """Whether there is only one server."""
        return len(self._settings.addresses) == 1

    def pick(self) -> AsyncServer:
        """Returns the server for the next call. Raises Cancelled if the client is closed."""
        with self._lock:
            self.check()
            if not self._servers:
                self._servers = [AsyncServer(open_channel(self._settings, a)) for a in self._settings.addresses]
            count, now = len(self._servers), time.monotonic()
            turn = [self._servers[(self._next + i) % count] for i in range(count)]
            self._next = (self._next + 1) % count
            return next((s for s in turn if now - s.lost > _AVOID), min(turn, key=lambda s: s.lost))

    def check(self) -> None:
        """Raises Cancelled if the client is closed."""
        if self._closed:
            raise Cancelled("the client is closed", code=grpc.StatusCode.CANCELLED)

    async def close(self) -> None:
        """Ends every call and connection."""
        with self._lock:
            self._closed = True
            servers, self._servers = self._servers, []
        for server in servers:
            await server.channel.close()
