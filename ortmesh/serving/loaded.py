"""Loaded: the sessions of one model version, warmed up, with the mode that warm-up found. Stage: executor."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import TypeVar

import onnxruntime

from ortmesh.serving.batcher.book import CostBook
from ortmesh.serving.cards import Card, Runtime
from ortmesh.serving.executor.binding import Runner
from ortmesh.serving.executor.buckets import buckets_of
from ortmesh.serving.executor.contest import Run
from ortmesh.serving.executor.engine.device_graph import NotOnDevice
from ortmesh.serving.executor.engine.engine import EngineExecutor
from ortmesh.serving.executor.program import Program, ProgramExecutor
from ortmesh.serving.executor.programs import PROGRAMS
from ortmesh.serving.executor.provider_options import Options, engines_of, profiles_of
from ortmesh.serving.executor.session import SessionExecutor
from ortmesh.serving.executor.sessions import PROVIDERS, ProviderMissing, Sessions, providers_of
from ortmesh.serving.executor.study import Study
from ortmesh.serving.free_memory import bytes_of, free_bytes
from ortmesh.serving.kept import Kept, key_of
from ortmesh.serving.laid import lay_out
from ortmesh.serving.resident import Resident
from ortmesh.serving.signature import Signature, signature_of
from ortmesh.serving.sizing import Sizing, elements_of, length_of, rows_of
from ortmesh.serving.stop import WARM_UP_SECONDS, Stop
from ortmesh.serving.types import Executor, Item, Meter, NoMeter, Tensors
from ortmesh.serving.warmup import Capture, Finding, Mode, RunItems, probe

ON_DEVICE = 2
"""Executors: while a GPU computes a batch, the next one is put together and the last one is handed out. What that
gains on an H200 is in `bench/results/gpu.md`."""
TWICE_BYTES = 512 * 1024 * 1024
"""Of a model whose weights may be on a device twice."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a model version runs on."""

    signature: Signature
    executors: Sequence[Executor]
    provider: str
    finding: Finding
    sizing: Sizing
    threads: int
    """Of each executor's operators, on a CPU; 0 on a device."""
    costs: CostBook | None = None
    """What is known of its batches; None for a program."""
    study: Study | None = None
    """How more is found out."""
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
    spread = _spread(card, folder, threads, meter, stop, resident)
    opened = spread.opened
    finding = _weakest([one.finding for one in opened])
    limit = card.batching.max_rows if finding.mode is not Mode.ALONE else 1
    signature, provider = opened[0].signature, opened[0].provider
    sizing = Sizing(signature, elements_of(finding.proof, signature) if finding.proof else 0)
    book = CostBook(sizing.sizes, sizing.max_size)
    executors = [one.executor(limit, book) for one in opened for _ in range(spread.executors_each)]
    key = key_of(card, folder, provider, spread.threads, opened[0].sessions.gpu)
    study = _study(executors[0], book, sizing, Kept(folder, key))
    if study is not None:
        with stop.watching(opened[0].sessions, WARM_UP_SECONDS):
            study.first()
        opened[0].sessions.shrink()
    on_cpu = provider == PROVIDERS["cpu"]
    notes = [_note(card.runtime, len(executors), threads), *dict.fromkeys(one.sessions.note for one in opened)]
    note = "; ".join(filter(None, notes))
    return Loaded(
        signature,
        executors,
        provider,
        finding,
        sizing,
        spread.threads if on_cpu else 0,
        book if study else None,
        study,
        note,
    )


def _study(executor: Executor, book: CostBook, sizing: Sizing, kept: Kept) -> Study | None:
    """What a session's batches cost; None for what was never computed, and for programs, whose steps depend on what
    they read."""
    if not isinstance(executor, SessionExecutor) or not executor.provable:
        return None
    study = Study(book, kept, lambda: executor.measure(sizing.measurable))
    executor.study = study
    return study


