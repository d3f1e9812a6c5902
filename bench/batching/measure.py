"""Measures what batches of text lines cost the recognizer on one core, for the simulation's device `lines`.

python -m bench.batching.measure --models STORE
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import onnxruntime

from bench.batching.devices import HERE, line_size
from ortmesh.serving.batcher import Grid
from ortmesh.serving.store import Store

MODEL = "ppocr-v6-rec"
HEIGHT = 48
WIDTHS = (320, 512, 768, 1024, 1280)
ROWS = (1, 2, 3, 4, 6, 8)
RUNS = 7
"""The least counts: whatever else ran only made it longer."""


def main() -> None:
    """Some half a minute."""
    parser = argparse.ArgumentParser(prog="python -m bench.batching.measure")
    parser.add_argument("--models", type=Path, required=True, help="a store with the default models")
    store = Store(parser.parse_args().models)
    graph = store.folder(MODEL, "1") / "model.onnx"
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    seconds = {(rows, line_size(width)): time_of(session, rows, width) for width in WIDTHS for rows in ROWS}
    grid = Grid(ROWS, tuple(map(line_size, WIDTHS)), seconds)
    (HERE / "lines-1-core.json").write_text(json.dumps(grid.to_json()))


def time_of(session: onnxruntime.InferenceSession, rows: int, width: int) -> float:
    """Seconds of a run, to a microsecond; of the core's time, as there is one thread."""
    feeds = {"image": np.zeros((rows, 3, HEIGHT, width), np.float32)}
    least = float("inf")
    for _ in range(RUNS):
        began = time.process_time()
        session.run(None, feeds)
        least = min(least, time.process_time() - began)
    return round(least, 6)


if __name__ == "__main__":
    main()
