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
from typing import Protocol

from ortmesh.cpus import cpus

SLACK = 1.1
"""What may be held beyond what the process holds at rest: so much, in relation to that."""
DEVICE_SLACK_BYTES = 64 * 1024 * 1024
"""What may be held of a GPU's memory beyond that, at least: less is not worth it that the next request asks anew."""
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

    It keeps one heap, or one for four CPUs, instead of eight for each: a thread that finds all in use begins another,
    whose end `trim` does not reach; after a minute of all sizes services held 70 to 180 MB in 15 to 18 of them.
    What has megabytes is taken from the system and given back alone, always; glibc would learn to keep up to 32 MB of
    it in its heaps, where what is small comes to lie behind, and vision came to rest at 246 to 278 MB.
    What is free at a heap's end stays until `trim`: once one option is set it would go at once, and decoding a photo
    would take up to half as much CPU time again.
    """
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option is not None:
        set_option(M_ARENA_MAX, max(1, cpus() // 4))
        set_option(M_MMAP_THRESHOLD, LARGE_BYTES)
        set_option(M_TRIM_THRESHOLD, KEPT_BYTES)


def trim() -> None:
    """Has the C library give freed memory back to the system, where it is glibc; some 10 ms when there is much."""
    give_back = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if give_back is not None:
        give_back(0)


class Device(Protocol):
    """A GPU: `ortmesh.serving.executor.cuda.Stream`."""

    device_id: int

    def used(self) -> int:
        """Bytes of its memory that are in use, by whomever."""


class Rest:
    """How much of one memory is in use, against when nothing is held."""

    def __init__(self, used: Callable[[], int], slack_bytes: int = 0) -> None:
        self._used = used
        self._slack_bytes = slack_bytes
        self._at_rest: int | None = None

    def forget(self) -> None:
        """It is to be measured again."""
        self._at_rest = None

    def measure(self) -> None:
        """Nothing is held at this moment."""
        self._at_rest = self._used()

    def too_much(self) -> bool:
        """True when more is in use than at rest, or when that is not known."""
        if self._at_rest is None:
            return True
        used = self._used()
        self._at_rest = min(self._at_rest, used)  # it was measured while somebody's picture was decoded
        return used > max(SLACK * self._at_rest, self._at_rest + self._slack_bytes)


class Resident:
    """The memory of one process, and of the GPUs that it uses; its executors share one. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._holders: weakref.WeakSet[Holder] = weakref.WeakSet()
        self._process = Rest(resident_bytes)
        self._devices: dict[int, Rest] = {}

    def holder(self, shrink: Callable[[], None], device: Device | None = None) -> Holder:
        """For one executor: `shrink` gives back what its sessions keep, in the executor's thread.

        `device` where they keep it in a GPU's memory, of which the process's own size says nothing.
        """
        with self._lock:
            rest = self._process
            if device is not None:
                rest = self._devices.setdefault(device.device_id, Rest(device.used, DEVICE_SLACK_BYTES))
            made = Holder(self, shrink, rest, on_device=device is not None)
            self._holders.add(made)
        return made

    def changed(self) -> None:
        """A model came or went: what the process holds at rest is to be measured again.

        What executors hold that nobody has asked for long counts as rest from now on.
        """
        with self._lock:
            for rest in self._rests:
                rest.forget()
            for holder in self._holders:
                holder.holds = False

    def too_much(self, rest: Rest) -> bool:
        """True when more of that memory is held than is needed at rest, or when that is not known."""
        with self._lock:
            return rest.too_much()

    def given_back(self) -> None:
        """An executor gave back what it had; when it was the last one, the process is at rest."""
        trim()
        with self._lock:
            if not any(holder.holds for holder in self._holders):
                for rest in self._rests:
                    rest.measure()

    @property
    def _rests(self) -> list[Rest]:
        return [self._process, *self._devices.values()]


class Holder:
    """What one executor holds beyond its weights. Belongs to the executor's thread."""

    IDLE_SECONDS = 2.0
    """An executor that had nothing to do for so long gives back, if the process holds too much."""
    LONG_SECONDS = 10.0
    """One that had nothing to do for so long gives back in any case: at rest the process always holds the same."""
    CALM_SECONDS = 5.0
    """One that had only small runs for so long does too: one caller's huge picture is not kept for all to come."""

    def __init__(self, resident: Resident, shrink: Callable[[], None], rest: Rest, *, on_device: bool) -> None:
        self._resident = resident
        self._shrink = shrink
        self._rest = rest
        self._on_device = on_device
        self._largest = 0
        self._large_at = 0.0
        self.holds = False
        """True from the beginning of a run on until it gave back."""

    def ran(self, nbytes: int, now: float) -> None:
        """A run of inputs of so many bytes ended at `now`. Gives back when larger ones are long ago."""
        self.holds = True  # a model that came meanwhile has taken that for rest
        if 2 * nbytes >= self._largest:
            self._largest = max(self._largest, nbytes)
            self._large_at = now
        elif now - self._large_at > self.CALM_SECONDS:
            self._largest, self._large_at = nbytes, now
            self.give_back()

    def give_back(self, *, little: bool = False) -> None:
        """Gives back what it holds, if too much is in use, or also when it is `little`: but never little of a GPU's,
        for there it is nobody else's, and the next request would wait for each piece of it."""
        little = little and not self._on_device
        if self.holds and (little or self._resident.too_much(self._rest)):
            self._shrink()
            self._largest = 0
            self.holds = False
            self._resident.given_back()
