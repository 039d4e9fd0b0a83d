"""The retry rule of the contract: see ErrorReason in proto/lpfileshare/v1/error_reason.proto."""

from __future__ import annotations

import random
import time
from enum import Enum

import grpc

from .errors import ConnectionLost, LpFileShareError

RETRY_FOR = 120.0  # seconds for which transfers are repeated if the caller does not say
UNARY_RETRY_FOR = 15.0  # seconds after the first attempt of a unary call in which another one may begin
UNARY_ATTEMPTS = 4

_FIRST_DELAY, _LAST_DELAY = 0.2, 5.0  # seconds of backoff, before the random part


class Verdict(Enum):
    """Whether a failed call is made again."""

    FINAL = "report the error"
    REPEAT = "repeat the call, or continue it"
    REPEAT_ONCE = "the same, but at most two tries in all"


def judge(error: LpFileShareError) -> Verdict:
    """Applies the rule. Its first step is the caller's: neither its deadline nor its cancellation has ended the operation.

    Which conditions of the server are repeatable is the server's decision alone: it adds RetryInfo to them."""
    if error.reason:
        return Verdict.FINAL if error.retry_after is None else Verdict.REPEAT
    if not isinstance(error, ConnectionLost):
        return Verdict.FINAL
    return Verdict.REPEAT_ONCE if error.code == grpc.StatusCode.INTERNAL else Verdict.REPEAT


class Pacer:
    """Decides whether and when a call that failed is made again. It serves one operation.

    retry_for is the number of seconds after the beginning, or the last progress, in which another attempt may begin. Negative: one
    attempt. max_attempts 0: no limit.
    """

    def __init__(self, op: str, retry_for: float, max_attempts: int = 0) -> None:
        self.op = op
        self.attempts = 0  # that have begun
        self.renewed = False  # the token was renewed since the last progress
        self._retry_for, self._max_attempts = retry_for, max_attempts
        self._since = time.monotonic()
        self._delay = _FIRST_DELAY
        self._internal = 0  # INTERNAL errors without ErrorInfo since the last progress

    def progress(self) -> None:
        """Resets time limit, backoff and counters."""
        self._since, self._delay, self._internal, self.renewed = time.monotonic(), _FIRST_DELAY, 0, False

    def delay(self, error: LpFileShareError, *, renewed: bool = False, obstacle: str = "") -> float:
        """Returns the seconds to wait before the next attempt, or raises error if there is none. renewed: the call failed because
        of its token, and there is a new one. obstacle: why no attempt can follow."""
        error.op, error.attempts = self.op, self.attempts
        verdict = judge(error)
        if verdict is Verdict.REPEAT_ONCE:
            self._internal += 1
        if not renewed and (verdict is Verdict.FINAL or self._internal > 1):
            raise error.fresh()
        if obstacle:
            error.not_repeated = obstacle
            raise error.fresh()
        if renewed:
            self.renewed = True
            return 0.0
        return self._wait(error)

    def _wait(self, error: LpFileShareError) -> float:
        delay = self._delay * random.uniform(0.5, 1.5)
        self._delay = min(self._delay * 2, _LAST_DELAY)
        if error.retry_after is not None and error.retry_after > delay:
            delay = error.retry_after * random.uniform(1.0, 1.2)  # spreads callers that got the same delay
        if self._retry_for < 0:
            error.not_repeated = "retries are disabled"
        elif 0 < self._max_attempts <= self.attempts:
            error.not_repeated = f"the limit is {self._max_attempts} attempts"
        elif time.monotonic() + delay > self._since + self._retry_for:
            error.not_repeated = f"the next attempt would begin more than {self._retry_for:g} s after the start or the last progress"
        if error.not_repeated:
            raise error.fresh()
        return delay
