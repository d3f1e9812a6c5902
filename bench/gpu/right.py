"""Right: what a GPU gives is what the CPU gives, on the provider that was asked for."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from functools import partial

import numpy as np
import onnxruntime

from bench.gpu.models import CENTERFACE, EFFICIENTNET, MINILM, Bench, Opened, bfloat16_graph, exact_copy, on_cpu
from ortmesh.serving.executor.sessions import PROVIDERS
from ortmesh.serving.executor.stack import stack
from ortmesh.serving.loaded import load
from ortmesh.serving.types import Array, NoMeter, Tensors

TOLERANCE = {"f16": 1e-2, "f32": 1e-3}
"""Of the largest number of an output."""
ROUNDS = 3
"""Other numbers each: a buffer that is not filled anew would show."""
COMPARED = (
    "| model | provider | recorded | largest difference | of the largest number | good |",
    "|---|---|---|---|---|---|",
)
"""The head of the table of `compared`."""

NEEDS_GPU = """
from pathlib import Path
from ortmesh.serving.cards import Card, Runtime
from ortmesh.serving.executor.sessions import ProviderMissing, Sessions
try:
    Sessions(Runtime(require="cuda"), 1).open(Path({path!r}))
except ProviderMissing as missing:
    print("refused:", missing)
"""


def bare(bench: Bench) -> list[str]:
    """ONNX Runtime alone, with none of our options: whether what follows can work at all."""
    card, folder = bench.card(EFFICIENTNET)
    path, wanted = str(folder / card.graph), PROVIDERS[bench.provider]
    session = onnxruntime.InferenceSession(path, providers=[wanted, PROVIDERS["cpu"]])
    (node,) = session.get_inputs()
    began = time.perf_counter()
    session.run(None, {node.name: np.zeros((1, 3, 224, 224), np.float32)})
    places = [info.name for info in session.get_input_memory_infos()]
    seconds = time.perf_counter() - began
    return [
        f"{session.get_providers()}, inputs on {places}, first run {seconds:.2f} s, {session.get_provider_options()}"
    ]


def equal_results(bench: Bench) -> list[str]:
    """Every model against the CPU, plain and recorded."""
    lines = [*COMPARED]
    for record in (False, True):
        names = (MINILM, EFFICIENTNET, CENTERFACE)
        lines += [compared(bench.open(name, record=record), name, PROVIDERS[bench.provider], record) for name in names]
    card, folder = bench.card(MINILM)
    exact = exact_copy(folder / card.graph, bench.work / "exact.onnx")
    opened = bench.open_file(card.model_copy(update={"precision": "f32"}), exact)
    lines.append(compared(opened, "MiniLM f32", PROVIDERS[bench.provider], False))
    lines.append(_bfloat16(bench))
    return [*lines, "", *_warm_ups(bench)]


def compared(opened: Opened, name: str, wanted_provider: str, record: bool) -> str:
    """A line of the table: a session's results beside the CPU's, of batches of several shapes."""
    provider = opened.session.get_providers()[0]
    worst, share = 0.0, 0.0
    for seed in range(ROUNDS):
        for rows, size in ((1, 16), (3, 13), (5, 64)):
            feeds = opened.feeds(rows, size, seed)
            exact = on_cpu(opened, feeds)
            alone = list(opened.runner.run(feeds).values())
            for found, wanted in (*zip(alone, exact, strict=True), (_first_of_stacked(opened, feeds), exact[0])):
                difference = _difference(found, wanted)
                worst = max(worst, difference)
                share = max(share, difference / (float(np.abs(wanted).max()) or 1.0))
    good = provider == wanted_provider and share < TOLERANCE[opened.card.precision]
    how = "no" if not record else opened.runner.note or "yes"
    return f"| {name} | {provider} | {how} | {worst:.2g} | {share:.2g} | {'yes' if good else '**NO**'} |"


def _first_of_stacked(opened: Opened, feeds: Tensors) -> Array:
    """The first output, the only one that is wanted, of the same rows as items that are stacked."""
    outputs = tuple(opened.signature.outputs)[:1]
    items = opened.items(feeds)
    placed, _ = stack(items, opened.signature, partial(opened.runner.places, outputs=outputs))
    return opened.runner.run(placed, outputs)[outputs[0]]


def _difference(found: Array, wanted: Array) -> float:
    if found.shape != wanted.shape:
        return float("inf")
    return float(np.abs(found.astype(np.float64) - wanted.astype(np.float64)).max(initial=0.0))


def _bfloat16(bench: Bench) -> str:
    card, path = bfloat16_graph(bench.work / "bf16.onnx")
    runtime, _ = bench.card(MINILM)
    opened = bench.open_file(card.model_copy(update={"runtime": runtime.runtime}), path)
    bits = (np.arange(3 * 64, dtype=np.float32).reshape(3, 64).view(np.uint32) >> 16).astype(np.uint16)
    good = bool(np.array_equal(opened.runner.run({"x": bits})["y"], np.roll(bits, 1, axis=1)))
    return f"| BF16 | {opened.session.get_providers()[0]} | no | | | {'yes' if good else '**NO**'} |"


def _warm_ups(bench: Bench) -> list[str]:
    """What a load finds."""
    lines = ["| load of | finding | note |", "|---|---|---|"]
    for name in (MINILM, EFFICIENTNET, CENTERFACE):
        for record in (False, True):
            card, folder = bench.card(name, cuda_graph=record)
            loaded = load(card, folder, 2, NoMeter())
            said = f"{loaded.finding.mode.value} {loaded.finding.reason}"
            lines.append(f"| {name}{', cuda_graph' if record else ''} | {said} | {loaded.note} |")
    return lines


def refused_without(bench: Bench) -> list[str]:
    """A card that requires CUDA, in a process that sees no GPU."""
    card, folder = bench.card(EFFICIENTNET)
    code = NEEDS_GPU.format(path=str(folder / card.graph))
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if "refused:" in done.stdout:
        return [done.stdout.strip()[:300]]
    return [f"**NOT REFUSED**: {done.stdout.strip()[:300]} {done.stderr.strip()[-300:]}"]
