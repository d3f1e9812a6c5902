"""Loaded: the sessions of one model version, warmed up, with the mode that warm-up found. Stage: executor."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ortmesh.serving.cards import Card, Runtime
from ortmesh.serving.executor.program import Program, ProgramExecutor
from ortmesh.serving.executor.programs import PROGRAMS
from ortmesh.serving.executor.session import SessionExecutor
from ortmesh.serving.executor.sessions import PROVIDERS, Sessions, providers_of
from ortmesh.serving.free_memory import free_bytes
from ortmesh.serving.resident import Resident
from ortmesh.serving.signature import Signature, signature_of
from ortmesh.serving.stop import Stop
from ortmesh.serving.types import Executor, Item, Meter, NoMeter, Tensors
from ortmesh.serving.warmup import Capture, Finding, Mode, RunItems, probe

WARM_UP_SECONDS = 300.0
"""A model whose samples take longer is not served: its graph may have no end."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a model version runs on."""

    signature: Signature
    executors: Sequence[Executor]
    provider: str
    finding: Finding
    note: str = ""
    """What else an operator should know of it."""


def load(
    card: Card,
    folder: Path,
    threads: int,
    meter: Meter,
    *,
    stop: Stop | None = None,
    resident: Resident | None = None,
) -> Loaded:
    """Opens the sessions and warms them up. Blocks for seconds: call it in a thread.

    Any exception means that the model can't be served, with its text as the reason.
    """
    _must_fit(folder)
    stop, resident = stop or Stop(), resident or Resident()
    instances, each = share(card.runtime, threads)
    open_one = _open_program if card.runtime.program is not None else _open_session
    opened: list[_Opened] = []
    for _ in range(instances):
        sessions = Sessions(card.runtime, each)
        with stop.watching(sessions, WARM_UP_SECONDS):
            opened.append(open_one(card, folder, sessions, meter, resident))
        sessions.shrink()  # what warm-up took
    finding = _weakest([one.finding for one in opened])
    limit = card.batching.max_rows if finding.mode is not Mode.ALONE else 1
    executors = [one.executor(limit) for one in opened]
    return Loaded(opened[0].signature, executors, opened[0].provider, finding, _note(card.runtime, instances))


def share(runtime: Runtime, threads: int) -> tuple[int, int]:
    """(how many instances, how many threads of operators each): on a CPU never more than it has in all.

    More would only wait for each other, and each takes memory of its own. On a device they are streams side by side.
    """
    if providers_of(runtime)[0] != PROVIDERS["cpu"]:
        return runtime.instances, threads
    instances = min(runtime.instances, threads)
    return instances, threads // instances


def _note(runtime: Runtime, instances: int) -> str:
    if instances == runtime.instances:
        return ""
    return f"{instances} of the {runtime.instances} instances of its card: the service has {instances} threads"


def _must_fit(folder: Path) -> None:
    """MemoryError for files that are larger than the memory that is left: to try would have the process killed,
    and all other models with it."""
    needed = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    if needed > (free := free_bytes()):
        raise MemoryError(f"its files have {needed / 1e6:.3g} MB, and {free / 1e6:.3g} MB of memory are free")


@dataclass(frozen=True, slots=True)
class _Opened:
    """One instance, warmed up."""

    signature: Signature
    provider: str
    finding: Finding
    executor: Callable[[int], Executor]
    """Makes its executor, for so many rows at once."""


def _open_session(card: Card, folder: Path, sessions: Sessions, meter: Meter, resident: Resident) -> _Opened:
    session = sessions.open(folder / card.graph)
    signature = signature_of(session.get_inputs(), session.get_outputs(), card)
    warm = SessionExecutor(session, signature, limit=card.batching.max_rows, meter=NoMeter())
    finding = _probe_session(warm, signature, card)

    def executor(limit: int) -> Executor:
        return SessionExecutor(session, signature, limit=limit, meter=meter, resident=resident, proof=finding.proof)

    return _Opened(signature, session.get_providers()[0], finding, executor)


def _open_program(card: Card, folder: Path, sessions: Sessions, meter: Meter, resident: Resident) -> _Opened:
    kind = PROGRAMS.get(card.runtime.program or "")
    if kind is None:
        raise ValueError(
            f"the card names the program {card.runtime.program!r}; there are {', '.join(sorted(PROGRAMS))}"
        )
    program: Program = kind.load(card, folder, sessions)
    warm = ProgramExecutor(program, sessions, limit=card.batching.max_rows, meter=NoMeter())
    finding = _probe(warm.run, program.signature, program.samples(), card)

    def executor(limit: int) -> Executor:
        return ProgramExecutor(program, sessions, limit=limit, meter=meter, resident=resident, proof=finding.proof)

    return _Opened(program.signature, program.provider, finding, executor)


def _probe_session(executor: SessionExecutor, signature: Signature, card: Card) -> Finding:
    """A session may find out by itself that rows got lost in a batch, and then go on without one."""
    reasons: list[str] = []
    executor.on_alone = reasons.append
    finding = _probe(executor.run, signature, [], card)
    return replace(finding, mode=Mode.ALONE, reason=reasons[0]) if reasons else finding


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
        return replace(finding, mode=Mode.EQUAL_SIZES, reason="the card says so")
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
