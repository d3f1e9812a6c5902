"""Whisper base, speech recognition in 99 languages, from CTranslate2 weights in two parts.

Weights: huggingface.co/Systran/faster-whisper-base.
"""

from collections.abc import Mapping
from pathlib import Path

from ortmesh.catalogue.recipes import _whisper_files
from ortmesh.catalogue.recipes._ctranslate2 import read_weights

OUTPUTS = _whisper_files.OUTPUTS
WEIGHTS = ("model.bin.part1", "model.bin.part2")
CONFIG = "config.json"
TOKENIZER = "tokenizer.json"


def convert(sources: Mapping[str, Path], out: Path) -> None:
    """Joins the parts; writes both graphs, each in 32 bits and in 8, `tokenizer.json` and `whisper.json`."""
    weights = read_weights(*(sources[part] for part in WEIGHTS))
    _whisper_files.write_model(weights, sources[CONFIG], sources[TOKENIZER], out)
