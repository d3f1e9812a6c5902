"""Memory: what a burst took is given back once it is over, and steady work gives nothing back."""

from __future__ import annotations

import asyncio
import math
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from bench.gpu.host import HostStream
from ortmesh.cpus import cpus
from ortmesh.front.call import Call
from ortmesh.serving.batcher import Pile
from ortmesh.serving.cards import Card
from ortmesh.serving.executor.idle import Idle
from ortmesh.serving.loaded import load, rows_of
from ortmesh.serving.models import Models
from ortmesh.serving.resident import Holder, Resident, resident_bytes, trim
from ortmesh.serving.store import Store
from ortmesh.serving.types import Item, NoMeter, Tensors
from ortmesh.serving.warmup import Capture
from tests.serving import graphs
from tests.serving.shelf import ONES, install, until

MB = 1_000_000
MIB = 1024 * 1024


class Runner:
    """A model's executor in its thread, as a service has it."""

    def __init__(self, card: Card, folder: Path) -> None:
        self.loaded = load(card, folder, 2, NoMeter(), resident=Resident())
        self.pile = Pile(max_bytes=1 << 40)
        self.thread = threading.Thread(target=self.loaded.executors[0].serve, args=[self.pile])
        self.thread.start()

    def run(self, many: Sequence[Tensors]) -> None:
        """Returns when all are computed."""
        captures = [Done() for _ in many]
        for tensors, answer in zip(many, captures, strict=True):
            rows = rows_of(tensors, self.loaded.signature)
            self.pile.submit(Item(tensors, answer=answer, owner=answer, deadline=math.inf, rows=rows))
        for answer in captures:
            assert answer.ended.wait(60)
            assert answer.error is None

    def close(self) -> None:
        self.pile.close()
        self.thread.join()


class Done(Capture):
    """An answer that can be waited for, and forgets its outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.ended = threading.Event()

    def finish(self, outputs: Tensors) -> None:
        self.ended.set()

    def fail(self, error: BaseException) -> None:
        super().fail(error)
        self.ended.set()


@contextmanager
def running(card: Card, folder: Path) -> Iterator[Runner]:
    runner = Runner(card, folder)
    try:
        yield runner
    finally:
        runner.close()


def comes_down_to(limit: float, seconds: float = 60) -> float:
    """The process's memory once it is below the limit, or after so many seconds."""
    end = time.monotonic() + seconds
    while (now := resident_bytes()) > limit and time.monotonic() < end:
        time.sleep(0.1)
    return now


@pytest.fixture
def rest() -> float:
    """What this process holds before the test."""
    trim()
    return resident_bytes()


def test_memory_comes_back_when_an_executor_has_nothing_to_do(tmp_path: Path) -> None:
    """32 rows take 256 MB; the aim is 2 s after the burst."""
    graphs.hungry(tmp_path)
    with running(Card(name="hungry", family="nlp"), tmp_path) as runner:
        runner.run([ONES])
        trim()
        before = resident_bytes()
        runner.run([{"x": np.ones((32, 4), np.float32)}] * 4)
        peak = resident_bytes()
        assert peak > before + 200 * MB
        assert comes_down_to(before + 0.2 * (peak - before)) < before + 0.2 * (peak - before)
        runner.run([ONES])


def test_memory_comes_back_while_small_requests_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One caller's huge request is not kept for all to come."""
    monkeypatch.setattr(Holder, "CALM_SECONDS", 0.5)
    graphs.hungry(tmp_path)
    with running(Card(name="hungry", family="nlp"), tmp_path) as runner:
        runner.run([ONES])
        trim()
        before = resident_bytes()
        runner.run([{"x": np.ones((32, 4), np.float32)}])
        peak = resident_bytes()
        end = time.monotonic() + 60
        while resident_bytes() > before + 0.2 * (peak - before) and time.monotonic() < end:
            runner.run([ONES])
            time.sleep(0.05)
        assert resident_bytes() <= before + 0.2 * (peak - before)


def test_shapes_that_never_repeat_take_no_more_than_the_largest_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three hundred of them, in batches of all sizes; then nothing for a while."""
    monkeypatch.setattr(Holder, "CALM_SECONDS", 60)  # nothing is given back meanwhile
    monkeypatch.setattr(Idle, "_wants_to_measure", False)  # nor taken to find out what batches cost
    graphs.attends(tmp_path)
    with running(Card(name="attends", family="nlp"), tmp_path) as runner:
        runner.run([{"x": np.ones((1, 8, 16), np.float32)}])
        trim()
        before = resident_bytes()
        runner.run([{"x": np.ones((8, 1000, 16), np.float32)}])
        largest = resident_bytes() - before
        assert largest > 25 * MB
        held = []
        for number in range(300):
            rows, length = 1 + number % 8, 20 + int(950 * (0.618034 * number % 1)) + number % 7
            runner.run([{"x": np.ones((rows, length, 16), np.float32)}])
            held.append(resident_bytes() - before)
        assert max(held) < 1.4 * largest
        assert comes_down_to(before + 0.2 * largest) < before + 0.2 * largest


def test_a_pictures_memory_comes_back(store: Store) -> None:
    """A real model: faces in pictures of 1,600 pixels take half a gigabyte."""
    card, folder = next((card, folder) for card, folder in store.cards() if card.name == "centerface")
    with running(card, folder) as runner:
        runner.run([{"image": np.zeros((1, 3, 320, 320), np.uint8)}])
        trim()
        before = resident_bytes()
        runner.run([{"image": np.zeros((1, 3, 1600, 1600), np.uint8)}])
        peak = resident_bytes()
        assert peak > before + 300 * MB
        assert comes_down_to(before * 1.2) < before * 1.2


async def test_an_unloaded_models_memory_comes_back(tmp_path: Path, call: Call) -> None:
    store = Store(tmp_path / "store")
    graphs.heavy(tmp_path / "heavy", 150)
    install(store, tmp_path / "heavy", name="heavy")
    trim()
    before = resident_bytes()
    async with Models(store, "nlp", threads=1, meter=lambda *_: NoMeter()) as models:
        await models.until_loaded()
        await models.find("heavy")(ONES, call)
        assert resident_bytes() > before + 100 * MB
        store.remove("heavy", "1")
        await until(models, lambda: not models.list())
        assert await asyncio.to_thread(comes_down_to, before + 50 * MB) < before + 50 * MB


# The C library's heaps, which a process can't change once it has them

HEAPS = """
import ctypes, sys, threading
from ortmesh.serving import resident
if sys.argv[1] == "settled":
    resident.settle_heaps()
