"""Quiet: nothing else of the process uses a GPU while a run is recorded. Stage: executor.

CUDA records in a mode in which an allocation, or a copy that waits, of any other thread fails and spoils the recording
(error 900): others' runs wait for the milliseconds that it takes, once a shape.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

PATIENCE_SECONDS = 0.05


class Quiet:
    """Many may use the device side by side, or one alone. One a process: `QUIET`."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._using = 0
        self._alone = False

    @contextmanager
    def using(self) -> Iterator[None]:
        """Uses the device among others; waits while one records. Not from within itself."""
        with self._changed:
            self._changed.wait_for(lambda: not self._alone)
            self._using += 1
        try:
            yield
        finally:
            with self._changed:
                self._using -= 1
                self._changed.notify_all()

    @contextmanager
    def alone(self, patience: float = PATIENCE_SECONDS) -> Iterator[bool]:
        """True when it has the device for itself. Not from within `using`.

        False when others were not done within `patience` seconds (a model that loads takes longer): they waited for
        nobody longer than that, and who wanted to record tries again at the next run.
        """
        with self._changed:
            got = not self._alone
            if got:
                self._alone = True  # who comes now waits: else the queue might never be empty
                got = self._changed.wait_for(lambda: self._using == 0, patience)
                if not got:
                    self._alone = False
                    self._changed.notify_all()
        try:
            yield got
        finally:
            if got:
                with self._changed:
                    self._alone = False
                    self._changed.notify_all()


QUIET = Quiet()
"""Of this process."""
