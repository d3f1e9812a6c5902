"""Hints: what a recognizer is given besides the sound, and what of it a model can't take. Stage: task."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from tokenizers import Tokenizer

from ortmesh.errors import BadInput
from ortmesh.serving.executor.whisper_limits import MAX_PHRASE_TOKENS, MAX_PROMPT
from ortmesh.serving.model import Model
from ortmesh.serving.types import Array, Tensors
from ortmesh_speech.options import Options

NOTHING = -1
"""Fills phrases of fewer tokens up."""
CONTEXT_TOKENS = (48, 32, 16, 8)
"""As many of the last tokens that were said before an utterance are told, the most that there are: only windows with
earlier texts of equal lengths are decoded side by side."""


def check_model(options: Options, model: Model, field: str = "options") -> None:
    """BadInput names the option that the model can't do, and what it can."""
    check_language(options.language, model, f"{field}.language")
    if options.language and len(model.card.languages) > 1:
        _must_take(model, "language", f"{field}.language", "can't be told the language")
    if options.words:
        _must_time_words(model, f"{field}.word_times")
    if options.speakers:
        _must_time_words(model, f"{field}.diarization")
    if options.alternatives and not {"alternatives", "alternative_logprobs"} <= model.outputs.keys():
        raise BadInput(f"{field}.max_alternatives", f"{model.card.key} gives no alternatives")
    if options.phrases:
        _must_take(model, "bias_tokens", f"{field}.phrases", "can't favour phrases")
    if options.prompt:
        _must_take(model, "prompt", f"{field}.initial_prompt", "takes no earlier text")


def check_language(language: str, model: Model, field: str) -> None:
    """BadInput unless the model knows a language, or none was named; `field` named the language or the model."""
    known = model.card.languages
    if language and language not in known:
        knows = ", ".join(known) or "no language, as far as its card says"
        raise BadInput(field, f"{language[:64]!r}: {model.card.key} knows {knows}")


def hints(options: Options, model: Model, literal: Tokenizer, field: str = "options") -> Tensors:
    """The tensors of one row that say what the options ask for, only those that are needed.

    `language` int64 [1] (its place among the card's), `prompt` int64 [1, tokens], `bias_tokens` int64 [1, phrases,
    tokens] filled up with -1 and `bias_boost` float32 [1, phrases], `want_words` int64 [1]. BadInput for a phrase of
    too many tokens.
    """
    tensors: dict[str, Array] = {}
    if options.language and "language" in model.inputs:
        tensors["language"] = np.array([model.card.languages.index(options.language)], np.int64)
    if (prompt := tokens_of(options.prompt, literal)[-MAX_PROMPT:]) and "prompt" in model.inputs:
        tensors["prompt"] = np.array([prompt], np.int64)
    if options.phrases:
        spelt = [
            (tokens, phrase.boost)
            for place, phrase in enumerate(options.phrases)
            for tokens in _spellings(phrase.text, literal, f"{field}.phrases[{place}].text")
        ]
        tensors["bias_tokens"] = _filled([tokens for tokens, _ in spelt])
        tensors["bias_boost"] = np.array([[boost for _, boost in spelt]], np.float32)
    if times_words(model):  # in any case: they tell what was passed over, for less than a twentieth of the time
        tensors["want_words"] = np.ones(1, np.int64)
    return tensors


def with_context(given: Tensors, before: str, model: Model, literal: Tokenizer) -> Tensors:
    """Hints whose earlier text goes on with the end of what was said before, where the model takes any."""
    said = tokens_of(before, literal)
    count = next((count for count in CONTEXT_TOKENS if count <= len(said)), 0)
    if not count or "prompt" not in model.inputs:
        return given
    prompt = given["prompt"][0].tolist() if "prompt" in given else []
    return {**given, "prompt": np.array([[*prompt, *said[-count:]][-MAX_PROMPT:]], np.int64)}


def tokens_of(text: str, literal: Tokenizer) -> list[int]:
    """A text's tokens as they stand behind other text: Whisper writes the space before a word with the word."""
    return _encode(f" {text.strip()}", literal) if text.strip() else []


def _must_take(model: Model, name: str, field: str, reason: str) -> None:
    if name not in model.inputs:
        raise BadInput(field, f"{model.card.key} {reason}")


def times_words(model: Model) -> bool:
    """True for a model that can tell when each word is said."""
    return "token_frames" in model.outputs and "want_words" in model.inputs


def _must_time_words(model: Model, field: str) -> None:
    if not times_words(model):
        raise BadInput(field, f"{model.card.key} can't tell when a word is said")


def _spellings(text: str, literal: Tokenizer, field: str) -> list[list[int]]:
    """A phrase's tokens where a space comes before it and where none does, as it is and as a sentence begins."""
    spelt = [tokens_of(text, literal), _encode(text, literal)]
    if (begun := text[0].upper() + text[1:]) != text:
        spelt += [tokens_of(begun, literal), _encode(begun, literal)]
    if (longest := max(map(len, spelt))) > MAX_PHRASE_TOKENS:
        raise BadInput(field, f"is {longest} tokens to the model: expected at most {MAX_PHRASE_TOKENS}")
    return spelt


def _encode(text: str, literal: Tokenizer) -> list[int]:
    return list(literal.encode(text, add_special_tokens=False).ids)


def _filled(phrases: Sequence[Sequence[int]]) -> Array:
    filled = np.full((1, len(phrases), max(map(len, phrases))), NOTHING, np.int64)
    for row, tokens in enumerate(phrases):
        filled[0, row, : len(tokens)] = tokens
    return filled
