"""Quiet: nothing else of the process uses a GPU while a run is recorded. Stage: executor.

CUDA records in a mode in which an allocation, or a copy that waits, of any other thread fails and spoils the recording
(error 900): others' runs wait for the milliseconds that it takes, once a shape. To free memory is such a call too, and
an object may end at any moment, in any thread: what it leaves is freed at once, or when the recording is over.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

PATIENCE_SECONDS = 0.05


class Quiet:
    """Many may use the device side by side, or one alone. One a process: `QUIET`."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._using = 0
        self._alone = False
        self._left: deque[Callable[[], object]] = deque()
        """What frees memory, and could not while somebody recorded."""

    def using(self) -> Quiet:
        """Uses the device among others, within `with`; waits while one records. Not from within itself."""
        return self

    def __enter__(self) -> None:
        with self._changed:  # a generator with these lines takes 3 µs longer, each run
            while self._alone:
                self._changed.wait()
            self._using += 1

    def __exit__(self, *error: object) -> None:
        with self._changed:
            self._using -= 1
            if self._alone:  # somebody waits for it
                self._changed.notify_all()

    def free(self, release: Callable[[], object]) -> None:
        """Calls what frees something of the device: at once, or, while somebody records, when that is over.

        From any thread, at any moment, also from within `using` and `alone`: it waits for nobody.
        """
        self._left.append(release)
        self._free_left()

    def _free_left(self) -> None:
        with self._changed:  # reentrant: Python may end an object in the midst of these lines
            if self._alone or not self._left:
                return
            self._using += 1
        try:
            while self._left:
                with suppress(IndexError):  # another thread took the last one
                    self._left.popleft()()
        finally:
            self.__exit__()

    @contextmanager
    def alone(self, patience: float = PATIENCE_SECONDS) -> Iterator[bool]:
        """True when it has the device for itself. Not from within `using`.

        False when others were not done within `patience` seconds (a model that loads takes longer): they waited for
        nobody longer than that, and who wanted to record tries again at the next run.
        """
        with self._changed:
            got = not self._alone
            if got:
                self._alone = True  # who comes now waits: else there might always be one
                got = self._changed.wait_for(lambda: self._using == 0, patience)
                if not got:
                    self._open()
        try:
            if not got:
                self._free_left()
            yield got
        finally:
            if got:
                with self._changed:
                    self._open()
                self._free_left()

    def _open(self) -> None:
        self._alone = False
        self._changed.notify_all()


QUIET = Quiet()
"""Of this process."""
