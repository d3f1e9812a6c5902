"""NlpService.FindEntities: names, places, numbers and other personal data in a text. Stage: task."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
from pydantic import Field, ValidationInfo, field_validator
from tokenizers import Encoding, Tokenizer

from ortmesh.common.v1.common_pb2 import ModelVersion
from ortmesh.errors import BadInput
from ortmesh.front.call import Call
from ortmesh.nlp.v1 import nlp_pb2
from ortmesh.nlp.v1.nlp_pb2 import Entity, FindEntitiesRequest, FindEntitiesResponse
from ortmesh.serving.gate import Gate
from ortmesh.serving.model import Model
from ortmesh.serving.models import Models
from ortmesh.serving.needs import Needs, Settings, asset, check_labels, classes_of, labels_of, unfit
from ortmesh.serving.tokenizing import load_tokenizer
from ortmesh.serving.types import Array, Tensors
from ortmesh_nlp import patterns
from ortmesh_nlp.offsets import check_encoding, offsets
from ortmesh_nlp.spans import OUTSIDE, Span, Word, tagged, types_of, without_overlaps
from ortmesh_nlp.texts import fault
from ortmesh_nlp.token_windows import Window, joined, plan

DEFAULT_MIN_SCORE = 0.5
WINDOWS_AT_ONCE = 32
"""Of one text: more would fill the queue, and other callers' texts would wait for all of them."""
LONG_CHARACTERS = 10_000
LONG_AT_ONCE = 8
STEPS_AT_ONCE = 1
"""Of long texts, prepared or searched for patterns in the pool: that is Python, whose lock the texts of all others need
too (up to 1 s for 100,000 characters), and more threads would not make it quicker."""
"""Longer texts than that that are worked on at a time: one of 100,000 characters takes up to 200 MB for a moment, and
50 MB until it is read. Shorter ones are bounded by the model's queue."""


class Reading(Settings):
    """How a model reads texts."""

    tokenizer: str = "tokenizer.json"
    """The file of its tokenizer, as the library `tokenizers` writes it."""
    max_tokens: int = Field(ge=3)
    """Of one window, the two special ones included."""
    overlap: int = Field(default=32, ge=0)
    """Tokens that a window shares with the one before."""

    @field_validator("overlap")
    @classmethod
    def _leaves_something_new(cls, overlap: int, info: ValidationInfo) -> int:
        if overlap >= info.data.get("max_tokens", math.inf) - 2:
            raise ValueError("a window has to have more tokens than it shares")
        return overlap


NEEDS = Needs(
    Reading,
    inputs={"input_ids": "INT64", "attention_mask": "INT64", "token_type_ids": "INT64"},
    outputs={"logits": 3},
)


class FindEntities:
    """A text to the entities that a model and patterns find in it."""

    def __init__(self, models: Models) -> None:
        self.models = models
        self.gate = Gate(LONG_AT_ONCE)
        self.steps = Gate(STEPS_AT_ONCE)
        models.require("find_entities", known_by)

    async def __call__(self, request: FindEntitiesRequest, call: Call) -> FindEntitiesResponse:
        """Entities in the order of the text; BadInput for a text, a type, a score or an encoding that is wrong."""
        if (error := fault(request.text, "text")) is not None:
            raise error
        check_encoding(request.offset_encoding)
        min_score = checked_score(request.min_score)
        model = self.models.choose("find_entities", request.model, call)
        known = await call.in_pool(known_by, model)
        types = checked_types(request.types, known.labels)
        if len(request.text) > LONG_CHARACTERS:
            async with self.gate.place(call):
                found = await find(model, request.text, known, call, partial(self.steps.in_pool, call))
        else:
            found = await find(model, request.text, known, call, call.in_pool)
        asked = [span for span in found if span.type in types and span.score >= min_score]
        return FindEntitiesResponse(
            model=ModelVersion(name=model.name, version=model.version),
            entities=await call.in_pool(entities, request.text, asked, request.offset_encoding),
        )


async def find(model: Model, text: str, known: Known, call: Call, in_pool: Callable[..., Awaitable[Any]]) -> list[Span]:
    """All that a model and the patterns find in a text; `in_pool` runs pure functions for the call."""
    prepared: Prepared = await in_pool(prepare, text, known.tokenizer, known.max_tokens, known.overlap)
    logits: list[Array] = []
    for first in range(0, len(prepared.tensors), WINDOWS_AT_ONCE):
        windows = prepared.tensors[first : first + WINDOWS_AT_ONCE]
        outputs = await model.many(windows, call, outputs=NEEDS.outputs)
        logits += [each["logits"][0] for each in outputs]
    check_labels(model, known.labels, logits[0].shape[-1])
    spans: list[Span] = await in_pool(finish, text, prepared, logits, known.labels)
    return spans


@dataclass(frozen=True, slots=True)
class Known:
    """What a model knows."""

    labels: tuple[str, ...]
    tokenizer: Tokenizer
    max_tokens: int
    overlap: int


