"""NlpService.FindEntities: names, places, numbers and other personal data in a text. Stage: task."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import Field, ValidationInfo, field_validator
from tokenizers import Tokenizer

from ortmesh.common.v1.common_pb2 import ModelVersion
from ortmesh.errors import BadInput
from ortmesh.front.call import Call
from ortmesh.nlp.v1 import nlp_pb2
from ortmesh.nlp.v1.nlp_pb2 import Entity, FindEntitiesRequest, FindEntitiesResponse
from ortmesh.serving.model import Model
from ortmesh.serving.models import Models
from ortmesh.serving.needs import Needs, Settings, asset, labels_of
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

    async def __call__(self, request: FindEntitiesRequest, call: Call) -> FindEntitiesResponse:
        """Entities in the order of the text; BadInput for a text, a type, a score or an encoding that is wrong."""
        if (error := fault(request.text, "text")) is not None:
            raise error
        check_encoding(request.offset_encoding)
        min_score = checked_score(request.min_score)
        model = self.models.choose("find_entities", request.model, call)
        reading = NEEDS.of(model)
        labels = await call.in_pool(labels_of, model, needed=True)
        types = checked_types(request.types, labels)
        prepared = await call.in_pool(read, request.text, model, reading)
        logits: list[Array] = []
        for first in range(0, len(prepared.tensors), WINDOWS_AT_ONCE):
            outputs = await model.many(prepared.tensors[first : first + WINDOWS_AT_ONCE], call)
            logits += [each["logits"][0] for each in outputs]
        found = await call.in_pool(finish, request.text, prepared, logits, labels)
        asked = [span for span in found if span.type in types and span.score >= min_score]
        return FindEntitiesResponse(
            model=ModelVersion(name=model.name, version=model.version),
            entities=entities(request.text, asked, request.offset_encoding),
        )


@dataclass(frozen=True, slots=True)
class Prepared:
    """A text as the model reads it."""

    words: tuple[Word, ...]
    first_tokens: tuple[int, ...]
    """The token with which each word begins."""
    windows: tuple[Window, ...]
    tensors: tuple[Tensors, ...]
    """Of each window: `input_ids`, `attention_mask`, `token_type_ids`, int64 [1, tokens]."""


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


def read(text: str, model: Model, reading: Reading) -> Prepared:
    """`prepare` for a model, whose tokenizer is loaded with its first text. ModelFailed when it has none."""
    return prepare(text, asset(model, load_tokenizer, reading.tokenizer), reading.max_tokens, reading.overlap)


def prepare(text: str, tokenizer: Tokenizer, size: int, overlap: int) -> Prepared:
    """A text in windows of at most `size` tokens, the two special ones included.

    `encode_batch` releases the interpreter's lock, which `encode` holds.
    """
    (encoding,) = tokenizer.encode_batch([text])
    first, *ids, last = encoding.ids
    places, members = encoding.offsets[1:-1], encoding.word_ids[1:-1]
    begins = [index for index, word in enumerate(members) if index == 0 or word != members[index - 1]]
    ends = [*begins[1:], len(members)]
    words = [Word(places[begin][0], places[end - 1][1]) for begin, end in zip(begins, ends, strict=False)]
    windows = plan(len(ids), size - 2, overlap)
    tensors = [_tensors([first, *ids[start:end], last]) for start, end in windows]
    return Prepared(tuple(words), tuple(begins), tuple(windows), tuple(tensors))


def _tensors(ids: Sequence[int]) -> Tensors:
    row = np.array([ids], np.int64)
    return {"input_ids": row, "attention_mask": np.ones_like(row), "token_type_ids": np.zeros_like(row)}


def finish(text: str, prepared: Prepared, logits: Sequence[Array], labels: Sequence[str]) -> list[Span]:
    """What the model, by its logits f32 [tokens, labels] of each window, and the patterns find, without overlaps."""
    parts = [_softmax(each[1:-1]) for each in logits]
    tokens = joined(parts, prepared.windows, labels.index(OUTSIDE))
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
    mean: Array = np.add.reduceat(tokens, first_tokens) / counts[:, None]
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
