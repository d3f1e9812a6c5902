"""Texts: generation on a device: as the CPU does it, whoever is beside them, how quick, and what bounds it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

from bench.generate.bare import Bare
from bench.generate.jobs import Drawn, Job
from bench.generate.texts import Text, Wave
from bench.gpu.models import THREADS, Bench
from ortmesh.serving.cards import Card, Runtime
from ortmesh.serving.executor.cuda import CudaStream
from ortmesh.serving.executor.engine.engine import open_graph
from ortmesh.serving.executor.engine.graph import CausalGraph
from ortmesh.serving.executor.engine.slots import Held, Slots
from ortmesh.serving.executor.interruptible import InterruptibleSession
from ortmesh.serving.executor.provider_options import FLASH, MEMORY_EFFICIENT, UNFUSED, as_providers, cuda_options
from ortmesh.serving.executor.sessions import PROVIDERS, Sessions

SMOLLM = "smollm2-135m-instruct-f16"
STREAMS = (1, 4, 8, 16, 32)
TOKENS = 160
PLACES = 24
"""Of which the next token is compared with the CPU's."""
KERNELS = {"as ONNX Runtime chooses": 0, "flash": FLASH, "memory-efficient": MEMORY_EFFICIENT, "unfused": UNFUSED}
"""Its `sdpa_kernel`; recorded steps."""
CONTEXT = 2048
LONG = 1000
"""Tokens of a long prompt."""


def steps(bench: Bench) -> list[str]:
    """One run of each shape, recorded and not."""
    lines = ["| run | tokens before | as it is, ms | recorded, ms | as it is / recorded |", "|---|---|---|---|---|"]
    graphs = {record: _graph(bench, record=record) for record in (False, True)}
    slots = {record: _slots(bench, graph) for record, graph in graphs.items()}
    for name, before, run in (
        ("a step", 50, _step),
        ("a step", 500, _step),
        ("a step", 2000, _step),
        ("a window", 0, _window),
        ("a window", 1536, _window),
    ):
        took = [_median(run(graphs[record], slots[record], before)) for record in (False, True)]
        plain, recorded = (1e3 * seconds for seconds in took)
        lines.append(f"| {name} | {before} | {plain:.3f} | {recorded:.3f} | {plain / recorded:.2f} |")
    rows, window = slots[True].count, graphs[True].chunk(slots[True], 0, CONTEXT, alone=True)
    notes = sorted({graph.note for graph in graphs.values()} - {""})
    return [*lines, "", f"A step has {rows} rows, of which one is a text here; a window {window} tokens.", *notes]


def attention(bench: Bench) -> list[str]:
    """What kernels for attention cost a step, and whether they repeat themselves: the same text written twice."""
    if bench.provider == "cpu":
        return ["not on a CPU"]
    lines = [
        "| kernel | a step at 50 tokens, ms | at 500 | at 2,000 | steps that differ, of 30 from 41 on | from 300 on |",
        "|---|---|---|---|---|---|",
    ]
    for name, kernels in KERNELS.items():
        graph = open_graph(_by_kernels(bench, kernels))
        slots = _slots(bench, graph)
        took = " | ".join(f"{1e3 * _median(_step(graph, slots, before)):.2f}" for before in (50, 500, 2000))
        differ = " | ".join(str(_differing(graph, slots, before)) for before in (41, 300))
        lines.append(f"| {name} | {took} | {differ} |")
    return lines


def same(bench: Bench) -> list[str]:
    """Logits beside the CPU's, and texts among others beside texts alone."""
    card, folder = _model(bench)
    device = _graph(bench, record=True)
    host = open_graph(Sessions(Runtime(providers=["cpu"]), THREADS).open(folder / card.graph))
    ids = list(Drawn(tokenizer_of(folder), seed=3).long(300).ids)[: 200 + PLACES]
    found, wanted = (_logits(graph, _slots(bench, graph), ids[:-PLACES], ids[-PLACES:]) for graph in (device, host))
    difference, alike = np.abs(found - wanted).max(), (found.argmax(1) == wanted.argmax(1)).sum()
    lines = [
        f"Logits of {PLACES} places, as they are beside the CPU's: the largest difference is {difference:.3f} "
        f"({difference / np.abs(wanted).max():.4f} of the largest number); the likeliest token is the same in {alike}.",
        "",
    ]
    jobs = [*Drawn(tokenizer_of(folder), seed=5).stories(28, 64), *(_long(folder, 300 + 150 * n, 64) for n in range(4))]
    engine = Bare(folder, THREADS)
    try:
        alone = [_wave(engine, [job], 1).texts[0].tokens for job in jobs]
        for count in (2, 8, 32):
            engine.forget()
            among = [text.tokens for text in _wave(engine, jobs, count).texts]
            equal = sum(one == other for one, other in zip(alone, among, strict=True))
            lines.append(f"{equal} of {len(jobs)} texts are, token for token, what they are alone, {count} at once.")
    finally:
        engine.close()
    return lines


