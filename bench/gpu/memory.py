"""Memory: what the device holds at rest, in a burst of large shapes, and afterwards."""

from __future__ import annotations

import math
import threading
import time
from dataclasses import dataclass
from functools import cache

import numpy as np

from bench.gpu.mixed import tokens
from bench.gpu.models import CENTERFACE, MINILM, Bench
from ortmesh.serving.batcher import Pile
from ortmesh.serving.executor.cuda import CudaStream
from ortmesh.serving.executor.session import SessionExecutor
from ortmesh.serving.loaded import Loaded, load
from ortmesh.serving.resident import Resident, resident_bytes
from ortmesh.serving.types import Array, Item, NoMeter, Tensors

BURST = 12
NEAR = 1.10
TRIES, IDLE_SECONDS = 2, 2.5


class Waiting:
    """Owner and answer of one item that somebody waits for."""

    admitted = cancelled = False

    def __init__(self) -> None:
        self._done = threading.Event()
        self._error: BaseException | None = None

    def emit(self, outputs: Tensors) -> None:
        """There are no pieces."""

    def finish(self, outputs: Tensors) -> None:
        """The answer."""
        self._done.set()

    def fail(self, error: BaseException) -> None:
        """The reason."""
        self._error = error
        self._done.set()

    def wait(self) -> None:
        """Until it is answered; raises what went wrong."""
        if not self._done.wait(60):
            raise TimeoutError("an item was not answered within a minute")
        if self._error is not None:
            raise self._error


@dataclass(slots=True)
class Served:
    """A model behind its pile."""

    loaded: Loaded
    pile: Pile

    def ask(self, tensors: dict[str, Array]) -> None:
        """One item, waited for."""
        waiting = Waiting()
        rows = len(next(iter(tensors.values())))
        self.pile.submit(Item(tensors, answer=waiting, owner=waiting, deadline=math.inf, rows=rows, solo=True))
        waiting.wait()


def used(bench: Bench) -> int:
    """Bytes of the device's memory that are in use, by whomever; of the process on a CPU."""
    if bench.provider == "cpu":
        return resident_bytes()
    return _gpu().used()


@cache
def _gpu() -> CudaStream:
    return CudaStream(0)


def comes_back(bench: Bench) -> list[str]:
    """Two models in threads as when they are served, the first with recorded runs. Nothing is measured meanwhile."""
    resident, before = Resident(), used(bench)
    served: list[Served] = []
    threads: list[threading.Thread] = []
    for name in (MINILM, CENTERFACE):
        card, folder = bench.card(name, cuda_graph=name == MINILM)
        one = Served(load(card, folder, 2, NoMeter(), resident=resident), Pile())
        served.append(one)
        for executor in one.loaded.executors:
            assert isinstance(executor, SessionExecutor)
            executor.study = None
        threads += [threading.Thread(target=each.serve, args=(one.pile,)) for each in one.loaded.executors]
    for thread in threads:
        thread.start()
    try:
        return _measure(bench, served[0], served[1], before, resident)
    finally:
        for one in served:
            one.pile.close()
        for thread in threads:
            thread.join()


def _pictures(served: Served, side: int, rows: int) -> dict[str, Array]:
    """Black ones, as the graph takes them."""
    ((name, info),) = served.loaded.signature.inputs.items()
    free = {axis for axis, length in enumerate(info.shape) if length < 0} - {info.batch_axis}
    shape = [side if axis in free else length for axis, length in enumerate(info.shape)]
    shape[info.batch_axis or 0] = rows
    return {name: np.zeros(shape, info.dtype)}


def _measure(bench: Bench, texts: Served, faces: Served, before: int, resident: Resident) -> list[str]:
    on_gpu = bench.provider == "cuda"
    side, many = 1280 if on_gpu else 640, 4
    large = _pictures(faces, side, many)
    for _ in range(3):
        texts.ask(tokens(16))
        faces.ask(_pictures(faces, 160, 1))
    time.sleep(4)
    rest = used(bench)
    peak = rest
    rows, size = (64, 512) if on_gpu else (4, 64)
    for _ in range(BURST):
        texts.ask(tokens(size, rows))
        faces.ask(large)
        peak = max(peak, used(bench))
    burst = f"texts of {rows} × {size} tokens, pictures of {many} × {side:,} × {side:,}"
    lines = [
        "| when | MB in use |",
        "|---|---|",
        f"| before any model | {before / 1e6:.0f} |",
        f"| at rest | {rest / 1e6:.0f} |",
        f"| in the burst ({burst}) | {peak / 1e6:.0f} |",
    ]
    began = time.monotonic()
    for seconds in (3.0, bench.rest_seconds):
        time.sleep(max(0.0, seconds - (time.monotonic() - began)))
        lines.append(f"| {seconds:.0f} s after it | {used(bench) / 1e6:.0f} |")
    after = used(bench)
    texts.ask(tokens(16))
    good = after <= NEAR * rest
    lines += ["", f"{'within' if good else '**NOT** within'} 10 % of rest; it answers afterwards", ""]
    return lines + _first_after(texts, resident)


def _first_after(texts: Served, resident: Resident) -> list[str]:
    """What the first request after 2.5 s of nothing takes: where little was kept, and where all was given back."""
    warm = [_seconds(texts) for _ in range(50)]
    kept, anew = [], []
    for _ in range(TRIES):
        time.sleep(IDLE_SECONDS)
        kept.append(_seconds(texts))
        resident.changed()  # as if a model had come: all is given back once, to see what is rest
        texts.ask(tokens(16))
        time.sleep(IDLE_SECONDS)
        anew.append(_seconds(texts))
    told = (("one after the other", warm), ("after 2.5 s", kept), ("after 2.5 s and all given back", anew))
    lines = ["| a text of 16 tokens | ms |", "|---|---|"]
    return lines + [f"| {name} | {1e3 * float(np.median(each)):.2f} |" for name, each in told]


def _seconds(served: Served) -> float:
    began = time.perf_counter()
    served.ask(tokens(16))
    return time.perf_counter() - began
