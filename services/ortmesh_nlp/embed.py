"""NlpService.Embed: texts as vectors whose cosine tells how close they are in meaning. Stage: task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from ortmesh.common.v1.common_pb2 import ModelVersion
from ortmesh.errors import BadInput
from ortmesh.front.call import Call
from ortmesh.front.status import status_of
from ortmesh.nlp.v1.nlp_pb2 import EmbedRequest, EmbedResponse, EmbedResult
from ortmesh.serving.models import Models
from ortmesh.serving.types import Array, Tensors
from ortmesh.serving.vectors import check_encoding, embedding
from ortmesh_nlp.texts import check_count, faults


class Embed:
    """Texts to vectors; a text that can't be embedded spares its neighbours."""

    def __init__(self, models: Models) -> None:
        self.models = models

    async def __call__(self, request: EmbedRequest, call: Call) -> EmbedResponse:
        """Results in the order of the texts; BadInput for a count or an encoding that is wrong."""
        check_count(request.texts)
        check_encoding(request.encoding)
        model = self.models.choose("embed", request.model, call)
        tokenizer = model.asset(load_tokenizer, "tokenizer.json")
        limit = int(model.card.preprocessing["max_tokens"])
        prepared = await call.in_pool(prepare, list(request.texts), tokenizer, limit)
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


def load_tokenizer(path: Path) -> Tokenizer:
    """A tokenizer without padding and truncation: the batcher pads, and `prepare` cuts and says so."""
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


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
    """The result for a text whose vector f32 [dimension] is there."""
    return EmbedResult(
        embedding=embedding(vector, encoding, normalized=True), tokens=text.count, truncated=text.truncated
    )


def failure(error: BadInput) -> EmbedResult:
    """The result for a text that could not be embedded."""
    return EmbedResult(error=status_of(error))
