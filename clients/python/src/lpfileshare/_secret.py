"""Texts that do not print."""

from __future__ import annotations

import hmac
from typing import NoReturn


class Secret:
    """A token or another secret text. It prints as "[token]", and cannot be pickled or converted to JSON.

    reveal returns the text, for example to store it.
    """

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """Returns the text."""
        return self._value

    def __repr__(self) -> str:
        return "[token]"

    __str__ = __repr__

    def __bool__(self) -> bool:
        return bool(self._value)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(self._value.encode(), other._value.encode())

    def __hash__(self) -> int:
        return hash((Secret, self._value))

    def __copy__(self) -> Secret:
        return self

    def __deepcopy__(self, memo: object) -> Secret:
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret cannot be pickled; use reveal() to store it on purpose")


class HiddenMetadata(tuple[tuple[str, str], ...]):
    """The metadata of a call, which contains a token. Tracebacks with local variables print it as "[metadata]"."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "[metadata]"

    __str__ = __repr__
