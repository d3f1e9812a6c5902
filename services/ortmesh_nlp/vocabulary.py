"""Vocabulary: a model's tokens as the library of forms knows them. Stage: task.

It reads what a form forces with the model's tokenizer, which gives the characters of a mark ("<|im_end|>") the mark's
token: the end of a text, or what the library itself then refuses. So marks have names here that no text has, and their
characters are tokens of text.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from llguidance import LLTokenizer
from tokenizers import Tokenizer


def vocabulary_of(tokenizer: Tokenizer, size: int, ends: Sequence[int]) -> LLTokenizer:
    """Tokens 0 to `size` - 1, of which `ends` end a text. It takes tenths of a second."""
    written: dict[str, Any] = json.loads(tokenizer.to_str())
    # whoever knew the name could write it
    secret = secrets.token_hex(16)
    names = {added["content"]: f"{secret}:{added['id']}" for added in written["added_tokens"]}
    for added in written["added_tokens"]:
        added["content"] = names[added["content"]]
    _rename(written["model"], names)
    return LLTokenizer(json.dumps(written), n_vocab=size, eos_token=list(ends))


def _rename(model: dict[str, Any], names: Mapping[str, str]) -> None:
    """In the tokenizer's model: its vocabulary, by token or (Unigram's) in their order, and the token of what is
    unknown."""
    known = model["vocab"]
    if isinstance(known, dict):
        model["vocab"] = {names.get(token, token): number for token, number in known.items()}
    else:
        model["vocab"] = [[names.get(token, token), score] for token, score in known]
    if model.get("unk_token") is not None:
        model["unk_token"] = names.get(model["unk_token"], model["unk_token"])
