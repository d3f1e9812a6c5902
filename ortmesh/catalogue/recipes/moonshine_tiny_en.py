"""Moonshine tiny, English speech recognition that is cheap on short audio, from its package's files.

Its encoder's time grows with the audio (Whisper's is that of 30 s), so that a growing window can be heard again and
again. The package's graphs are quantized so that a row depends on the rest of its batch; these are not. Weights:
github.com/moonshine-ai/moonshine.
"""

import shutil
import unicodedata
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ortmesh.catalogue.recipes._graph import Array
from ortmesh.catalogue.recipes._moonshine import build_decoder, build_encoder
from ortmesh.catalogue.recipes._ort_format import Weights
from ortmesh.serving.token_texts import read_token_texts

OUTPUTS: tuple[str, ...] = ("encoder.onnx", "decoder.onnx", "tokenizer.bin")

ENCODER = "encoder_model.ort"
DECODER = "decoder_model_merged.ort"
TOKENIZER = "tokenizer.bin"

UNKNOWN, START = 0, 1
SPECIAL = b"<<ST_"
LATIN_BYTES = (*range(0x80), *range(0x80, 0xCB), 0xE2)
"""Of characters up to Latin's extensions, and of typographic signs, where a token is a single byte."""


def convert(sources: Mapping[str, Path], out: Path) -> None:
    """Write `encoder.onnx`, `decoder.onnx` and `tokenizer.bin` (each token's text: its length in bytes, then they)."""
    decoder = Weights(sources[DECODER])
    build_encoder(Weights(sources[ENCODER]), decoder).save(out / "encoder.onnx")
    build_decoder(decoder, _written(read_token_texts(sources[TOKENIZER]))).save(out / "decoder.onnx")
    shutil.copyfile(sources[TOKENIZER], out / "tokenizer.bin")


def _written(texts: list[bytes]) -> Array:
    """Which tokens English is written with, bool [vocabulary]: the model takes half a word for one of another."""
    written = np.array([_is_latin(text) and not text.startswith(SPECIAL) for text in texts])
    written[[UNKNOWN, START]] = False
    return written


def _is_latin(text: bytes) -> bool:
    if len(text) == 1:
        return text[0] in LATIN_BYTES
    characters = text.decode(errors="replace")
    return not any(each.isalpha() and "LATIN" not in unicodedata.name(each, "") for each in characters)
