"""Whisper tiny.en, English speech recognition, from CTranslate2 weights.

The encoder runs once a window, the decoder once a token; `whisper.json` holds what a search needs
to know about the tokens. Weights: huggingface.co/Systran/faster-whisper-tiny.en.
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ortmesh.catalogue.recipes._ctranslate2 import read_weights
from ortmesh.catalogue.recipes._whisper import Sizes, read_sizes
from ortmesh.catalogue.recipes._whisper_decoder import build_decoder
from ortmesh.catalogue.recipes._whisper_encoder import build_encoder

OUTPUTS: tuple[str, ...] = ("encoder.onnx", "decoder.onnx", "tokenizer.json", "whisper.json")

WEIGHTS = "model.bin"
CONFIG = "config.json"
TOKENIZER = "tokenizer.json"

SPECIAL_TOKENS = {
    "end_of_text": "<|endoftext|>",
    "start_of_transcript": "<|startoftranscript|>",
    "start_of_previous": "<|startofprev|>",
    "no_speech": "<|nocaptions|>",
    "no_timestamps": "<|notimestamps|>",
}


def convert(sources: Mapping[str, Path], out: Path) -> None:
    """Write `encoder.onnx`, `decoder.onnx`, `tokenizer.json` and `whisper.json`."""
    weights = read_weights(sources[WEIGHTS])
    build_encoder(weights).save(out / "encoder.onnx")
    build_decoder(weights).save(out / "decoder.onnx")
    shutil.copyfile(sources[TOKENIZER], out / "tokenizer.json")
    facts = _facts(read_sizes(weights), _read_json(sources[CONFIG]), _read_json(sources[TOKENIZER]))
    text = json.dumps(facts, indent=2) + "\n"
    (out / "whisper.json").write_text(text, encoding="utf-8", newline="\n")


def _facts(sizes: Sizes, config: Any, tokenizer: Any) -> dict[str, object]:
    """Sizes, special tokens and the tokens that a search must not choose."""
    ids = {token["content"]: token["id"] for token in tokenizer["added_tokens"]}
    tokens = {name: ids[content] for name, content in SPECIAL_TOKENS.items()}
    return {
        "layers": sizes.decoder_layers,
        "heads": sizes.heads,
        "head_width": sizes.head_width,
        "mels": sizes.mels,
        "max_frames": 2 * sizes.audio_positions,
        "max_tokens": sizes.text_positions,
        "vocabulary": sizes.vocabulary,
        "tokens": {**tokens, "first_timestamp": tokens["no_timestamps"] + 1},
        "suppress": config["suppress_ids"],
        "suppress_at_begin": config["suppress_ids_begin"],
    }


def _read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
