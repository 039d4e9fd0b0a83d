"""The token of a client's calls, and its renewal."""

from __future__ import annotations

import inspect
import threading
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

from .._secret import HiddenMetadata, Secret
from ..errors import LpFileShareError
from ..identity import Identity, RenewedSession
from ..types import ConsumerSession
from .io import Operation, Task, spawn

_RENEW_BEFORE = timedelta(minutes=1)  # how long before it expires a token is renewed
_PAUSE = 5.0  # seconds after a failed renewal in which no other one begins
_REJECTED = frozenset(("TOKEN_INVALID", "LP_IDENTITY_EXPIRED"))


class BoundIdentity:
    """The identity of one client, with its current token. renew_session calls RenewConsumer."""

    def __init__(
        self,
        identity: Identity | None,
        renew_session: Callable[[ConsumerSession], Awaitable[ConsumerSession]],
    ) -> None:
        self._identity, self._renew_session = identity, renew_session
        self._session = identity.session if isinstance(identity, RenewedSession) else None
        self._lock = threading.Lock()  # of what follows; never held over a call
        self._current: Secret | None = None
        self._running: Task[Secret] | None = None
        self._failure: Exception | None = None  # of the last renewal
        self._pause = 0.0  # no renewal before this time

    def __repr__(self) -> str:
        return repr(self._identity)

    async def token(self, op: Operation) -> Secret | None:
        """Returns the token of the next call. None: calls carry no identity."""
        if self._identity is None:
            return None
        session = self._session
        if session is None:
            current = Secret(await _value(self._identity.source(None)))
            with self._lock:
                self._current = current
            return current
        if not _due(session) or time.monotonic() < self._pause:
            return session.token
        try:
            return await self._replace(op, session.token)
        except Exception:
            op.check()
            if session.expires is not None and datetime.now(UTC) < session.expires:
                return session.token
            raise

    async def renew(self, op: Operation, error: LpFileShareError, rejected: Secret | None) -> bool:
        """Whether error means that the token was rejected, and there is another one now."""
        if self._identity is None or rejected is None or error.reason not in _REJECTED:
            return False
        try:
            return await self._replace(op, rejected) != rejected
        except Exception as e:
            op.check()
            error.not_repeated = f"the token was not renewed: {e}"
            return False

    def metadata(self, token: Secret | None) -> HiddenMetadata:
        """Returns the metadata of a call."""
        if self._identity is None or token is None:
            return HiddenMetadata()
        return HiddenMetadata(((self._identity.key, token.reveal()),))

    async def _replace(self, op: Operation, rejected: Secret) -> Secret:
        """Returns a token other than rejected, by one renewal for all callers. If a caller gives up, the renewal continues, because
        the server may have used up the old secret."""
        with self._lock:
            current = self._current if self._session is None else self._session.token
            if current is not None and current != rejected:
                return current
            if self._running is None:
                if self._failure is not None and time.monotonic() < self._pause:
                    raise self._failure
                self._running = spawn(lambda: self._renew(rejected))
            running = self._running
        return await op.join(running)

    async def _renew(self, rejected: Secret) -> Secret:
        failure: Exception | None = None
        session, token = self._session, rejected
        try:
            if session is not None:
                session = await self._renew_session(session)
                token = session.token
            elif self._identity is not None:
                token = Secret(await _value(self._identity.source(rejected.reveal())))
            return token
        except Exception as e:
            failure = e
            raise
        finally:
            with self._lock:
                self._session, self._current, self._running = session, token, None
                self._failure = failure
                if failure is not None:
                    self._pause = time.monotonic() + _PAUSE


def _due(session: ConsumerSession) -> bool:
    return bool(session.renewal_secret) and session.expires is not None and datetime.now(UTC) + _RENEW_BEFORE > session.expires


async def _value(token: str | Awaitable[str]) -> str:
    if isinstance(token, str):
        return token
    if inspect.isawaitable(token):
        return await token  # sync: raise TypeError("a synchronous client takes no coroutine function as the source of a token")
    raise TypeError("the source of a token must return a string")
