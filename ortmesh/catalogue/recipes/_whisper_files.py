"""The files of a Whisper model, from CTranslate2's weights, its configuration and its tokenizer."""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ortmesh.catalogue.recipes._graph import Array
from ortmesh.catalogue.recipes._products import dynamic
from ortmesh.catalogue.recipes._whisper import Sizes, read_sizes
from ortmesh.catalogue.recipes._whisper_decoder import Head, build_decoder
from ortmesh.catalogue.recipes._whisper_encoder import build_encoder

OUTPUTS: tuple[str, ...] = (
    "encoder.onnx",
    "encoder.int8.onnx",
    "decoder.onnx",
    "decoder.int8.onnx",
    "tokenizer.json",
    "whisper.json",
)
SPECIAL_TOKENS = {
    "end_of_text": "<|endoftext|>",
    "start_of_transcript": "<|startoftranscript|>",
    "start_of_previous": "<|startofprev|>",
    "transcribe": "<|transcribe|>",
    "no_speech": "<|nocaptions|>",
    "no_timestamps": "<|notimestamps|>",
}
OTHER_NAMES = {"<|nocaptions|>": "<|nospeech|>"}
"""Of special tokens, in some tokenizers."""
MULTILINGUAL = 51865
"""So many tokens have the models that know languages (openai/whisper, `is_multilingual`)."""
BEYOND_ISO = {"jw": "jv"}
"""Codes of Whisper's that ISO 639 has withdrawn."""


def write_model(weights: Mapping[str, Array], config: Path, tokenizer: Path, out: Path) -> None:
    """Writes encoder and decoder in 32 bits and, for CPUs, in 8; the tokenizer; what a search needs to know."""
    sizes, settings, words = read_sizes(weights), _read_json(config), _read_json(tokenizer)
    build_encoder(weights).save(out / "encoder.onnx")
    build_encoder(weights, dynamic).save(out / "encoder.int8.onnx")
    aligned = settings.get("alignment_heads") or _upper_half(sizes)
    build_decoder(weights, aligned).save(out / "decoder.onnx")
    build_decoder(weights, aligned, int8=True).save(out / "decoder.int8.onnx")
    shutil.copyfile(tokenizer, out / "tokenizer.json")
    text = json.dumps(_facts(sizes, settings, words), indent=2) + "\n"
    (out / "whisper.json").write_text(text, encoding="utf-8", newline="\n")


def _upper_half(sizes: Sizes) -> Sequence[Head]:
    """The heads that Whisper takes for aligned where nobody has measured which ones are."""
    upper = range(sizes.decoder_layers // 2, sizes.decoder_layers)
    return [(layer, head) for layer in upper for head in range(sizes.heads)]


def _facts(sizes: Sizes, config: Any, tokenizer: Any) -> dict[str, object]:
    """Sizes, special tokens and the tokens that a search must not choose."""
    ids = {token["content"]: token["id"] for token in tokenizer["added_tokens"]}
    tokens = {name: ids[text if text in ids else OTHER_NAMES[text]] for name, text in SPECIAL_TOKENS.items()}
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
        "languages": _languages(ids, config["lang_ids"]) if sizes.vocabulary >= MULTILINGUAL else {},
    }


def _languages(ids: Mapping[str, int], known: Sequence[int]) -> dict[str, int]:
    """The languages' tokens by ISO 639, in their order."""
    codes = {token: text.strip("<|>") for text, token in ids.items()}
    return {BEYOND_ISO.get(codes[token], codes[token]): token for token in sorted(known)}


def _read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
