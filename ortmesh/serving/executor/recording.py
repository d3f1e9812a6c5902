"""Recording: a run at fixed addresses that is recorded once, and replayed from then on (CUDA graphs).

Stage: executor.
"""

from __future__ import annotations

import logging
import re
import threading
import weakref
from collections.abc import Callable
from typing import TypeVar

from ortmesh.serving.executor.failures import readable
from ortmesh.serving.executor.interruptible import UNRECORDED, InterruptibleSession
from ortmesh.serving.executor.quiet import QUIET

log = logging.getLogger(__name__)

DISTURBED = re.compile(r"CUDA (?:failure|error) 90[01]\b")
"""A recording failed by a call that CUDA forbids meanwhile: the graph's own, or one of another library."""

T = TypeVar("T")


class Recording:
    """One run, always on the memory that was bound to it the first time. By one thread at a time."""

    def __init__(self, number: int) -> None:
        """`number` is its name for the session (`InterruptibleSession.new_recording`)."""
        self._number = number
        self._ran = False
        """True once its outputs have their memory."""
        self._threads: weakref.WeakSet[threading.Thread] = weakref.WeakSet()
        """Those that recorded it: ONNX Runtime keeps recordings a thread."""

    @property
    def made(self) -> bool:
        """True when this thread has recorded it."""
        return threading.current_thread() in self._threads

    def run(self, compute: Callable[[int], T]) -> T:
        """Calls `compute` with the name of the recording, or with `UNRECORDED`.

        The first run finds memory for what it computes, the second is recorded, the others are replayed. A thread
        that finds no quiet moment to record runs without.
        """
        me = threading.current_thread()
        if me in self._threads:
            with QUIET.using():
                return compute(self._number)
        if self._ran:
            with QUIET.alone() as quiet:
                if quiet:
                    found = compute(self._number)
                    self._threads.add(me)
                    return found
        with QUIET.using():
            found = compute(UNRECORDED)
        self._ran = True
        return found


class Recorder:
    """Runs a session's recordings, and tells what becomes of those that fail."""

    def __init__(self, most: int) -> None:
        """Of so many recordings, ever: on CUDA ONNX Runtime keeps each until its session ends, also where its memory
        was given back, and records none a second time under the same number (its `CUDAGraphManager`)."""
        self.note = ""
        """Why nothing is recorded any more."""
        self._most = most
        self._made = 0
        self._disturbed = False
        """True once a recording was spoilt, until the next one is good."""

    def new(self, session: InterruptibleSession) -> Recording | None:
        """One more of a session's runs; None when there were as many as there may be."""
        if self._made < self._most:
            self._made += 1
            return Recording(session.new_recording())
        if not self.note:
            self.note = (
                f"no more of its runs are recorded (CUDA graphs): {self._most} were, each of which takes memory until "
                "the model is unloaded"
            )
            log.warning("%s", self.note)
        return None

    def run(self, recording: Recording, compute: Callable[[int], T]) -> T:
        """As the recording runs it."""
        made = recording.made
        found = recording.run(compute)
        if recording.made and not made:
            self._disturbed = False
        return found

    def goes_on(self, error: Exception) -> bool:
        """After one failed: what may have been another's doing is tried once more. False when nothing is to be
        recorded any more: the same run worked without."""
        if DISTURBED.search(str(error)) and not self._disturbed:
            self._disturbed = True
            log.info("a run is recorded anew: %s", readable(error))
            return True
        self.note = f"its runs are not recorded (CUDA graphs): {readable(error)}"
        log.warning("%s", self.note)
        return False
