"""Hibari, an English voice of 6 million parameters, from its package's ONNX file, word lists and tagger.

Architecture: durations, pitch and five parts of a spectrum per 12.5 ms from phonemes, in one graph with weights of 8
bits; distilled from Kokoro-82M's voice af_heart (github.com/MMWilliams/hibari). Only names and dimensions are changed:
what makes a waveform of the parts is the task's. The lexicon is misaki 0.9.4's (github.com/hexgrad/misaki).
"""

import gzip
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx

from ortmesh.catalogue.recipes._rename import rename_value, save, set_shapes

OUTPUTS: tuple[str, ...] = ("model.onnx", "symbols.json", "lexicon.json", "tagger.json")

SOURCE, SYMBOLS, TAGGER = "hibari.onnx", "vocab.json", "tagger.json.gz"
GOLD, SILVER = "lexicon_us_gold.json.gz", "lexicon_us_silver.json.gz"

BINS = 601
NAMES = {
    "ids": "symbols",
    "lh": "harmonic",
    "theta": "harmonic_phase",
    "ln": "noise",
    "lr": "residual",
    "phi": "residual_phase",
    "f0": "pitch",
}


def convert(sources: Mapping[str, Path], out: Path) -> None:
    """Write `model.onnx`: `symbols` int64 [1, symbols] and `speed` [1] → the spectrum's parts [1, 601, frames] and
    `pitch` [1, frames]; and beside it

    `symbols.json`: the number of each phoneme's character; `lexicon.json`: words to phonemes, `gold` checked by people
    and `silver` not; `tagger.json`: the averaged perceptron's `tags`, `tagdict`, `vocab` and `weights`.
    """
    model = onnx.load(sources[SOURCE])
    for old, new in NAMES.items():
        rename_value(model.graph, old, new)
    part = (1, BINS, "frames")
    parts = {NAMES[name]: part for name in ("lh", "theta", "ln", "lr", "phi")}
    set_shapes(model.graph, {"symbols": (1, "symbols"), "speed": (1,), **parts, "pitch": (1, "frames")})
    unshare(model.graph)
    save(model, out / "model.onnx")
    shutil.copyfile(sources[SYMBOLS], out / "symbols.json")
    _write(out / "lexicon.json", {"gold": _unpacked(sources[GOLD]), "silver": _unpacked(sources[SILVER])})
    _write(out / "tagger.json", _unpacked(sources[TAGGER]))


def unshare(graph: onnx.GraphProto) -> None:
    """Gives each product of 8 bits weights and a zero point of its own, 1.9 MB more. Where several share them ONNX
    Runtime can't make them unsigned, which their sums need on processors without VNNI."""
    weights = {each.name: each for each in graph.initializer}
    used: set[str] = set()
    products = (node for node in graph.node if node.op_type == "MatMulInteger")
    for number, node in enumerate(products):
        for place, name in enumerate(node.input):
            if name in used:
                copy = graph.initializer.add()
                copy.CopyFrom(weights[name])
                node.input[place] = copy.name = f"{name} of product {number}"
            elif name in weights:
                used.add(name)


def _unpacked(path: Path) -> Any:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return json.load(file)


def _write(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False, separators=(",", ":")), encoding="utf-8", newline="\n")
