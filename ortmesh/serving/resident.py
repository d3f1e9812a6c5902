"""Resident: how much memory the process holds, and whether giving some back is worth it. Stage: executor.

ONNX Runtime's arenas keep the peak of the largest run for ever, and the C library keeps what was freed. What they
keep makes the next run of that size quicker (a photo of 1,280 pixels through a detector of faces: 93 ms, and 163 where
its memory was given back before), so it is given back only when it was not needed for a while, and only when there
is much of it.
"""

from __future__ import annotations

import ctypes
import os
import threading
import weakref
from collections.abc import Callable

from ortmesh.cpus import cpus

SLACK = 1.1
"""What may be held beyond what the process holds at rest: so much, in relation to that."""
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8
"""In malloc.h."""
LARGE_BYTES = 4 * 1024 * 1024
KEPT_BYTES = 64 * 1024 * 1024


def resident_bytes() -> int:
    """The memory of this process that is in use now; 0 where the system has no /proc."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * PAGE_BYTES
    except OSError:
        return 0


def settle_heaps() -> None:
    """Tells the C library, where it is glibc, how to keep memory; before threads begin.

    It keeps a heap for four CPUs, at least two, instead of eight for each: a thread that finds all in use begins
    another, and after a minute of all sizes services held 70 to 180 MB in 15 to 18 of them. What has megabytes is taken
    from the system and given back alone, always; glibc would learn to keep up to 32 MB of it in its heaps, where what
    is small comes to lie behind, and a service comes to rest at another size each time (vision at 246 to 278 MB). What
    is free at a heap's end stays until `trim`: by default it goes at once, and decoding a photo takes half as much
    CPU time again.
    """
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option is not None:
        set_option(M_ARENA_MAX, max(2, cpus() // 4))
        set_option(M_MMAP_THRESHOLD, LARGE_BYTES)
        set_option(M_TRIM_THRESHOLD, KEPT_BYTES)


def trim() -> None:
    """Has the C library give freed memory back to the system, where it is glibc; some 10 ms when there is much."""
    give_back = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if give_back is not None:
        give_back(0)


class Resident:
    """The memory of one process; its executors share one. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._holders: weakref.WeakSet[Holder] = weakref.WeakSet()
        self._at_rest: int | None = None

    def holder(self, shrink: Callable[[], None], *, on_device: bool = False) -> Holder:
        """For one executor: `shrink` gives back what its sessions keep, in the executor's thread.

        `on_device` when they keep it in a GPU's memory, of which the process's own size says nothing.
        """
        made = Holder(self, shrink, on_device=on_device)
        with self._lock:
            self._holders.add(made)
        return made

    def changed(self) -> None:
        """A model came or went: what the process holds at rest is to be measured again.

        What executors hold that nobody has asked for long counts as rest from now on.
        """
        with self._lock:
            self._at_rest = None
            for holder in self._holders:
                holder.holds = False

    def too_much(self) -> bool:
        """True when the process holds more than it needs at rest, or when that is not known."""
        with self._lock:
            if self._at_rest is None:
                return True
            held = resident_bytes()
            self._at_rest = min(self._at_rest, held)  # it was measured while somebody's picture was decoded
            return held > SLACK * self._at_rest

    def given_back(self) -> None:
        """An executor gave back what it had; when it was the last one, the process is at rest."""
        trim()
        with self._lock:
            if not any(holder.holds for holder in self._holders):
                self._at_rest = resident_bytes()


class Holder:
    """What one executor holds beyond its weights. Belongs to the executor's thread."""

    IDLE_SECONDS = 2.0
    """An executor that had nothing to do for so long gives back, if the process holds too much."""
    LONG_SECONDS = 10.0
    """One that had nothing to do for so long gives back in any case: at rest the process always holds the same."""
    CALM_SECONDS = 5.0
    """One that had only small runs for so long does too: one caller's huge picture is not kept for all to come."""

    def __init__(self, resident: Resident, shrink: Callable[[], None], *, on_device: bool = False) -> None:
        self._resident = resident
        self._shrink = shrink
        self._on_device = on_device
        self._largest = 0
        self._large_at = 0.0
        self.holds = False
        """True from the beginning of a run on until it gave back."""

    def ran(self, nbytes: int, now: float) -> None:
        """A run of inputs of so many bytes ended at `now`. Gives back when larger ones are long ago."""
        if 2 * nbytes >= self._largest:
            self._largest = max(self._largest, nbytes)
            self._large_at = now
        elif now - self._large_at > self.CALM_SECONDS:
            self._largest, self._large_at = nbytes, now
            self.give_back()

    def give_back(self, *, little: bool = False) -> None:
        """Gives back what it holds, if the process holds too much, or also when it is `little`."""
        if self.holds and (little or self._on_device or self._resident.too_much()):
            self._shrink()
            self._largest = 0
            self.holds = False
            self._resident.given_back()
