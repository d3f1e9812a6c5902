"""Costs: what one run takes on the device, by rows and size; and what each part of our way of running is worth."""

from __future__ import annotations

import threading
import time
from functools import partial

from bench.gpu.models import CENTERFACE, EFFICIENTNET, MINILM, Bench, Opened, seconds_of

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
    """The runner against `session.run` on the same session: times of the latter over those of the former."""
    lines = ["| model | rows | size | plain, ms | ours, ms | plain / ours |", "|---|---|---|---|---|---|"]
    for name, size in ((MINILM, 32), (MINILM, 128), (EFFICIENTNET, 0), (CENTERFACE, 0)):
        opened = bench.open(name)
        for rows in (1, 8, 32):
            if bench.provider == "cpu" and rows > 1:
                continue
            feeds = opened.feeds(rows, size)
            plain = seconds_of(partial(opened.plain, feeds))
            ours = seconds_of(partial(opened.runner.run, feeds))
            lines.append(
                f"| {name} | {rows} | {size or 'fixed'} | {1e3 * plain:.3f} | {1e3 * ours:.3f} | {plain / ours:.2f} |"
            )
    return lines


def recorded_against_not(bench: Bench) -> list[str]:
    """CUDA graphs against none, through the runner."""
    lines = ["| model | rows | without, ms | with, ms | without / with | note |", "|---|---|---|---|---|---|"]
    for name, size in ((MINILM, 32), (EFFICIENTNET, 0), (CENTERFACE, 0)):
        without, recorded = bench.open(name), bench.open(name, record=True)
        for rows in FEW if bench.provider == "cuda" else FEW[:1]:
            feeds = without.feeds(rows, size)
            one = seconds_of(partial(without.runner.run, feeds))
            other = seconds_of(partial(recorded.runner.run, feeds))
            note = recorded.runner.note
            lines.append(f"| {name} | {rows} | {1e3 * one:.3f} | {1e3 * other:.3f} | {one / other:.2f} | {note} |")
    return lines


def instances(bench: Bench) -> list[str]:
    """Two sessions in two threads against one: rows a second."""
    lines = ["| model | rows a batch | one, rows/s | two, rows/s | two / one |", "|---|---|---|---|---|"]
    for name, size in ((MINILM, 32), (EFFICIENTNET, 0)):
        both = [bench.open(name), bench.open(name)]
        for rows in (1, 8, 32) if bench.provider == "cuda" else (1,):
            one, two = (_throughput(both[:count], rows, size, bench.seconds) for count in (1, 2))
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
