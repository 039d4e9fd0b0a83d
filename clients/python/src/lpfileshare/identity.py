"""Who makes a call. A call carries at most one identity."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from ._secret import Secret
from .types import ConsumerSession

TokenSource = str | Secret | Callable[[str | None], str | Awaitable[str]]
"""A token, or a function that returns the token to use now. It is called before each call with None, so it must be fast. After the
server rejected a token it is called once with that token, and must return another one. An AsyncClient also takes a coroutine
function."""

KEY_CONSUMER = "lp-consumer-token"
KEY_AGENT = "lp-agent-token"
KEY_EXTERNAL = "lp-external-consumer-id"


class Identity:
    """The identity of calls: ConsumerToken, AgentToken, ExternalConsumerId or RenewedSession."""

    key: str
    """The metadata key."""
    source: Callable[[str | None], str | Awaitable[str]]

    def __init__(self, key: str, source: TokenSource) -> None:
        if isinstance(source, str):
            source = Secret(source)
        if isinstance(source, Secret):
            source = _Fixed(source)
        self.key, self.source = key, source

    def __repr__(self) -> str:
        return f"{type(self).__name__}([token])"


class _Fixed:
    def __init__(self, token: Secret) -> None:
        self._token = token

    def __call__(self, rejected: str | None) -> str:
        return self._token.reveal()


class ConsumerToken(Identity):
    """A consumer with a LivePerson token."""

    def __init__(self, source: TokenSource) -> None:
        super().__init__(KEY_CONSUMER, source)


class AgentToken(Identity):
    """An agent or bot, with a token of sign_in_agent."""

    def __init__(self, source: TokenSource) -> None:
        super().__init__(KEY_AGENT, source)


class ExternalConsumerId(Identity):
    """A consumer by the id that the brand knows, for accounts that the server has credentials of. The server accepts it only over
    TLS with a client certificate, or from loopback."""

    def __init__(self, consumer_id: str) -> None:
        super().__init__(KEY_EXTERNAL, consumer_id)


class RenewedSession(Identity):
    """A consumer's session that the client renews: a minute before its token expires, and once when the server rejects the token.
    Concurrent calls share one renewal.

    on_renew receives each new session before a call uses it, for example to store it. It must return quickly, and can be called
    from another thread. A renewal secret works once, so use one RenewedSession in one client only, and in those that as_ derives.
    """

    def __init__(self, session: ConsumerSession, on_renew: Callable[[ConsumerSession], object] | None = None) -> None:
        super().__init__(KEY_CONSUMER, session.token)
        self.session, self.on_renew = session, on_renew
