"""The vocabulary of a GGUF file as the tokenizer.json that the library tokenizers reads."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

CONTROL = 3
"""GGUF's kind of a token that is a mark, never text."""


def write_tokenizer(tokens: Sequence[str], merges: Sequence[str], kinds: Sequence[int], target: Path) -> None:
    """Write byte-level BPE that takes each digit alone, as SmolLM2 was trained (GGUF's pretokenizer `smollm`)."""
    marks = [index for index, kind in enumerate(kinds) if kind == CONTROL]
    content = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [_mark(index, tokens[index]) for index in marks],
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [{"type": "Digits", "individual_digits": True}, _byte_level(add_prefix_space=False)],
        },
        "post_processor": None,
        "decoder": _byte_level(add_prefix_space=True),
        "model": _bpe(tokens, merges),
    }
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    target.write_text(text, encoding="utf-8", newline="\n")


def _mark(index: int, text: str) -> dict[str, Any]:
    plain = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": index, "content": text, **plain, "special": True}


def _byte_level(add_prefix_space: bool) -> dict[str, Any]:
    return {"type": "ByteLevel", "add_prefix_space": add_prefix_space, "trim_offsets": True, "use_regex": True}


def _bpe(tokens: Sequence[str], merges: Sequence[str]) -> dict[str, Any]:
    return {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": False,
        "ignore_merges": False,
        "vocab": {token: index for index, token in enumerate(tokens)},
        "merges": [merge.split(" ") for merge in merges],
    }
