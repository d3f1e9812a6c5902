"""Stop: how a load is ended from outside, and when it takes too long. Stage: executor."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

WARM_UP_SECONDS = 300.0
"""A model whose samples take longer is not served: its graph may have no end."""


class Interruptible(Protocol):
    """What a load opens and runs: `ortmesh.serving.executor.sessions.Sessions`."""

    def interrupt(self) -> None:
        """Ends what it does, and whatever it would do later."""


class Stopped(Exception):
    """The load was ended; the text says why."""


class Stop:
    """One load's. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: list[Interruptible] = []
        self._reason: str | None = None

    def now(self, reason: str) -> None:
        """Ends the load: whatever it runs, and whatever it would run later."""
        with self._lock:
            self._reason = self._reason or reason
            running = list(self._running)
        for each in running:
            each.interrupt()

    @contextmanager
    def watching(self, running: Interruptible, seconds: float) -> Iterator[None]:
        """While the load runs something, which may take so long. Stopped, instead of what came of it, when it was
        ended: what an interrupted run raises, and what warm-up makes of that, is of no use to anybody."""
        self._must_go_on(None)
        timer = threading.Timer(seconds, self.now, [f"its warm-up did not end within {seconds:g} s"])
        timer.daemon = True
        with self._lock:
            self._running.append(running)
        timer.start()
        try:
            yield
        except Exception as error:
            self._must_go_on(error)
            raise
        finally:
            timer.cancel()
            with self._lock:
                self._running.remove(running)
        self._must_go_on(None)

    def _must_go_on(self, error: Exception | None) -> None:
        if self._reason is not None:
            raise Stopped(self._reason) from error
