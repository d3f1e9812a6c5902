"""Moonshine tiny, English speech recognition that is cheap on short audio, from its package's files.

Its encoder's time grows with the audio (Whisper's is that of 30 s), so that a growing window can be heard again and
again. The package's graphs are quantized so that a row depends on the rest of its batch; these are not. Weights:
github.com/moonshine-ai/moonshine.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path

from ortmesh.catalogue.recipes._moonshine import build_decoder, build_encoder
from ortmesh.catalogue.recipes._ort_format import Weights

OUTPUTS: tuple[str, ...] = ("encoder.onnx", "decoder.onnx", "tokenizer.bin")

ENCODER = "encoder_model.ort"
DECODER = "decoder_model_merged.ort"
TOKENIZER = "tokenizer.bin"


def convert(sources: Mapping[str, Path], out: Path) -> None:
    """Write `encoder.onnx`, `decoder.onnx` and `tokenizer.bin` (each token's text: its length in bytes, then they)."""
    decoder = Weights(sources[DECODER])
    build_encoder(Weights(sources[ENCODER]), decoder).save(out / "encoder.onnx")
    build_decoder(decoder).save(out / "decoder.onnx")
    shutil.copyfile(sources[TOKENIZER], out / "tokenizer.bin")
