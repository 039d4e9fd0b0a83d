"""Calls by the retry rule, with the identity of a client."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from .._retry import UNARY_ATTEMPTS, UNARY_RETRY_FOR, Pacer
from .._secret import HiddenMetadata, Secret
from ..errors import CallFailed, ConnectionLost, LpFileShareError
from .connection import AsyncConnection, AsyncServer
from .identity import BoundIdentity
from .io import Operation, UnaryMethod, unary

Req = TypeVar("Req")
Resp = TypeVar("Resp")

UNARY_LIMIT = 15.0  # seconds for one attempt of a unary call


class AsyncCaller:
    """Makes calls over a connection, with an identity."""

    def __init__(self, connection: AsyncConnection, identity: BoundIdentity) -> None:
        self.connection, self.identity = connection, identity

    async def unary(
        self,
        op: Operation,
        method: Callable[[AsyncServer], UnaryMethod[Req, Resp]],
        request: Req,
        limit: float = UNARY_LIMIT,
    ) -> Resp:
        """Makes a call that may be repeated, and repeats it by the retry rule. limit is in seconds, for one attempt."""
        pace = Pacer(op.name, UNARY_RETRY_FOR, UNARY_ATTEMPTS)
        while True:
            op.check()
            pace.attempts += 1
            server, token = self.connection.pick(), await self.identity.token(op)
            try:
                return await unary(
                    op,
                    method(server),
                    request,
                    metadata=self.identity.metadata(token),
                    limit=limit,
                    wait_for_ready=self.connection.single,
                )
            except CallFailed as e:
                error = e.error
            await self.again(op, pace, error, server, token)

    async def once(
        self,
        op: Operation,
        method: Callable[[AsyncServer], UnaryMethod[Req, Resp]],
        request: Callable[[], Req],
        limit: float,
    ) -> Resp:
        """Makes a call that must not be repeated and carries no identity. It takes a function, because the request has secrets,
        which tracebacks with local variables would print."""
        op.check()
        server = self.connection.pick()
        try:
            return await unary(op, method(server), request(), metadata=HiddenMetadata(), limit=limit, wait_for_ready=self.connection.single)
        except CallFailed as e:
            error = e.error
        op.check()
        self.connection.check()
        error.op, error.attempts = op.name, 1
        raise error.fresh()

    async def again(
        self,
        op: Operation,
        pace: Pacer,
        error: LpFileShareError,
        server: AsyncServer,
        token: Secret | None,
        obstacle: Callable[[], str] | None = None,
        waiting: Callable[[LpFileShareError], object] | None = None,
    ) -> None:
        """Returns when the next attempt may begin, or raises error if there is none. obstacle returns why no attempt can follow, or
        an empty text. waiting is called before a wait."""
        try:
            op.check()
            self.connection.check()
        except LpFileShareError as ended:
            ended.op, ended.attempts = pace.op, pace.attempts
            raise ended from error
        if isinstance(error, ConnectionLost):
            server.mark_lost()
        renewed = not pace.renewed and await self.identity.renew(op, error, token)
        delay = pace.delay(error, renewed=renewed, obstacle=obstacle() if obstacle else "")
        if waiting is not None and not renewed:
            waiting(error)
        try:
            await op.sleep(delay)
        except LpFileShareError as ended:
            ended.message += f" while waiting to repeat: {error.what}"
            ended.attempts = pace.attempts
            raise ended from error