@dataclass(frozen=True, slots=True)
class _Spread:
    """What was opened, and how many executors run each of it."""

    opened: Sequence[_Opened]
    executors_each: int
    threads: int
    """Of each one's operators."""


def _spread(card: Card, folder: Path, threads: int, meter: Meter, stop: Stop, resident: Resident) -> _Spread:
    """On a CPU the executors of a session share it, so that its weights are there once; programs and sessions on a
    device have one executor each, and a model that generates texts has one anywhere."""
    if card.runtime.engine is not None:
        return _Spread([_engine(card, folder, threads, meter, stop, resident)], 1, threads)
    if card.runtime.program is None and _on_cpu(card.runtime):
        open_session = partial(_open, _open_session, card, folder, meter, resident, stop)
        one, layout = lay_out(card, folder, threads, stop, open_session)
        return _Spread([one], layout.executors, layout.threads)
    instances, each = share(card.runtime, threads, bytes_of(folder))
    open_one: Open[_Opened] = _open_session if card.runtime.program is None else _open_program
    opened = [_open(open_one, card, folder, meter, resident, stop, each) for _ in range(instances)]
    return _Spread(opened, 1, each)


def share(runtime: Runtime, threads: int, nbytes: int = 0) -> tuple[int, int]:
    """(how many instances that share nothing, how many threads of operators each), for files of so many bytes.

    On a CPU never more than it has in all: more would only wait for each other. On a device they are streams side by
    side; where the card says nothing, there are two, unless the weights are so large that they should be there once.
    """
    if not _on_cpu(runtime):
        several = runtime.program is None and nbytes <= TWICE_BYTES
        return runtime.instances or (ON_DEVICE if several else 1), threads
    instances = min(runtime.instances or 1, threads)
    return instances, threads // instances


def _on_cpu(runtime: Runtime) -> bool:
    return providers_of(runtime)[0] == PROVIDERS["cpu"]


def _note(runtime: Runtime, executors: int, threads: int) -> str:
    if runtime.instances is None or executors == runtime.instances:
        return ""
    return f"{executors} of the {runtime.instances} instances of its card: the service has {threads} threads"


def _must_fit(folder: Path) -> None:
    """MemoryError for files that are larger than the memory that is left: to try would have the process killed,
    and all other models with it."""
    if (needed := bytes_of(folder)) > (free := free_bytes()):
        raise MemoryError(f"its files have {needed / 1e6:.3g} MB, and {free / 1e6:.3g} MB of memory are free")