together = threading.Barrier(12)
def take():
    together.wait()
    kept = [bytearray(100_000) for _ in range(200)]
    together.wait()
threads = [threading.Thread(target=take) for _ in range(12)]
for thread in threads: thread.start()
for thread in threads: thread.join()
libc = ctypes.CDLL(None)
libc.fopen.restype = ctypes.c_void_p
file = libc.fopen(sys.argv[2].encode(), b"w")
libc.malloc_info(0, ctypes.c_void_p(file))
libc.fclose(ctypes.c_void_p(file))
"""


def heaps(how: str, told: Path) -> int:
    """How many a process of twelve threads has."""
    subprocess.run([sys.executable, "-c", HEAPS, how, str(told)], check=True)
    return told.read_text().count("<heap nr=")


def test_threads_share_few_heaps(tmp_path: Path) -> None:
    """Each keeps holes of the largest that its threads ever had."""
    assert heaps("as they come", tmp_path / "told") > heaps("settled", tmp_path / "told")
    assert heaps("settled", tmp_path / "told") <= max(1, cpus() // 4)


# When


class Clock:
    """A holder whose time is the test's, in a process that always holds too much."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, held: Callable[[], int] = lambda: 100) -> None:
        monkeypatch.setattr("ortmesh.serving.resident.resident_bytes", held)
        self.given_back = 0
        self.holder = Resident().holder(self._shrink)

    def _shrink(self) -> None:
        self.given_back += 1

    def run(self, nbytes: int, at: float) -> None:
        self.holder.holds = True
        self.holder.ran(nbytes, at)


def test_a_mixture_of_sizes_gives_nothing_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every fourth request is large: its memory is needed again at once."""
    clock = Clock(monkeypatch)
    for number in range(1000):
        clock.run(1000 if number % 4 == 0 else 10, at=number)
    assert clock.given_back == 0


def test_small_requests_give_back_once_what_a_large_one_took(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    clock.run(1000, at=0)
    for number in range(1000):
        clock.run(10, at=number)
    assert clock.given_back == 1


def test_what_is_little_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next request would only wait for it to come back."""
    held = iter([100, 109, 111, 100])
    clock = Clock(monkeypatch, lambda: next(held))
    clock.run(10, at=0)
    clock.holder.give_back()  # nothing is known yet: 100 are held at rest
    clock.run(10, at=1)
    clock.holder.give_back()  # 109
    assert clock.given_back == 1
    clock.holder.give_back()  # 111
    assert clock.given_back == 2


def test_little_is_given_back_too_when_nothing_came_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """At rest a process always holds the same."""
    clock = Clock(monkeypatch)
    clock.run(10, at=0)
    clock.holder.give_back()
    idle = Idle(clock.holder)
    idle.runs()
    assert idle.ran(10, 1) == Holder.IDLE_SECONDS
    assert idle.do() == Holder.LONG_SECONDS - Holder.IDLE_SECONDS
    assert clock.given_back == 1
    assert idle.do() is None
    assert clock.given_back == 2


def test_what_a_first_run_takes_is_not_taken_for_rest() -> None:
    """One executor gives back while another computes its first large batch: the process is not at rest."""
    resident, given = Resident(), list[str]()
    small = Idle(resident.holder(lambda: given.append("small")))
    large = Idle(resident.holder(lambda: given.append("large")))
    small.runs()
    small.ran(10, 1)
    large.runs()
    small.do()
    assert resident._process._at_rest is None
    large.ran(1000, 2)
    large.do()
    assert resident._process._at_rest is not None
    assert given == ["small", "large"]


def test_what_lies_on_a_device_is_given_back_by_what_the_device_holds() -> None:
    """The process's own size says nothing of a GPU's memory; less than 64 MiB of it is kept, however long."""
    given: list[str] = []
    device = HostStream()
    device.used_bytes = 1000 * MIB
    holder = Resident().holder(lambda: given.append("back"), device)
    idle = Idle(holder)
    for used, expected in ((1000, 1), (1099, 1), (1101, 2), (1000, 2)):  # at first it is not known what is rest
        idle.runs()
        idle.ran(10, 1)
        device.used_bytes = used * MIB
        idle.do()
        device.used_bytes = 1000 * MIB
        idle.do()
        assert len(given) == expected
    idle.runs()
    idle.ran(10, 1)
    assert idle.do() is not None
    assert idle.do() is None, "it is not asked for ever"


def test_a_small_share_of_a_small_device_is_kept() -> None:
    given: list[str] = []
    device = HostStream()
    holder = Resident().holder(lambda: given.append("back"), device)
    for used, expected in ((100, 1), (160, 1), (170, 2)):
        holder.holds = True
        device.used_bytes = used * MIB
        holder.give_back()
        device.used_bytes = 100 * MIB
        assert len(given) == expected
