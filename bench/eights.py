"""`python -m bench.eights`: what sums of 8 bits are worth on this processor, as ONNX Runtime computes them and exact.

Of the default models with signed weights of 8 bits: Whisper's encoder, on a spoken sentence, beside that of 32
bits, and Hibari, of which there is no other. Where both ways give the same, the processor has VNNI. Ten seconds.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import onnxruntime
import soxr
from hibari import Hibari

from ortmesh.config import StoreSettings
from ortmesh.cpus import cpus
from ortmesh.serving.cards import Runtime
from ortmesh.serving.executor.sessions import Sessions
from ortmesh.serving.types import Array, Tensors
from ortmesh_speech.audio import SAMPLE_RATE
from ortmesh_speech.log_mel import log_mel

SENTENCE = "A long narrow road leads from the village through the forest to the river."
SYMBOLS = 60
RUNS = 20
WHISPER, HIBARI = "whisper-tiny-en", "hibari"


def main() -> None:
    """Prints a table."""
    store = StoreSettings().models
    (whisper,), (hibari,) = (sorted((store / name).glob("*/card.yaml")) for name in (WHISPER, HIBARI))
    spoken = soxr.resample(Hibari(threads=1)(SENTENCE, seed=0), 24_000, SAMPLE_RATE)
    mel: Tensors = {"mel": log_mel(np.asarray(spoken, np.float32), 30)}
    symbols = np.random.default_rng(0).integers(43, 178, (1, SYMBOLS))
    text: Tensors = {"symbols": symbols, "speed": np.ones(1, np.float32)}
    print(f"{cpus()} threads, onnxruntime {onnxruntime.__version__}")
    print("| graph | ms, as it is | ms, exact | exact / as it is | error, as it is | error, exact |")
    print("|" + "---|" * 6)
    _row("Whisper's encoder", whisper.with_name("encoder.int8.onnx"), mel, whisper.with_name("encoder.onnx"))
    _row("Hibari", hibari.with_name("model.onnx"), text)


def _row(name: str, graph: Path, feeds: Tensors, wide: Path | None = None) -> None:
    """`wide` is the same graph with 32 bits; without one, the error is that beside exact sums."""
    outputs, seconds = zip(*(_run(graph, feeds, exact=exact) for exact in (False, True)), strict=True)
    right = outputs[1] if wide is None else _run(wide, feeds, exact=True)[0]
    errors = " | ".join(_error(each, right) for each in outputs)
    usual, exact = (1e3 * each for each in seconds)
    print(f"| {name} | {usual:.1f} | {exact:.1f} | {exact / usual:.2f} | {errors} |")


def _run(graph: Path, feeds: Tensors, *, exact: bool) -> tuple[list[Array], float]:
    """(the outputs, the seconds of the quickest of some runs)."""
    options = Sessions(Runtime(), threads=cpus()).options(exact=exact)
    session = onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
    took = []
    for _ in range(RUNS):
        began = time.perf_counter()
        outputs = session.run(None, feeds)
        took.append(time.perf_counter() - began)
    return outputs, min(took)


def _error(outputs: list[Array], right: list[Array]) -> str:
    """The norm of the difference beside the norm of what is right, of each output."""
    shares = (np.linalg.norm(one - other) / np.linalg.norm(other) for one, other in zip(outputs, right, strict=True))
    return ", ".join(f"{share:.1%}" for share in shares)


if __name__ == "__main__":
    main()
