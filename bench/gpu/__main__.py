"""`python -m bench.gpu`: all steps in one go; a step that fails prints its traceback and the others go on.

With no GPU it says so and exits with 2; `--provider cpu` tries the code through the same classes.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import onnxruntime

from bench.gpu import costs, engines, memory, mixed, right, served, texts
from bench.gpu.models import CENTERFACE, EFFICIENTNET, MINILM, Bench
from ortmesh.serving.executor.sessions import PROVIDERS, why_no_gpu

STEPS: dict[str, tuple[str, Callable[[Bench], list[str]]]] = {
    "bare": ("ONNX Runtime alone", right.bare),
    "right": ("Results are those of the CPU", right.equal_results),
    "refused": ("A card that requires CUDA does not start without", right.refused_without),
    "table": ("What a run costs", costs.table),
    "python": ("Python's part of a run", costs.python),
    "bound": ("Bound memory against `session.run`", costs.bound_against_plain),
    "recorded": ("CUDA graphs", costs.recorded_against_not),
    "instances": ("Two sessions on one GPU", costs.instances),
    "steps": ("A step and a window of a text", texts.steps),
    "attention": ("Kernels for attention", texts.attention),
    "same": ("Logits are those of the CPU, and texts the same whoever is beside them", texts.same),
    "rates": ("Tokens a second", texts.rates),
    "texts_memory": ("Memory of texts", texts.memory),
    "served_texts": ("Texts through the service", served.generate),
    "mixed": ("Mixed lengths, items a second", mixed.throughput),
    "served_vectors": ("Vectors through the service", served.embed),
    "tensorrt": ("TensorRT's engines", engines.tensorrt),
    "memory": ("Memory comes back", memory.comes_back),
}
TEXTS = ("steps", "attention", "same", "rates", "texts_memory", "served_texts")
"""Those for which the model of texts is enough."""


def main() -> int:
    """0 when every step ran, 1 when one failed, 2 where there is no GPU, or not all models."""
    parser = argparse.ArgumentParser(prog="python -m bench.gpu", description=__doc__)
    parser.add_argument("--provider", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--store", type=Path, required=True, help="a store with the models of the bench")
    parser.add_argument("--seconds", type=float, default=2.0, help="how long a throughput is measured")
    parser.add_argument("--rest", type=float, default=15.0, help="seconds after the burst until memory is looked at")
    parser.add_argument("--steps", default=",".join(STEPS), help=f"which of {', '.join(STEPS)}; all by default")
    asked = parser.parse_args()
    names = asked.steps.split(",")
    if unknown := sorted(set(names) - set(STEPS)):
        parser.error(f"there is no step {', '.join(unknown)}")
    if not _has_models(asked.store, names):
        return 2
    if asked.provider == "cuda" and not _has_gpu():
        return 2
    with tempfile.TemporaryDirectory(prefix="om-") as work:
        bench = Bench(asked.store, asked.provider, Path(work), asked.seconds, asked.rest)
        return _run(bench, names)


def _has_models(store: Path, names: list[str]) -> bool:
    wanted = [texts.SMOLLM] if set(names) & set(TEXTS) else []
    wanted += [MINILM, EFFICIENTNET, CENTERFACE] if set(names) - set(TEXTS) else []
    missing = [name for name in wanted if not list((store / name).glob("*/card.yaml"))]
    if missing:
        print(f"{store} lacks models: ortmesh pull {' '.join(missing)}", file=sys.stderr)
    return not missing


def _has_gpu() -> bool:
    if PROVIDERS["cuda"] not in onnxruntime.get_available_providers():
        print("no GPU: this ONNX Runtime has no CUDA provider", file=sys.stderr)
        return False
    if reason := why_no_gpu(0):
        print(reason, file=sys.stderr)
    return not reason


def _run(bench: Bench, names: list[str]) -> int:
    lines = ["# A GPU", "", *_machine(bench), ""]
    failed = False
    for line in lines:
        print(line)
    for name in names:
        title, step = STEPS[name]
        began = time.monotonic()
        try:
            found = step(bench)
        except Exception:
            failed = True
            found = ["**failed**", "", "```", *traceback.format_exc().splitlines(), "```"]
        part = [f"## {title}", "", *found, "", f"({time.monotonic() - began:.1f} s)", ""]
        print("\n".join(part), flush=True)
        lines += part
        _write(lines)  # after every step: a process that dies loses nothing
    return int(failed)


def _write(lines: list[str]) -> None:
    folder = Path(os.environ.get("OUT") or Path(__file__).parents[1] / "results")
    (folder / "gpu.md").write_text("\n".join(lines), encoding="utf-8")


def _machine(bench: Bench) -> list[str]:
    query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    try:
        card = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        card = "no GPU"
    return [
        f"{card}; ONNX Runtime {onnxruntime.__version__}, Python {platform.python_version()}, {os.cpu_count()} cores; "
        f"provider {bench.provider}. By `python -m bench.gpu`.",
    ]


if __name__ == "__main__":
    sys.exit(main())
