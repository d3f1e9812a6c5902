"""Laid out: how the executors of one model and the threads of its session are chosen on a CPU. Stage: executor."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar

from ortmesh.serving.cards import Card
from ortmesh.serving.executor.contest import Contest, Run
from ortmesh.serving.executor.failures import readable
from ortmesh.serving.executor.layout import Layout, Measurement, beside, candidates, choose, one_executor
from ortmesh.serving.executor.measure import batch
from ortmesh.serving.executor.sessions import PROVIDERS, Sessions
from ortmesh.serving.free_memory import files_fit
from ortmesh.serving.kept import Kept, key_of
from ortmesh.serving.signature import Signature
from ortmesh.serving.sizing import Sizing, elements_of, length_of
from ortmesh.serving.stop import WARM_UP_SECONDS, Stop
from ortmesh.serving.types import Tensors
from ortmesh.serving.warmup import Finding, Mode

log = logging.getLogger(__name__)

KEPT = "layout"
"""Its place in what is kept of a version."""
TYPICAL_LENGTH = 32
"""Of items that may be padded: a sentence."""


class Warm(Protocol):
    """A session that is warmed up."""

    @property
    def signature(self) -> Signature:
        """What it takes and gives."""

    @property
    def finding(self) -> Finding:
        """What warm-up found."""

    @property
    def sessions(self) -> Sessions:
        """To interrupt and to shrink it."""

    @property
    def run(self) -> Run:
        """Computes a batch; several threads may call it at once."""


W = TypeVar("W", bound=Warm)


def lay_out(card: Card, folder: Path, threads: int, stop: Stop, open_with: Callable[[int], W]) -> tuple[W, Layout]:
    """(the session, its layout) for a service of so many threads: the card's number of executors, else what was chosen
    at an earlier start, else what a contest chooses now.

    `open_with` opens a session of so many threads and warms it up.
    """
    if card.runtime.instances is not None:
        layout = beside(card.runtime.instances, threads)
        return open_with(layout.threads), layout
    kept = Kept(folder, key_of(card, folder, PROVIDERS["cpu"], threads))
    known = Layout.from_json(kept.read().get(KEPT), threads)
    if known is not None:
        return open_with(known.threads), known
    first = open_with(threads)
    opened = {threads: first}
    with stop.watching(first.sessions, WARM_UP_SECONDS):
        measurements = _measured(first, _worth_trying(first, folder, threads), card, opened, open_with)
    first.sessions.shrink()
    if not measurements:
        return first, one_executor(threads)
    layout = choose(measurements)
    kept.update({KEPT: layout.to_json()})
    log.info("%s: %d executors on %d threads were chosen", card.key, layout.executors, layout.threads)
    return opened[layout.threads], layout


def _worth_trying(warm: Warm, folder: Path, threads: int) -> tuple[Layout, ...]:
    """One alone where nothing can be measured.

    Where shapes vary and are not padded, warm-up's sample may be far smaller than what callers send, and says nothing
    of how long one item alone takes: then only layouts in which it keeps all threads. So, too, where the weights do
    not fit twice.
    """
    proof, signature = warm.finding.proof, warm.signature
    if proof is None:
        return (one_executor(threads),)
    layouts = candidates(threads)
    unlike = Sizing(signature, elements_of(proof, signature)).sized and not signature.padded
    if unlike or not files_fit(folder):
        return tuple(layout for layout in layouts if layout.threads == threads)
    return layouts


def _measured(
    first: W, layouts: Sequence[Layout], card: Card, opened: dict[int, W], open_with: Callable[[int], W]
) -> list[Measurement]:
    """Empty where there is nothing to choose from, and where it can't be measured: that is no reason not to serve."""
    if len(layouts) == 1:
        return []

    def run_of(threads: int) -> Run:
        if threads not in opened:
            opened[threads] = open_with(threads)
        return opened[threads].run

    proof = first.finding.proof
    assert proof is not None
    max_rows = card.batching.max_rows if first.finding.mode is not Mode.ALONE else 1
    make = partial(batch, first.signature, proof, size=_typical_length(first, proof))
    try:
        return Contest(run_of, layouts, make, max_rows).hold()
    except Exception as error:  # e.g. two batches at once need more memory than there is
        log.warning("%s: layouts can't be measured, it gets one executor: %s", card.key, readable(error))
        return []


def _typical_length(warm: Warm, proof: Tensors) -> int:
    """What is like most items, if the model takes it; else the sample's own."""
    own = length_of(proof, warm.signature)
    if not warm.signature.padded or own >= TYPICAL_LENGTH:
        return own
    try:
        warm.run(batch(warm.signature, proof, 1, TYPICAL_LENGTH))
    except Exception as error:  # longer than its position table
        log.debug("layouts are measured with %d tokens: %s", own, readable(error))
        return own
    return TYPICAL_LENGTH