def rates(bench: Bench) -> list[str]:
    """The engine behind its pile, without a service around it."""
    _, folder = _model(bench)
    engine = Bare(folder, THREADS)
    lines = [
        "| streams | tokens/s | between two tokens, ms | of bare steps | in steps | in windows | first token, p50, ms "
        "| longest gap, ms |",
        "|---|---|---|---|---|---|---|---|",
    ]
    try:
        drawn = Drawn(tokenizer_of(folder), seed=1)
        _wave(engine, drawn.stories(64, 8), 32)  # both runs are recorded
        bare = engine.step(32, 120)
        took = {name: _watched(engine._executor._graph, name) for name in ("step", "read")}
        for count in STREAMS:
            for each in took.values():
                each.clear()
            wave = _wave(engine, drawn.stories(2 * count, TOKENS), count)
            shares = [sum(each) / wave.seconds for each in took.values()]
            lines.append(_row(str(count), wave, count, bare, shares))
        lines += ["", f"A bare step: {1e3 * bare:.3f} ms; it gives a token to each stream."]
        lines += ["", *_long_prompts(engine, folder, drawn, bare)]
    finally:
        engine.close()
    return lines


def memory(bench: Bench) -> list[str]:
    """What the device holds before and after many texts."""
    if bench.provider == "cpu":
        return ["not on a CPU"]
    stream = CudaStream(0)
    _, folder = _model(bench)
    used = [stream.used()]
    engine = Bare(folder, THREADS)
    try:
        for seed in range(3):
            used.append(stream.used())
            drawn = Drawn(tokenizer_of(folder), seed=seed)
            _wave(engine, [*drawn.stories(96, 32), *(_long(folder, 1800 + seed, 8, n) for n in range(8))], 48)
        used.append(stream.used())
    finally:
        engine.close()
    told = ", ".join(f"{each / 1e6:.0f}" for each in used)
    return [f"MB in use before the model, with it, and after 104 texts each time: {told}."]


def _long_prompts(engine: Bare, folder: Path, drawn: Drawn, bare: float) -> list[str]:
    engine.forget()
    alone = _wave(engine, [_long(folder, LONG, 1)], 1)
    many = _wave(engine, [_long(folder, LONG, 1, seed) for seed in range(1, 17)], 16)
    jobs = drawn.stories(16, 400)
    arriving = [_long(folder, LONG, 1, seed, after=0.05 * seed) for seed in range(20, 28)]
    wave = _wave(engine, [*jobs, *arriving], 8)
    came = [text.first_seconds for text in wave.came]
    return [
        f"A prompt of {LONG} tokens alone: {1e3 * alone.texts[0].first_seconds:.1f} ms; 16 at once: "
        f"{16 * LONG / many.seconds:.0f} tokens/s.",
        "",
        f"8 streams while such prompts come, one in 50 ms: {_rate(wave.streams):.0f} tokens/s, the longest gap between "
        f"two tokens {1e3 * max(text.gap_seconds for text in wave.streams):.1f} ms; the prompts' first token after "
        f"{1e3 * median(came):.1f} ms (p50).",
    ]


def _watched(graph: CausalGraph, name: str) -> list[float]:
    """The seconds of each call of this method from now on."""
    took: list[float] = []
    compute = getattr(graph, name)

    def timed(*arguments: Any) -> Any:
        began = time.perf_counter()
        found = compute(*arguments)
        took.append(time.perf_counter() - began)
        return found

    setattr(graph, name, timed)
    return took


