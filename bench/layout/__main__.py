"""`python -m bench.layout`: layouts of the default models beside each other on this CPU, and what is chosen."""

from __future__ import annotations

import argparse
import itertools
import math
import random
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from bench.layout.served import Draw, Served, Slice
from ortmesh.config import StoreSettings
from ortmesh.cpus import cpus
from ortmesh.serving.cards import Card
from ortmesh.serving.executor.binding import Runner
from ortmesh.serving.executor.contest import Contest
from ortmesh.serving.executor.interruptible import InterruptibleSession
from ortmesh.serving.executor.layout import Layout, Measurement, candidates, choose
from ortmesh.serving.executor.measure import batch
from ortmesh.serving.executor.sessions import Sessions
from ortmesh.serving.signature import Signature, signature_of
from ortmesh.serving.store import Store
from ortmesh.serving.types import Tensors
from ortmesh.serving.warmup import candidates as samples_of

CONTESTS = 5
"""Of each case: how often each layout is chosen, and the median of what they measured."""
SLICES = 4
SLICE_SECONDS = 0.5
IN_FLIGHT = (1, 4, 16)


@dataclass(frozen=True)
class Case:
    """A model and the sizes of its items."""

    model: str
    sizes: tuple[int, ...] = (1,)
    """Lengths, for a model whose items may be padded: more than one are drawn from between the first and the last."""
    shape: tuple[int, ...] = ()
    """Of a picture, where it is another than warm-up's."""

    @property
    def name(self) -> str:
        """For a line of the table."""
        sizes = "" if self.sizes == (1,) else f", {' to '.join(map(str, self.sizes))} tokens"
        shape = f", {self.shape[-2]} × {self.shape[-1]}" if self.shape else ""
        return f"{self.model}{sizes}{shape}"


CASES = (
    Case("all-minilm-l6-v2", (32,)),
    Case("all-minilm-l6-v2", (128,)),
    Case("all-minilm-l6-v2", (8, 128)),
    Case("rampart", (32,)),
    Case("rampart", (8, 128)),
    Case("efficientnet-lite0"),
    Case("centerface"),
    Case("centerface", shape=(1, 3, 480, 640)),
    Case("ppocr-v6-rec"),
    Case("silero-vad"),
)


class Laid:
    """A model's sessions by their threads."""

    def __init__(self, case: Case, card: Card, folder: Path) -> None:
        self.case, self.card = case, card
        self.layouts = candidates(cpus())
        self.sessions: dict[int, InterruptibleSession] = {}
        for threads in dict.fromkeys(layout.threads for layout in self.layouts):
            self.sessions[threads] = Sessions(card.runtime, threads).open(folder / card.graph)
        first = self.sessions[self.layouts[0].threads]
        self.signature = signature_of(first.get_inputs(), first.get_outputs(), card)
        self.sample = _sample(first, self.signature)
        if case.shape:
            self.sample = {name: np.resize(array, case.shape) for name, array in self.sample.items()}

    def measured(self) -> list[list[Measurement]]:
        """What came of each contest that could tell something."""
        runs = {threads: Runner(session, self.signature).run for threads, session in self.sessions.items()}
        size = sum(self.case.sizes) // len(self.case.sizes)
        make = partial(batch, self.signature, self.sample, size=size)
        rows = self.card.batching.max_rows
        contests = [Contest(runs.__getitem__, self.layouts, make, rows) for _ in range(CONTESTS)]
        return [found for contest in contests if (found := contest.hold())]

    def served(self) -> Iterator[tuple[int, Mapping[Layout, list[Slice]]]]:
        """(items in flight, slices of each layout), the layouts taking turns."""
        each = [
            Served(self.card, self.signature, self.sample, self.sessions[layout.threads], layout)
            for layout in self.layouts
        ]
        for in_flight in IN_FLIGHT:
            slices: dict[Layout, list[Slice]] = {layout: [] for layout in self.layouts}
            for _ in range(SLICES):
                for served in each:
                    slices[served.layout].append(served.under(in_flight, _draw(self.case), SLICE_SECONDS))
            yield in_flight, slices


def _sample(session: InterruptibleSession, signature: Signature) -> Tensors:
    """The first of warm-up's samples that the model takes."""
    for samples in samples_of(signature):
        try:
            session.run(list(signature.outputs), dict(samples[0]))
        except Exception:  # as warm-up does: the next one
            continue
        return samples[0]
    raise ValueError("no sample satisfies the model")


def _draw(case: Case) -> Draw:
    random_ = random.Random(7)
    return lambda: random_.randint(case.sizes[0], case.sizes[-1])


def _name(layout: Layout) -> str:
    return f"{layout.executors} on {layout.threads}"


def contest_lines(laid: Laid) -> Iterator[str]:
    """A line a layout: ratios to one executor on all threads."""
    held = laid.measured()
    if not held:
        yield f"| {laid.case.name} | nothing can be told | | | | |"
        return
    chosen = [choose(each) for each in held]
    for place, layout in enumerate(laid.layouts):
        pairs = [(each[place], each[0]) for each in held]
        figures = [
            statistics.median(one.alone / first.alone for one, first in pairs),
            statistics.median(one.by_rows[1] / first.by_rows[1] for one, first in pairs),
            statistics.median(max(one.by_rows.values()) / max(first.by_rows.values()) for one, first in pairs),
            statistics.median(one.under_load / first.under_load for one, first in pairs),
        ]
        cells = " | ".join(f"{figure:.2f}" for figure in figures)
        yield f"| {laid.case.name} | {_name(layout)} | {cells} | {chosen.count(layout)} of {len(chosen)} |"


def served_lines(laid: Laid) -> Iterator[str]:
    """A line for each number of items in flight: best slices, as ratios to one executor on all threads."""
    for in_flight, slices in laid.served():
        first = slices[laid.layouts[0]]
        cells = []
        for layout in laid.layouts:
            rate = _best(slices[layout]) / (_best(first) or math.nan)
            waited = _quickest(slices[layout]) / _quickest(first)
            cells.append(f"{rate:.2f} · {waited:.2f}")
        yield f"| {laid.case.name} | {in_flight} | {' | '.join(cells)} |"


def _best(slices: Sequence[Slice]) -> float:
    return max(each.items_per_second for each in slices)


def _quickest(slices: Sequence[Slice]) -> float:
    return min((each.median for each in slices if each.seconds), default=math.nan)


def main() -> None:
    """Both tables; some four minutes."""
    parser = argparse.ArgumentParser(prog="python -m bench.layout", description=__doc__)
    parser.add_argument("--only", help="models whose names contain this")
    parser.add_argument("--part", choices=["contest", "served"], help="one of the two tables")
    chosen = parser.parse_args()
    cards = {card.name: (card, folder) for card, folder in Store(StoreSettings().models).cards()}
    cases = [case for case in CASES if case.model in cards and (chosen.only or "") in case.model]
    if chosen.part != "served":
        print(
            "| case | layout | one item alone takes | ones under load | best batches under load | together | chosen |"
        )
        print("|---|---|---|---|---|---|---|")
        for line in itertools.chain.from_iterable(contest_lines(Laid(case, *cards[case.model])) for case in cases):
            print(line, flush=True)
    if chosen.part != "contest":
        names = " | ".join(_name(layout) for layout in candidates(cpus()))
        print(f"\n| case | in flight | {names} |\n|---|---|{'---|' * len(candidates(cpus()))}")
        for line in itertools.chain.from_iterable(served_lines(Laid(case, *cards[case.model])) for case in cases):
            print(line, flush=True)


if __name__ == "__main__":
    main()
