"""The errors of this package."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from . import _advice

_DOMAIN = "lpfileshare"  # of the server's ErrorInfo
_DETAILS = "grpc-status-details-bin"


@dataclass(frozen=True)
class FieldViolation:
    """An invalid field of a request."""

    field: str
    """Path of the field, for example "spec.file_type"."""
    description: str
    """What is wrong with it."""


class LpFileShareError(Exception):
    """A failed operation. It can be pickled, and contains no secret."""

    op: str
    """The operation, for example "upload cat.jpg"."""
    code: grpc.StatusCode
    """The gRPC code."""
    reason: str
    """The named condition as ErrorInfo spells it, for example "FILE_TOO_LARGE". Empty if the server did not create the error, for
    example a lost connection. The values of ErrorReason describe them. Newer servers can send others."""
    message: str
    """What happened."""
    metadata: dict[str, str]
    """Details that the reason's comment promises, for example "maxBytes"."""
    violations: tuple[FieldViolation, ...]
    """The invalid fields of the request, if any."""
    retry_after: float | None
    """Seconds that the server asks to wait before a repeat. None: the call must not be repeated, if reason is set."""
    request_id: str
    """The request id of a failed upload. Pass it to upload to repeat it. Empty for other operations."""
    attempts: int
    """Number of attempts that were made. 0: the operation failed before the first one."""
    finished: bool
    """Whether a failed upload was sent to its end at least once. If so, it may have been published; otherwise it was not."""
    not_repeated: str
    """Why a repeatable error was not followed by another attempt. Empty if that does not apply."""

    def __init__(
        self,
        message: str,
        *,
        op: str = "",
        code: grpc.StatusCode = grpc.StatusCode.UNKNOWN,
        reason: str = "",
        metadata: Mapping[str, str] | None = None,
        violations: Iterable[FieldViolation] = (),
        retry_after: float | None = None,
        request_id: str = "",
        attempts: int = 0,
        finished: bool = False,
        not_repeated: str = "",
    ) -> None:
        super().__init__(message)
        self.message, self.op, self.code, self.reason = message, op, code, reason
        self.metadata, self.violations, self.retry_after = dict(metadata or {}), tuple(violations), retry_after
        self.request_id, self.attempts, self.finished, self.not_repeated = request_id, attempts, finished, not_repeated

    @property
    def what(self) -> str:
        """What happened, without the advice."""
        text = f"{self.op}: {self.message}" if self.op else self.message
        fields = [f"{v.field}: {v.description}" for v in self.violations]
        missing = [f for f in fields if f not in self.message]  # the message can contain them already
        if missing:
            text += ": " + "; ".join(missing)
        text += f" [{self.reason or self.code.name}]"
        if self.attempts > 1:
            text += f" (after {self.attempts} attempts)"
        if self.not_repeated:
            text += "; not repeated: " + self.not_repeated
        return text

    @property
    def advice(self) -> str:
        """What to do about it. Empty if there is no advice."""
        if self.reason:
            return _advice.BY_REASON.get(self.reason, "")
        return _advice.BY_CODE.get(self.code, "")

    def __str__(self) -> str:
        return f"{self.what}. {self.advice}" if self.advice else self.what

    def fresh(self) -> Self:
        """Internal: returns a copy to raise. A frame that raises an error of its own variables is kept by the error's traceback and
        keeps the error. Such a cycle keeps the bytes of an upload in memory until the garbage collector finds it."""
        values = {k: v for k, v in vars(self).items() if k in _FIELDS}
        copy = type(self)(self.message, **values)
        copy.__cause__ = self.__cause__
        return copy

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.message, {k: v for k, v in vars(self).items() if k in _FIELDS})


class ConnectionLost(LpFileShareError):
    """The connection broke, or bytes were damaged on the way. The operation was repeated as far as the retry rule and its limits
    permit: see not_repeated."""


class WatchResetError(LpFileShareError):
    """A watch cannot continue from its token without missing or repeating a file. List the files again, and watch from the
    listing's watch_token."""


class SourceError(LpFileShareError):
    """The source of an upload failed, or changed while it was read. Nothing was stored. __cause__ is the source's own error."""


class DeadlineExceeded(LpFileShareError, TimeoutError):
    """The timeout of the operation, or of a single call, has passed."""


class Cancelled(LpFileShareError):
    """A Cancellation ended a synchronous operation, or the client was closed. Asynchronous operations that are cancelled raise
    asyncio.CancelledError."""


_FIELDS = frozenset(LpFileShareError.__annotations__) - {"message"}


def _rebuild(cls: type[LpFileShareError], message: str, values: dict[str, Any]) -> LpFileShareError:
    return cls(message, **values)


class CallFailed(Exception):
    """Internal: a call ended with a status that is not OK. It carries the error to report, and is never raised to the caller."""

    def __init__(self, error: LpFileShareError) -> None:
        super().__init__("call failed")
        self.error = error

    @classmethod
    def of(cls, code: grpc.StatusCode, message: str | None, trailer: Iterable[tuple[str, str | bytes]] | None) -> Self:
        """Returns the error of a status."""
        return cls(status_error(code, message or "", trailer or ()))


def damaged(message: str) -> CallFailed:
    """Bytes were damaged or lost on the way. Another attempt can succeed."""
    return CallFailed(ConnectionLost(message, code=grpc.StatusCode.DATA_LOSS))


def broken_contract(message: str) -> CallFailed:
    """The server does not follow the contract. It is not asked again."""
    return CallFailed(LpFileShareError(message, code=grpc.StatusCode.DATA_LOSS))


def status_error(code: grpc.StatusCode, message: str, trailer: Iterable[tuple[str, str | bytes]]) -> LpFileShareError:
    """Converts a status. Its class says whether the connection broke: see _retry.judge."""
    info, retry_after, violations = None, None, []
    for detail in _details(trailer):
        if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
            found = error_details_pb2.ErrorInfo()
            detail.Unpack(found)
            if found.domain == _DOMAIN:
                info = found
        elif detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR):
            retry = error_details_pb2.RetryInfo()
            detail.Unpack(retry)
            retry_after = max(retry.retry_delay.ToTimedelta().total_seconds(), 0.0)
        elif detail.Is(error_details_pb2.BadRequest.DESCRIPTOR):
            bad = error_details_pb2.BadRequest()
            detail.Unpack(bad)
            violations += [FieldViolation(v.field, v.description) for v in bad.field_violations]
    if info is not None:
        kind = WatchResetError if info.reason == "WATCH_RESET" else LpFileShareError
        return kind(
            message,
            code=code,
            reason=info.reason,
            metadata=info.metadata,
            violations=violations,
            retry_after=retry_after,
        )
    if code in _BROKEN:
        return ConnectionLost(message, code=code)
    if code == grpc.StatusCode.DEADLINE_EXCEEDED:
        return DeadlineExceeded(message, code=code)
    return LpFileShareError(message, code=code, violations=violations)


# Without an ErrorInfo these mean that the connection broke. INTERNAL can also be a proxy that rejects the request.
_BROKEN = frozenset((grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED, grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL))


def _details(trailer: Iterable[tuple[str, str | bytes]]) -> list[Any]:
    for key, value in trailer:
        if key == _DETAILS and isinstance(value, bytes):
            try:
                return [*status_pb2.Status.FromString(value).details]
            except DecodeError:
                return []
    return []