def _row(name: str, wave: Wave, count: int, bare: float, shares: Sequence[float]) -> str:
    texts = wave.streams
    rate = _rate(texts)
    first, gap = median(text.first_seconds for text in texts), max(text.gap_seconds for text in texts)
    return (
        f"| {name} | {rate:.0f} | {1e3 * count / rate:.3f} | {rate * bare / count:.2f} | {shares[0]:.0%} "
        f"| {shares[1]:.0%} | {1e3 * first:.1f} | {1e3 * gap:.1f} |"
    )


def _rate(texts: Sequence[Text]) -> float:
    """Tokens a second from the first token to the last, of all streams."""
    at = sorted(moment for text in texts for moment in text.at)
    return (len(at) - 1) / (at[-1] - at[0])


def _wave(engine: Bare, jobs: Sequence[Job], streams: int) -> Wave:
    return Wave.of(jobs, engine.write({"jobs": [job.line() for job in jobs], "stops": [], "streams": streams}))


def _long(folder: Path, tokens: int, max_tokens: int, seed: int = 0, after: float = 0.0) -> Job:
    return Drawn(tokenizer_of(folder), seed=1000 + seed).long(tokens, max_tokens, after)


@cache
def tokenizer_of(folder: Path) -> Tokenizer:
    """That of a model's folder, read once."""
    return Tokenizer.from_file(str(folder / "tokenizer.json"))


def _model(bench: Bench) -> tuple[Card, Path]:
    return bench.card(SMOLLM)


def _graph(bench: Bench, *, record: bool) -> CausalGraph:
    card, folder = _model(bench)
    runtime = card.runtime.model_copy(update={"cuda_graph": record})
    card = card.model_copy(update={"runtime": runtime})
    return open_graph(bench.session(card, folder / card.graph))


def _by_kernels(bench: Bench, kernels: int) -> InterruptibleSession:
    card, folder = _model(bench)
    stream = CudaStream(card.runtime.device_id)
    options = cuda_options(card.runtime, stream=stream.handle, record=True) | {"sdpa_kernel": str(kernels)}
    providers = as_providers([PROVIDERS["cuda"], PROVIDERS["cpu"]], {PROVIDERS["cuda"]: options})
    made = Sessions(card.runtime, THREADS).options()
    session = onnxruntime.InferenceSession(str(folder / card.graph), made, providers=providers, enable_fallback=0)
    return InterruptibleSession(session, stream, records=True)


def _differing(graph: CausalGraph, slots: Slots, before: int, steps: int = 30) -> int:
    """Of so many steps of a text, how many give other logits the second time."""
    ids = np.random.default_rng(before).integers(100, 40_000, before + steps).tolist()
    first, second = (_logits(graph, slots, ids[:before], ids[before:]) for _ in range(2))
    return int((first != second).any(axis=1).sum())


def _slots(bench: Bench, graph: CausalGraph) -> Slots:
    return graph.slots(slots=32 if bench.provider == "cuda" else 2, length=CONTEXT)


def _step(graph: CausalGraph, slots: Slots, before: int) -> Callable[[], object]:
    slots.held[:] = [Held([7] * before), *(Held() for _ in slots.held[1:])]
    return lambda: graph.step(slots, [5])


def _window(graph: CausalGraph, slots: Slots, before: int) -> Callable[[], object]:
    slots.held[0] = Held([7] * before)
    tokens = [5] * graph.chunk(slots, before, CONTEXT - before, alone=True)
    return lambda: graph.read(slots, 0, tokens)


def _logits(graph: CausalGraph, slots: Slots, before: list[int], following: list[int]) -> Any:
    """After each of the following tokens of a text: [tokens, vocabulary]."""
    slots.held[:] = [Held() for _ in slots.held]
    graph.read_on(slots, 0, before)
    found = []
    for token in following:
        found.append(graph.step(slots, [token])[0].copy())
        slots.held[0].tokens.append(token)
    return np.array(found)


def _median(run: Callable[[], object], times: int = 30) -> float:
    for _ in range(3):
        run()
    took = []
    for _ in range(times):
        began = time.perf_counter()
        run()
        took.append(time.perf_counter() - began)
    return median(took)
