"""What is wanted of one row of an item: the optional tensors of Whisper's program, checked. Stage: executor."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ortmesh.errors import BadInput
from ortmesh.serving.executor.whisper_facts import Facts
from ortmesh.serving.executor.whisper_limits import MAX_BEAMS, MAX_BOOST, MAX_PHRASE_TOKENS, MAX_PHRASES, MAX_PROMPT
from ortmesh.serving.executor.whisper_phrases import Phrases
from ortmesh.serving.types import Array, Tensors

FREE = -1
"""Stands for a language that the model is to hear, and for no token."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What is wanted of one row."""

    beams: int
    language: int = FREE
    """Index among the model's languages; `FREE`: the one that it hears."""
    prompt: tuple[int, ...] = ()
    """Text that came before."""
    phrases: Phrases | None = None
    """Those that are favoured."""
    words: bool = False
    """True to be told when each token is said."""
    text: bool = True
    """False when only the language is asked for."""


def wishes_of(tensors: Tensors, rows: int, facts: Facts, continues: Callable[[], Array]) -> list[Wish]:
    """One for each row. BadInput names the tensor that is wrong; `continues` is what `Phrases` needs."""
    beams = _a_row(tensors, "beam_width", rows, 1, 1, MAX_BEAMS)
    languages = _a_row(tensors, "language", rows, FREE, FREE, max(len(facts.languages), 1) - 1)
    words, texts = (_a_row(tensors, name, rows, given, 0, 1) for name, given in (("want_words", 0), ("want_text", 1)))
    prompts = _prompts(tensors, rows, facts)
    phrases = _phrases(tensors, rows, facts, continues)
    return [
        Wish(int(beams[row]), int(languages[row]), prompts[row], phrases[row], bool(words[row]), bool(texts[row]))
        for row in range(rows)
    ]


def _a_row(tensors: Tensors, name: str, rows: int, absent: int, low: int, high: int) -> Array:
    """A whole number a row."""
    given = tensors.get(name)
    if given is None:
        return np.full(rows, absent)
    _must_have_shape(name, given, (rows,), "one number a row of mel")
    if not ((given >= low) & (given <= high)).all():
        raise BadInput(name, f"must be {low} to {high}")
    return given


def _prompts(tensors: Tensors, rows: int, facts: Facts) -> list[tuple[int, ...]]:
    given = tensors.get("prompt")
    if given is None:
        return [()] * rows
    _must_have_shape("prompt", given, (rows, -1), "a list of tokens a row of mel")
    _must_be_text("prompt", given, facts)
    return [tuple(row[row != FREE][-MAX_PROMPT:].tolist()) for row in given]


def _phrases(tensors: Tensors, rows: int, facts: Facts, continues: Callable[[], Array]) -> list[Phrases | None]:
    tokens, boosts = tensors.get("bias_tokens"), tensors.get("bias_boost")
    if tokens is None and boosts is None:
        return [None] * rows
    if tokens is None or boosts is None:
        missing = "bias_tokens" if tokens is None else "bias_boost"
        raise BadInput(missing, "is missing: bias_tokens and bias_boost belong together")
    _must_have_shape("bias_tokens", tokens, (rows, -1, -1), "phrases of tokens a row of mel")
    _must_have_shape("bias_boost", boosts, tokens.shape[:2], "one number a phrase of bias_tokens")
    if tokens.shape[1] > MAX_PHRASES or tokens.shape[2] > MAX_PHRASE_TOKENS:
        raise BadInput("bias_tokens", f"expected at most {MAX_PHRASES} phrases of {MAX_PHRASE_TOKENS} tokens")
    if not ((boosts >= 0) & (boosts <= MAX_BOOST)).all():
        raise BadInput("bias_boost", f"must be 0 to {MAX_BOOST:g}")
    _must_be_text("bias_tokens", tokens, facts)
    return [_phrases_of_row(*row, continues) for row in zip(tokens, boosts, strict=True)]


def _phrases_of_row(tokens: Array, boosts: Array, continues: Callable[[], Array]) -> Phrases | None:
    phrases: dict[tuple[int, ...], float] = {}
    for row, boost in zip(tokens, boosts.tolist(), strict=True):
        if phrase := tuple(row[row != FREE].tolist()):
            phrases[phrase] = max(boost, phrases.get(phrase, 0.0))
    return Phrases(phrases, continues()) if phrases else None


def _must_have_shape(name: str, given: Array, shape: tuple[int, ...], expected: str) -> None:
    if given.ndim != len(shape) or any(
        length not in (size, -1) for size, length in zip(given.shape, shape, strict=True)
    ):
        raise BadInput(name, f"has the shape {list(given.shape)}: expected {expected}")


def _must_be_text(name: str, tokens: Array, facts: Facts) -> None:
    """BadInput unless all are tokens of texts, or `FREE`."""
    end = facts.tokens["end_of_text"]
    if not ((tokens >= FREE) & (tokens < end)).all():
        raise BadInput(name, f"expected tokens of text, 0 to {end - 1}, and {FREE} for none")