def known_by(model: Model) -> Known:
    """What a model knows, read once. ModelFailed when it lacks something, or its labels are no tags of its classes."""
    reading, labels = NEEDS.of(model), labels_of(model, needed=True)
    check_labels(model, labels, classes_of(model, "logits"))
    tags = {OUTSIDE, *(f"{place}-{name}" for name in types_of(labels) for place in "BI")}
    if missing := sorted(tags - {*labels}):
        raise unfit(model.card, f"its labels are no BIO tags: {', '.join(missing)} must be among them")
    return Known(labels, asset(model, load_tokenizer, reading.tokenizer), reading.max_tokens, reading.overlap)


@dataclass(frozen=True, slots=True)
class Prepared:
    """A text as the model reads it."""

    words: tuple[Word, ...]
    first_tokens: tuple[int, ...]
    """The token with which each word begins."""
    windows: tuple[Window, ...]
    tensors: tuple[Tensors, ...]
    """Of each different window: `input_ids`, `attention_mask`, `token_type_ids`, int64 [1, tokens]."""
    read_as: tuple[int, ...]
    """Which of the tensors each window is: rules, dots and columns of zeros give the same ones over and over."""


def checked_score(min_score: float) -> float:
    """The least score, 0.5 by default. BadInput outside of [0, 1]."""
    if not 0 <= min_score <= 1:
        raise BadInput("min_score", f"{min_score}: expected 0 to 1, where 0 means {DEFAULT_MIN_SCORE}")
    return min_score or DEFAULT_MIN_SCORE


def checked_types(asked: Collection[str], labels: Sequence[str]) -> frozenset[str]:
    """The types to return, by default all. BadInput for one that neither the model nor a pattern knows."""
    known = {*types_of(labels), *patterns.TYPES}
    for index, name in enumerate(asked):
        if name not in known:
            raise BadInput(f"types[{index}]", f"{name[:64]!r} is not known; these are: {', '.join(sorted(known))}")
    return frozenset(asked or known)


def prepare(text: str, tokenizer: Tokenizer, size: int, overlap: int) -> Prepared:
    """A text in windows of at most `size` tokens, the two special ones included.

    `encode_batch` releases the interpreter's lock, which `encode` holds.
    """
    (encoding,) = tokenizer.encode_batch([text])
    first, *_, last = encoding.ids
    words, first_tokens, tokens = words_of(encoding)
    windows = plan(len(tokens), size - 2, overlap)
    different: dict[tuple[int, ...], int] = {}
    read_as = [different.setdefault((first, *tokens[start:end], last), len(different)) for start, end in windows]
    return Prepared(tuple(words), tuple(first_tokens), tuple(windows), tuple(map(_tensors, different)), tuple(read_as))


def words_of(encoding: Encoding) -> tuple[list[Word], list[int], list[int]]:
    """The words of a text, the token with which each begins, and the tokens: of a word at most one a character.

    A tokenizer that takes characters apart would make three of each Korean syllable, and of a text of 100,000 a work
    of half a minute, in a script that such a model does not read.
    """
    ids, places, members = encoding.ids[1:-1], encoding.offsets[1:-1], encoding.word_ids[1:-1]
    begins = [index for index, word in enumerate(members) if index == 0 or word != members[index - 1]]
    words: list[Word] = []
    first_tokens: list[int] = []
    tokens: list[int] = []
    for begin, end in pairwise([*begins, len(members)]):
        word = Word(places[begin][0], places[end - 1][1])
        words.append(word)
        first_tokens.append(len(tokens))
        tokens += ids[begin : min(end, begin + max(word.end - word.start, 1))]
    return words, first_tokens, tokens


def _tensors(ids: Sequence[int]) -> Tensors:
    row = np.array([ids], np.int64)
    return {"input_ids": row, "attention_mask": np.ones_like(row), "token_type_ids": np.zeros_like(row)}


def finish(text: str, prepared: Prepared, logits: Sequence[Array], labels: Sequence[str]) -> list[Span]:
    """What the model, by its logits f32 [tokens, labels] of each window, and the patterns find, without overlaps."""
    different = [_softmax(each[1:-1]) for each in logits]
    tokens = joined([different[index] for index in prepared.read_as], prepared.windows, labels.index(OUTSIDE))
    by_model = tagged(text, prepared.words, _mean_of_words(tokens, prepared.first_tokens), labels)
    return without_overlaps([*by_model, *patterns.find(text)])


def _softmax(logits: Array) -> Array:
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities: Array = raised / raised.sum(axis=1, keepdims=True)
    return probabilities


def _mean_of_words(tokens: Array, first_tokens: Sequence[int]) -> Array:
    """The probabilities f32 [words, labels] of words: the mean over their tokens [tokens, labels]."""
    if not first_tokens:
        return tokens
    counts = np.diff(first_tokens, append=len(tokens))
    mean: Array = np.add.reduceat(tokens, first_tokens)
    mean /= counts[:, None]
    return mean


def entities(text: str, spans: Sequence[Span], encoding: int) -> list[Entity]:
    """Spans as the caller counts them."""
    places = offsets(text, encoding)
    return [
        Entity(
            type=span.type,
            text=text[span.start : span.end],
            start=int(places[span.start]),
            end=int(places[span.end]),
            score=span.score,
            source=nlp_pb2.ENTITY_SOURCE_PATTERN if span.by_pattern else nlp_pb2.ENTITY_SOURCE_MODEL,
        )
        for span in spans
    ]
