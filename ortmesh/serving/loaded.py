"""Loaded: the sessions of one model version, warmed up, with the mode that warm-up found. Stage: executor."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ortmesh.serving.cards import Card
from ortmesh.serving.executor.program import Program, ProgramExecutor
from ortmesh.serving.executor.programs import PROGRAMS
from ortmesh.serving.executor.session import SessionExecutor
from ortmesh.serving.executor.sessions import Sessions
from ortmesh.serving.signature import Signature, signature_of
from ortmesh.serving.types import Executor, Item, Meter, NoMeter, Tensors
from ortmesh.serving.warmup import Capture, Finding, Mode, RunItems, probe


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a model version runs on."""

    signature: Signature
    executors: Sequence[Executor]
    provider: str
    finding: Finding


def load(card: Card, folder: Path, threads: int, meter: Meter) -> Loaded:
    """Opens the sessions and warms them up. Blocks for seconds: call it in a thread.

    Any exception means that the model can't be served, with its text as the reason.
    """
    sessions = Sessions(card.runtime, threads)
    if card.runtime.program is not None:
        return _load_program(card, folder, sessions, meter)
    opened = [sessions.open(folder / card.graph) for _ in range(card.runtime.instances)]
    signature = signature_of(opened[0].get_inputs(), opened[0].get_outputs(), card)
    warm = [SessionExecutor(session, signature, limit=card.batching.max_rows, meter=NoMeter()) for session in opened]
    findings = [_probe_session(executor, signature, card) for executor in warm]
    finding = _weakest(findings)
    limit = card.batching.max_rows if finding.mode is not Mode.ALONE else 1
    executors = [SessionExecutor(session, signature, limit=limit, meter=meter) for session in opened]
    return Loaded(signature, executors, opened[0].get_providers()[0], finding)


def _load_program(card: Card, folder: Path, sessions: Sessions, meter: Meter) -> Loaded:
    kind = PROGRAMS.get(card.runtime.program or "")
    if kind is None:
        raise ValueError(
            f"the card names the program {card.runtime.program!r}; there are {', '.join(sorted(PROGRAMS))}"
        )
    programs: list[Program] = [kind.load(card, folder, sessions) for _ in range(card.runtime.instances)]
    warm = ProgramExecutor(programs[0], limit=card.batching.max_rows, meter=NoMeter())
    finding = _probe(warm.run, programs[0].signature, programs[0].samples(), card)
    limit = card.batching.max_rows if finding.mode is not Mode.ALONE else 1
    executors = [ProgramExecutor(program, limit=limit, meter=meter) for program in programs]
    return Loaded(programs[0].signature, executors, programs[0].provider, finding)


def _probe_session(executor: SessionExecutor, signature: Signature, card: Card) -> Finding:
    """A session may find out by itself that rows got lost in a batch, and then go on without one."""
    reasons: list[str] = []
    executor.on_alone = reasons.append
    finding = _probe(executor.run, signature, [], card)
    return Finding(Mode.ALONE, reasons[0]) if reasons else finding


def _probe(run: RunItems, signature: Signature, given: Sequence[Tensors], card: Card) -> Finding:
    batching = card.batching
    finding = probe(
        run,
        lambda tensors, capture: _sample_item(tensors, capture, signature),
        signature,
        given,
        max_rows=batching.max_rows,
        tolerance=batching.tolerance,
    )
    if finding.mode is Mode.TOGETHER and batching.equal_sizes:
        return Finding(Mode.EQUAL_SIZES, "the card says so")
    return finding


def _sample_item(tensors: Tensors, capture: Capture, signature: Signature) -> Item:
    return Item(
        tensors,
        answer=capture,
        owner=capture,
        deadline=math.inf,
        rows=rows_of(tensors, signature),
        size=length_of(tensors, signature),
    )


def _weakest(findings: Sequence[Finding]) -> Finding:
    return max(findings, key=lambda finding: list(Mode).index(finding.mode))


def rows_of(tensors: Tensors, signature: Signature) -> int:
    """Rows along the batch axis; 1 when no tensor has one."""
    for name, array in tensors.items():
        axis = signature.inputs[name].batch_axis
        if axis is not None:
            return int(array.shape[axis])
    return 1


def length_of(tensors: Tensors, signature: Signature) -> int:
    """The length along the axis that may be padded, e.g. tokens; 0 when there is none."""
    for name, array in tensors.items():
        axis = signature.inputs[name].pad_axis
        if axis is not None:
            return int(array.shape[axis])
    return 0
