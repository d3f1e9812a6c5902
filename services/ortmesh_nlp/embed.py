"""NlpService.Embed: texts as vectors whose cosine tells how close they are in meaning. Stage: task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import Field
from tokenizers import Tokenizer

from ortmesh.common.v1.common_pb2 import ModelVersion
from ortmesh.errors import BadInput
from ortmesh.front.call import Call
from ortmesh.front.status import status_of
from ortmesh.nlp.v1.nlp_pb2 import EmbedRequest, EmbedResponse, EmbedResult
from ortmesh.serving.model import Model
from ortmesh.serving.models import Models
from ortmesh.serving.needs import Needs, Settings, asset
from ortmesh.serving.tokenizing import load_tokenizer
from ortmesh.serving.types import Array, Tensors
from ortmesh.serving.vectors import check_encoding, embedding, unit
from ortmesh_nlp.texts import check_count, faults


class Reading(Settings):
    """How a model reads texts."""

    tokenizer: str = "tokenizer.json"
    """The file of its tokenizer, as the library `tokenizers` writes it."""
    max_tokens: int = Field(ge=2)
    """Longer texts are cut."""


NEEDS = Needs(Reading, inputs={"input_ids": "INT64", "attention_mask": "INT64"}, outputs={"embedding": 2})


class Embed:
    """Texts to vectors; a text that can't be embedded spares its neighbours."""

    def __init__(self, models: Models) -> None:
        self.models = models

    async def __call__(self, request: EmbedRequest, call: Call) -> EmbedResponse:
        """Results in the order of the texts; BadInput for a count or an encoding that is wrong."""
        check_count(request.texts)
        check_encoding(request.encoding)
        model = self.models.choose("embed", request.model, call)
        prepared = await call.in_pool(read, request, model, NEEDS.of(model))
        good = [text for text in prepared if isinstance(text, Tokens)]
        outputs = iter(await model.many([text.tensors for text in good], call))
        results = [
            finish(text, next(outputs)["embedding"][0], request.encoding) if isinstance(text, Tokens) else failure(text)
            for text in prepared
        ]
        return EmbedResponse(model=ModelVersion(name=model.name, version=model.version), results=results)


@dataclass(frozen=True, slots=True)
class Tokens:
    """A text as its model reads it."""

    tensors: Tensors
    """`input_ids` and `attention_mask`, int64 [1, tokens]."""
    count: int
    truncated: bool


def read(request: EmbedRequest, model: Model, reading: Reading) -> list[Tokens | BadInput]:
    """`prepare` for a model, whose tokenizer is loaded with its first texts. ModelFailed when it has none."""
    return prepare(list(request.texts), asset(model, load_tokenizer, reading.tokenizer), reading.max_tokens)


def prepare(texts: Sequence[str], tokenizer: Tokenizer, limit: int) -> list[Tokens | BadInput]:
    """Each text as tokens, or what is wrong with it; a single text that is wrong raises.

    `encode_batch` releases the interpreter's lock, which `encode` holds.
    """
    wrong = faults(texts)
    right = [text for index, text in enumerate(texts) if index not in wrong]
    encoded = iter(tokenizer.encode_batch(right))
    return [wrong[index] if index in wrong else cut(next(encoded).ids, limit) for index in range(len(texts))]


def cut(ids: Sequence[int], limit: int) -> Tokens:
    """Token ids as tensors, at most `limit` of them: the end of the text goes, its closing token stays."""
    truncated = len(ids) > limit
    kept = [*ids[: limit - 1], ids[-1]] if truncated else ids
    row = np.array([kept], dtype=np.int64)
    return Tokens({"input_ids": row, "attention_mask": np.ones_like(row)}, len(kept), truncated)


def finish(text: Tokens, vector: Array, encoding: int) -> EmbedResult:
    """The result for a text whose vector [dimension] is there."""
    return EmbedResult(
        embedding=embedding(unit(vector), encoding, normalized=True), tokens=text.count, truncated=text.truncated
    )


def failure(error: BadInput) -> EmbedResult:
    """The result for a text that could not be embedded."""
    return EmbedResult(error=status_of(error))
