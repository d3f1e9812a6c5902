"""Devices to simulate: what a batch costs on each, and the sizes and deadlines of the items that come."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from bench.batching import traces
from ortmesh.serving.batcher import Costs, Grid
from ortmesh.serving.sizing import AREAS, UNIT

HERE = Path(__file__).parent
TEXTS = ("search-beside-indexing", "questions")
LINES = "pages"
LINE_WIDTH = 320
"""Pixels of the line with which the recognizer is warmed up: a size of UNIT."""


@dataclass(frozen=True)
class Device:
    """A model on a device."""

    name: str
    about: str
    truth: Costs
    """What batches really cost."""
    known: Grid
    """What a warm-up would know of it."""
    size: Callable[[random.Random], int]
    """Draws an item's size."""
    deadline: float
    """Seconds that a caller waits."""
    traces: tuple[str, ...] = TEXTS
    """Whose items are of its kind."""
    padded: bool = True
    """False when only items of one size share a batch."""
    sized: Callable[[int], int] = int
    """The size of an item of a trace."""

    @property
    def largest(self) -> int:
        """The largest item that it takes."""
        return self.truth.grid.sizes[-1]


@cache
def devices() -> dict[str, Device]:
    """Measured and published ones."""
    made = [_cpu(), _lines(), _tensorrt(), _launch()]
    return {device.name: device for device in made}


def _cpu() -> Device:
    return _device(
        "cpu",
        "MiniLM f32 on one core, measured; batches hardly help, padding costs",
        Grid.from_json(json.loads((HERE / "minilm-1-core.json").read_text())),
        lambda random: random.randint(8, 128),
        1.0,
    )


def _lines() -> Device:
    """Lines of pages are not padded; warm-up measures one width and takes the others for proportional."""
    truth = Costs(Grid.from_json(json.loads((HERE / "lines-1-core.json").read_text())))
    rows = (1, 2, 4, 8)
    widths = [line_size(each.size) for each in traces.read(LINES)]
    return Device(
        "lines",
        "the recognizer of text lines on one core, measured; batches of equal widths only",
        truth,
        Grid(rows, AREAS, {(row, UNIT): truth.seconds(row, UNIT) for row in rows}),
        lambda random: random.choice(widths),
        2.0,
        traces=(LINES,),
        padded=False,
        sized=line_size,
    )


def line_size(pixels: int) -> int:
    """The size that the service gives a line's picture: in relation to warm-up's."""
    return math.ceil(UNIT * pixels / LINE_WIDTH)


def _tensorrt() -> Device:
    """BERT-base fp16 on an A100-40GB: the average column of NVIDIA's TensorRT demo/BERT README, for 128 and 384
    tokens; fewer tokens scale as the line through 128 says."""
    rows = (1, 2, 4, 8, 12, 16, 24, 32, 64)
    at_128 = (0.67, 0.83, 1.02, 1.38, 1.87, 2.18, 3.34, 4.10, 8.05)
    at_384 = (1.31, 1.64, 2.31, 3.62, 5.03, 6.72, 9.79, 13.51, 26.11)
    at_8 = tuple(0.55 + (each - 0.55) * 8 / 128 for each in at_128)
    seconds = {
        (row, size): cost / 1000
        for size, line in ((8, at_8), (128, at_128), (384, at_384))
        for row, cost in zip(rows, line, strict=True)
    }
    return _device(
        "tensorrt",
        "BERT-base fp16 on an A100 with TensorRT, published; 32 short texts cost little more than one",
        Grid(rows, (8, 128, 384), seconds),
        lambda random: min(384, max(8, int(random.lognormvariate(4.0, 0.8)))),
        0.05,
    )


def _launch() -> Device:
    """A device on which starting a run costs most."""
    rows, sizes = (1, 2, 4, 8, 16, 32), (8, 128)
    seconds = {(row, size): (1.0 + 0.004 * row * size / 8) / 1000 for row in rows for size in sizes}
    return _device(
        "launch",
        "a small model on a large GPU, made up: starting a run is what costs",
        Grid(rows, sizes, seconds),
        lambda random: random.randint(8, 128),
        0.03,
    )


def _device(name: str, about: str, truth: Grid, size: Callable[[random.Random], int], deadline: float) -> Device:
    largest = truth.sizes[-1]
    exact = Costs(truth)
    rows = tuple(each for each in (1, 2, 4, 8, 16, 32, 64) if each <= truth.rows[-1])
    sizes = (*(each for each in (8, 16, 32, 64, 128, 256) if each < largest), largest)
    coarse = Grid(rows, sizes, {(row, each): exact.seconds(row, each) for row in rows for each in sizes})
    return Device(name, about, exact, coarse, size, deadline)
