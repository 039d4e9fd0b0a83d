"""Cancellation of synchronous operations."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Cancellation:
    """Ends synchronous operations from another thread. Pass it as cancel to any number of them; they raise Cancelled.

    Asynchronous operations do not need it: cancel their task.
    """

    def __init__(self) -> None:
        self._event = threading.Event()
        self._lock = threading.Lock()
        self._actions: list[Callable[[], object]] = []

    @property
    def cancelled(self) -> bool:
        """Whether cancel was called."""
        return self._event.is_set()

    def cancel(self) -> None:
        """Ends the running operations, and every later one that this object is passed to. May be called repeatedly."""
        with self._lock:
            self._event.set()
            actions, self._actions = self._actions, []
        for action in actions:
            action()

    def wait(self, seconds: float) -> bool:
        """Waits until cancel is called, or for the given seconds. Returns whether cancel was called."""
        return self._event.wait(seconds)

    @contextmanager
    def on_cancel(self, action: Callable[[], object]) -> Iterator[None]:
        """Calls action if cancel is called inside the with block, or was called before it."""
        with self._lock:
            now = self._event.is_set()
            if not now:
                self._actions.append(action)
        if now:
            action()
        try:
            yield
        finally:
            with self._lock:
                if action in self._actions:
                    self._actions.remove(action)
