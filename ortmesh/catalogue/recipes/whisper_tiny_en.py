"""Whisper tiny.en, English speech recognition, from CTranslate2 weights.

The encoder runs once a window, the decoder once a token; `whisper.json` holds what a search needs
to know about the tokens. Weights: huggingface.co/Systran/faster-whisper-tiny.en.
"""

from collections.abc import Mapping
from pathlib import Path

from ortmesh.catalogue.recipes import _whisper_files
from ortmesh.catalogue.recipes._ctranslate2 import read_weights

OUTPUTS = _whisper_files.OUTPUTS
WEIGHTS = "model.bin"
CONFIG = "config.json"
TOKENIZER = "tokenizer.json"


def convert(sources: Mapping[str, Path], out: Path) -> None:
    """Writes both graphs, each in 32 bits and in 8, `tokenizer.json` and `whisper.json`."""
    _whisper_files.write_model(read_weights(sources[WEIGHTS]), sources[CONFIG], sources[TOKENIZER], out)
