"""Engines: what TensorRT builds, how long that takes, whether its results are right, and what a run gains."""

from __future__ import annotations

import shutil
import time
from functools import partial
from pathlib import Path

from bench.gpu.models import CENTERFACE, EFFICIENTNET, MINILM, THREADS, Bench, Opened, seconds_of
from bench.gpu.right import COMPARED, compared
from ortmesh.serving.cards import Buckets, Card, TensorRT
from ortmesh.serving.executor.provider_options import engines_of
from ortmesh.serving.executor.sessions import PROVIDERS
from ortmesh.serving.loaded import Loaded, load
from ortmesh.serving.types import NoMeter

BUCKETS = {
    MINILM: Buckets(rows=[1, 8, 32], sizes=[16, 32, 128]),
    EFFICIENTNET: Buckets(rows=[1, 8, 32]),
    CENTERFACE: Buckets(rows=[1, 4, 8]),
}
SHAPES = {MINILM: ((1, 32), (8, 32), (32, 128)), EFFICIENTNET: ((1, 0), (8, 0), (32, 0)), CENTERFACE: ((1, 0), (8, 0))}
WANTED = PROVIDERS["tensorrt"]


def tensorrt(bench: Bench) -> list[str]:
    """Each model loaded twice: what the first load built, the second one reads. An engine takes minutes; MiniLM, which
    has an operator of ONNX Runtime's own, gets none and is served without."""
    if bench.provider == "cpu":
        return ["not on a CPU"]
    loads = ["| model | fp16 | first load, s | second load, s | engines, MB | provider | note |", "|" + "---|" * 7]
    right = list(COMPARED)
    runs = ["| model | rows | size | CUDA, ms | recorded, ms | TensorRT, ms |", "|" + "---|" * 6]
    for name, fp16 in ((EFFICIENTNET, True), (CENTERFACE, False), (MINILM, True)):
        card, folder = _copied(bench, name, fp16=fp16)
        took, loaded = _loaded_twice(card, folder)
        built = sum(each.stat().st_size for each in engines_of(card, folder).glob("*.engine")) / 1e6
        loads.append(
            f"| {name} | {'yes' if fp16 else 'no'} | {took[0]:.1f} | {took[1]:.1f} | {built:.1f} "
            f"| {loaded.provider} | {loaded.note} |"
        )
        if loaded.provider != WANTED:
            continue
        opened = Opened(card, folder / card.graph, loaded.executors[0]._session)  # type: ignore[attr-defined]
        right.append(compared(opened, f"{name}{', fp16' if fp16 else ''}", WANTED, False))
        runs += _runs(bench, name, opened)
    return [*loads, "", *right, "", *runs]


def _copied(bench: Bench, name: str, *, fp16: bool) -> tuple[Card, Path]:
    """A card for TensorRT, and a folder of its own, where nothing is built yet."""
    where = {"require": None, "providers": ["tensorrt", "cuda", "cpu"], "tensorrt": TensorRT(fp16=fp16)}
    card, folder = bench.card(name, buckets=BUCKETS[name], **where)
    if fp16:
        card = card.model_copy(update={"precision": "f16"})
    return card, Path(shutil.copytree(folder, bench.work / f"{name}-{fp16}"))


def _loaded_twice(card: Card, folder: Path) -> tuple[list[float], Loaded]:
    took = []
    for _ in range(2):
        began = time.perf_counter()
        loaded = load(card, folder, THREADS, NoMeter())
        took.append(time.perf_counter() - began)
    return took, loaded


def _runs(bench: Bench, name: str, built: Opened) -> list[str]:
    """One run of each shape, as the product runs it."""
    plain, recorded = (bench.open(name, record=record) for record in (False, True))
    lines = []
    for rows, size in SHAPES[name]:
        feeds = built.feeds(rows, size)
        took = " | ".join(f"{1e3 * seconds_of(partial(o.runner.run, feeds)):.3f}" for o in (plain, recorded, built))
        lines.append(f"| {name} | {rows} | {size or 'fixed'} | {took} |")
    return lines
