"""Costs: what one run takes on the device, by rows and size; and what each part of our way of running is worth."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from bench.gpu.host import HostStream
from bench.gpu.models import CENTERFACE, EFFICIENTNET, MINILM, Bench, Opened, bfloat16_graph, seconds_of
from ortmesh.serving.cards import Runtime
from ortmesh.serving.executor import room
from ortmesh.serving.executor.room import as_value
from ortmesh.serving.executor.sessions import Sessions
from ortmesh.serving.executor.stack import stack
from ortmesh.serving.types import Item, Tensors

SIZES = (8, 32, 128, 512)
ROWS = (1, 4, 16, 32, 64)
FEW = (1, 2, 4, 8)


def table(bench: Bench) -> list[str]:
    """Milliseconds of one run through the runner; and what a batch of 32 gains over one row."""
    lines = []
    for name, sizes in ((MINILM, SIZES), (EFFICIENTNET, (0,)), (CENTERFACE, (0,))):
        opened = bench.open(name)
        lines += [
            f"**{name}**, ms a run",
            "",
            f"| size | {' | '.join(f'{rows} rows' for rows in ROWS)} | 32 against 1 |",
        ]
        lines += ["|" + "---|" * (len(ROWS) + 2)]
        lines += [_row(bench, opened, size) for size in sizes]
        lines += [""]
    return lines


def _row(bench: Bench, opened: Opened, size: int) -> str:
    taken = {}
    for rows in ROWS:
        if bench.provider == "cpu" and rows * max(size, 8) > 256:
            continue
        feeds = opened.feeds(rows, size)
        taken[rows] = seconds_of(partial(opened.runner.run, feeds))
    gain = f"{32 * taken[1] / taken[32]:.1f} ×" if 32 in taken else ""
    cells = " | ".join(f"{1e3 * taken[rows]:.3f}" if rows in taken else "" for rows in ROWS)
    return f"| {size or 'fixed'} | {cells} | {gain} |"


def bound_against_plain(bench: Bench) -> list[str]:
    """The runner against `session.run` on the same session, each with its own way of making one batch of many items.

    `one item`: all rows are one item's, for which nothing is stacked. `stacked`: as many items of a row each. `one
    output`: so, and only the first output is wanted. Last, what a large item would take through our pinned memory.
    """
    lines = [
        "| model | rows | size | one item: plain, ms | ours | plain / ours | stacked: plain, ms | ours | plain / ours "
        "| one output: plain, ms | ours | plain / ours | one item, pinned |",
        "|" + "---|" * 13,
    ]
    for name, size in ((MINILM, 32), (MINILM, 128), (EFFICIENTNET, 0), (CENTERFACE, 0)):
        opened = bench.open(name)
        first = tuple(opened.signature.outputs)[:1]
        for rows in (1, 8, 32):
            if bench.provider == "cpu" and rows > 1:
                continue
            feeds = opened.feeds(rows, size)
            items = opened.items(feeds)
            pairs: list[tuple[Callable[[], object], Callable[[], object]]] = [
                (partial(opened.plain, feeds), partial(opened.runner.run, feeds)),
                (partial(_plain, opened, items, ()), partial(_ours, opened, items, ())),
                (partial(_plain, opened, items, first), partial(_ours, opened, items, first)),
            ]
            cells = [f"{name} | {rows} | {size or 'fixed'}"]
            for plain, ours in pairs:
                took = [seconds_of(run, 0.1) for run in (plain, ours, plain, ours)]  # in turns: clocks change
                one, other = min(took[::2]), min(took[1::2])
                cells.append(f"{1e3 * one:.3f} | {1e3 * other:.3f} | {one / other:.2f}")
            cells.append(f"{1e3 * _pinned(opened, feeds):.3f}")
            lines.append(f"| {' | '.join(cells)} |")
    return lines


def _plain(opened: Opened, items: Sequence[Item], outputs: tuple[str, ...]) -> object:
    feeds, _ = stack(items, opened.signature)
    return opened.plain(feeds, outputs)


def _ours(opened: Opened, items: Sequence[Item], outputs: tuple[str, ...]) -> object:
    feeds, _ = stack(items, opened.signature, partial(opened.runner.places, outputs=outputs))
    return opened.runner.run(feeds, outputs)


def _pinned(opened: Opened, feeds: Tensors) -> float:
    direct, room.DIRECT_BYTES = room.DIRECT_BYTES, 1 << 60
    try:
        return seconds_of(partial(opened.runner.run, feeds), 0.1)
    finally:
        room.DIRECT_BYTES = direct


def python(bench: Bench) -> list[str]:
    """What a run takes beside ONNX Runtime, of a graph of three operators on the host's memory in a GPU's place."""
    card, path = bfloat16_graph(bench.work / "small.onnx")
    feeds = {"x": np.zeros((4, 64), np.uint16)}
    lines = ["| run | µs beside ONNX Runtime |", "|---|---|"]
    for record in (False, True):
        session = Sessions(Runtime(providers=["cpu"]), 1).open(path)
        session.stream, session.records = HostStream(), record
        opened = Opened(card, path, session)
        binding = session.io_binding()
        value = as_value(feeds["x"], opened.signature.inputs["x"])
        binding.bind_ortvalue_input("x", value)
        binding.bind_output("y", "cpu")
        bare = seconds_of(partial(session.begin_with_iobinding, binding))
        items = opened.items(feeds)
        ours = seconds_of(partial(opened.runner.run, feeds))
        stacked = seconds_of(partial(_ours, opened, items, ()))
        how = "recorded" if record else "plain"
        lines += [
            f"| {how} | {1e6 * (ours - bare):.1f} |",
            f"| {how}, with stacking of 4 items | {1e6 * (stacked - bare):.1f} |",
        ]
    return lines


def recorded_against_not(bench: Bench) -> list[str]:
    """CUDA graphs against none, through the runner."""
    lines = ["| model | rows | size | without, ms | with, ms | without / with | note |", "|" + "---|" * 7]
    for name, size in ((MINILM, 16), (MINILM, 32), (MINILM, 128), (EFFICIENTNET, 0), (CENTERFACE, 0)):
        without, recorded = bench.open(name, record=False), bench.open(name, record=True)
        rows_of = FEW if size == 0 else (*FEW, 16, 32)
        for rows in rows_of if bench.provider == "cuda" else FEW[:1]:
            feeds = without.feeds(rows, size)
            outputs = tuple(without.signature.outputs)[:1]
            one = seconds_of(partial(without.runner.run, feeds, outputs), 0.08)
            other = seconds_of(partial(recorded.runner.run, feeds, outputs), 0.08)
            cells = f"{size or 'fixed'} | {1e3 * one:.3f} | {1e3 * other:.3f} | {one / other:.2f}"
            lines.append(f"| {name} | {rows} | {cells} | {recorded.runner.note} |")
    return lines


def instances(bench: Bench) -> list[str]:
    """Two sessions in two threads against one: rows a second."""
    lines = ["| model | rows a batch | one, rows/s | two, rows/s | two / one |", "|---|---|---|---|---|"]
    for name, size in ((MINILM, 32), (EFFICIENTNET, 0)):
        both = [bench.open(name), bench.open(name)]
        for rows in (1, 8, 32) if bench.provider == "cuda" else (1,):
            one, two = (_throughput(both[:count], rows, size, 0.6 * bench.seconds) for count in (1, 2))
            lines.append(f"| {name} | {rows} | {one:.0f} | {two:.0f} | {two / one:.2f} |")
    return lines


def _throughput(runners: list[Opened], rows: int, size: int, seconds: float) -> float:
    done = [0] * len(runners)
    until = [0.0]

    def work(place: int) -> None:
        opened = runners[place]
        feeds = opened.feeds(rows, size)
        for _ in range(3):
            opened.runner.run(feeds)
        ready.wait()
        while time.perf_counter() < until[0]:
            opened.runner.run(feeds)
            done[place] += rows

    ready = threading.Barrier(len(runners), action=lambda: until.__setitem__(0, time.perf_counter() + seconds))
    threads = [threading.Thread(target=work, args=(place,)) for place in range(len(runners))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(done) / seconds
