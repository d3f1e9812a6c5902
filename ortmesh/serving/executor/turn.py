"""Turn: what an executor computes at this moment, so that other threads can end what nobody wants. Stage: executor."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Protocol

from ortmesh.serving.types import Item


class Interruptible(Protocol):
    """What computes: `ortmesh.serving.executor.sessions.Sessions`."""

    def interrupt(self) -> None:
        """Ends its run, and every later one until `resume`."""

    def resume(self) -> None:
        """It runs again."""


class Turn:
    """The items of the run in progress. `begin` and `end` belong to the executor's thread, the rest to any other.

    A run can't be ended for one row: it is when nobody is left who waits for any of them, so that a graph without
    an end holds its executor no longer than its callers' deadlines.
    """

    def __init__(self, runs: Interruptible) -> None:
        self._runs = runs
        self._lock = threading.Lock()
        self._items: Sequence[Item] | None = None
        self._interrupted_at = 0.0
        self._over = False

    @property
    def over(self) -> bool:
        """True once the executor is not needed any more."""
        return self._over

    def begin(self, items: Sequence[Item]) -> None:
        """These are computed from now on."""
        with self._lock:
            self._items = items
            if self._interrupted_at and not self._over:
                self._interrupted_at = 0.0
                self._runs.resume()

    def end(self) -> None:
        """Nothing is computed any more."""
        self._items = None  # without the lock: whoever interrupts too late is undone by `begin`

    def interrupt(self) -> None:
        """Ends the run in progress, whoever waits for it, and all later ones: the executor is not needed any more."""
        with self._lock:
            self._over = True
            self._interrupted_at = self._interrupted_at or time.monotonic()
            self._runs.interrupt()

    def interrupt_unwanted(self) -> float:
        """Ends the run in progress when nobody waits for it; for how many seconds it has not heeded that, else 0."""
        with self._lock:
            items, since = self._items, self._interrupted_at
        if items is None:
            return 0.0
        if since:
            return time.monotonic() - since
        if all(item.done or item.cancelled or item.expired for item in items):
            self._interrupt_these(items)
        return 0.0

    def _interrupt_these(self, items: Sequence[Item]) -> None:
        with self._lock:
            if self._items is items:
                self._interrupted_at = time.monotonic()
                self._runs.interrupt()