def _profiles(card: Card, path: Path) -> Options:
    """The shapes for which TensorRT builds: known once the graph was opened, on the CPU and without its optimizer."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(str(path), options, providers=[PROVIDERS["cpu"]])
    signature = signature_of(session.get_inputs(), session.get_outputs(), card)
    return profiles_of(signature, buckets_of(card, pad_sizes=signature.padded))


@dataclass(frozen=True, slots=True)
class _Opened:
    """One instance, warmed up."""

    signature: Signature
    provider: str
    finding: Finding
    sessions: Sessions
    executor: Callable[[int, CostBook], Executor]
    """Makes an executor of it, for so many rows at once; the book learns from its runs."""


@dataclass(frozen=True, slots=True)
class _OpenedSession(_Opened):
    """One that several executors may share on a CPU."""

    run: Run
    """Computes a batch as it is."""


M = TypeVar("M", bound=_Opened)
Open = Callable[[Card, Path, Sessions, Meter, Resident], M]


def _open(open_one: Open[M], card: Card, folder: Path, meter: Meter, resident: Resident, stop: Stop, threads: int) -> M:
    """An instance whose operators have so many threads."""
    sessions = Sessions(card.runtime, threads, engines=engines_of(card, folder), profiles=partial(_profiles, card))
    with stop.watching(sessions, WARM_UP_SECONDS):
        opened = open_one(card, folder, sessions, meter, resident)
    sessions.shrink()  # what warm-up took
    return opened


def _open_session(card: Card, folder: Path, sessions: Sessions, meter: Meter, resident: Resident) -> _OpenedSession:
    """What shows in its first runs alone, that they can't be recorded or that TensorRT builds no engine for them, is no
    reason not to serve it without."""
    while True:
        try:
            return _warm_up(card, folder, sessions, meter, resident)
        except Exception as error:
            if not sessions.fall_back(error):
                raise
        sessions.forget()


def _warm_up(card: Card, folder: Path, sessions: Sessions, meter: Meter, resident: Resident) -> _OpenedSession:
    session = sessions.open(folder / card.graph)
    signature = signature_of(session.get_inputs(), session.get_outputs(), card)
    every = buckets_of(card, pad_sizes=True)
    own_sizes = buckets_of(card, pad_sizes=False)
    warm = SessionExecutor(session, signature, limit=card.batching.max_rows, meter=NoMeter(), buckets=every)
    finding = _probe_session(warm, signature, card)
    sessions.say(warm.note)
    unused = [session]  # the first executor has it itself, others have it again
    buckets = {Mode.TOGETHER: every, Mode.EQUAL_SIZES: own_sizes}.get(finding.mode)  # else rows of padding would show

    def executor(limit: int, book: CostBook) -> Executor:
        return SessionExecutor(
            unused.pop() if unused else sessions.again(session),
            signature,
            limit=limit,
            meter=meter,
            resident=resident,
            proof=finding.proof,
            costs=book,
            buckets=buckets,
        )

    @cache
    def runner() -> Runner:
        return Runner(session, signature)

    def run(feeds: Tensors) -> Tensors:
        return runner().run(feeds)

    return _OpenedSession(signature, session.get_providers()[0], finding, sessions, executor, run)


def _open_program(card: Card, folder: Path, sessions: Sessions, meter: Meter, resident: Resident) -> _Opened:
    kind = PROGRAMS.get(card.runtime.program or "")
    if kind is None:
        raise ValueError(
            f"the card names the program {card.runtime.program!r}; there are {', '.join(sorted(PROGRAMS))}"
        )
    program: Program = kind.load(card, folder, sessions)
    warm = ProgramExecutor(program, sessions, limit=card.batching.max_rows, meter=NoMeter())
    finding = _probe(warm.run, program.signature, program.samples(), card)

    def executor(limit: int, book: CostBook) -> Executor:
        return ProgramExecutor(program, sessions, limit=limit, meter=meter, resident=resident, proof=finding.proof)

    return _Opened(program.signature, program.provider, finding, sessions, executor)


def _engine(card: Card, folder: Path, threads: int, meter: Meter, stop: Stop, resident: Resident) -> _Opened:
    """On a device if it can compute attention there, else on the CPU, unless the card demands the device."""
    try:
        return _open(_open_engine, card, folder, meter, resident, stop, threads)
    except NotOnDevice as reason:
        if card.runtime.require is not None:
            raise ProviderMissing(f"the card requires {card.runtime.require}, and {reason}") from None
        note = f"on the CPU: {reason}"
    runtime = card.runtime.model_copy(update={"providers": ["cpu"]})
    there = card.model_copy(update={"runtime": runtime})
    opened = _open(_open_engine, there, folder, meter, resident, stop, threads)
    opened.sessions.say(note)
    return opened


def _open_engine(card: Card, folder: Path, sessions: Sessions, meter: Meter, resident: Resident) -> _Opened:
    """A graph whose texts would depend on each other generates one at a time."""
    opened = EngineExecutor.load(card, folder, sessions, meter=meter)
    dependent = opened.warm_up()
    sessions.say(opened.note)
    finding = Finding(Mode.ALONE if dependent else Mode.TOGETHER, dependent, None)
    return _Opened(opened.signature, opened.provider, finding, sessions, lambda limit, book: opened)


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
