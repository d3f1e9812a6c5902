"""NlpService.Embed: texts as vectors whose cosine tells how close they are in meaning. Stage: task."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import Field
from tokenizers import Encoding, Tokenizer

from ortmesh.common.v1.common_pb2 import ModelVersion
from ortmesh.errors import BadInput
from ortmesh.front.call import Call
from ortmesh.front.methods import Reply
from ortmesh.front.status import status_of
from ortmesh.nlp.v1.nlp_pb2 import EmbedRequest, EmbedResponse, EmbedResult
from ortmesh.serving.model import Model
from ortmesh.serving.models import Models
from ortmesh.serving.needs import Needs, Settings, asset
from ortmesh.serving.tokenizing import load_tokenizer
from ortmesh.serving.types import Array, Tensors
from ortmesh.serving.vectors import check_encoding, embedding, unit
from ortmesh_nlp.texts import MAX_CHARACTERS, check_count, faults

DIRECT_TEXTS = 16
"""Of a request: each is an item of its own, and 256 of a word take 1.5 ms to read."""
DIRECT_CHARACTERS = 1000
"""Of all texts of a request together: they are tokens in 0.05 ms most often, in 0.8 at most, where each character is
one. A way through the pool and back takes longer."""
HEAD_CHARACTERS = 16
"""For each token that is kept: in running text of any language a token has 1 to 5."""
LONGEST_WORD = 256
"""In characters: a word that is cut may become other tokens; a longer one is hardly a word."""


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
        models.require("embed", tokenizer_of)

    async def __call__(self, request: EmbedRequest, call: Call) -> EmbedResponse:
        """Results in the order of the texts; BadInput for a count or an encoding that is wrong."""
        check_count(request.texts)
        check_encoding(request.encoding)
        model = self.models.choose("embed", request.model, call)
        prepared = await call.in_pool(read, request, model)
        outputs = await model.many(_good(prepared), call, outputs=NEEDS.outputs)
        return response(model, prepared, outputs, request.encoding)

    def direct(self, request: EmbedRequest, call: Call, reply: Reply) -> bool:
        """Short texts are read in the thread that received them, and answered without a coroutine: to hand them over
        takes longer than to read them. False for longer or many ones; errors as the coroutine's."""
        check_count(request.texts)
        if len(request.texts) > DIRECT_TEXTS or sum(map(len, request.texts)) > DIRECT_CHARACTERS:
            return False
        call.check()
        check_encoding(request.encoding)
        model = self.models.choose("embed", request.model, call)
        prepared, encoding = read(request, model), request.encoding

        def encode(outputs: Sequence[Tensors]) -> bytes:
            return bytes(response(model, prepared, outputs, encoding).SerializeToString())

        if good := _good(prepared):
            model.many_directly(good, call, reply, encode, outputs=NEEDS.outputs)
        else:
            reply.finish(encode(()))
        return True


@dataclass(frozen=True, slots=True)
class Tokens:
    """A text as its model reads it."""

    tensors: Tensors
    """`input_ids` and `attention_mask`, int64 [1, tokens]."""
    count: int
    truncated: bool


def tokenizer_of(model: Model) -> Tokenizer:
    """A model's tokenizer, read once. ModelFailed for a model that lacks it or anything else that the task needs."""
    return asset(model, load_tokenizer, NEEDS.of(model).tokenizer)


def read(request: EmbedRequest, model: Model) -> list[Tokens | BadInput]:
    """`prepare` for a model. ModelFailed as `tokenizer_of`."""
    return prepare(list(request.texts), tokenizer_of(model), NEEDS.of(model).max_tokens)


def prepare(texts: Sequence[str], tokenizer: Tokenizer, limit: int) -> list[Tokens | BadInput]:
    """Each text as tokens, or what is wrong with it; a single text that is wrong raises."""
    wrong = faults(texts)
    right = tokenized([text for index, text in enumerate(texts) if index not in wrong], tokenizer, limit)
    return [wrong[index] if index in wrong else next(right) for index in range(len(texts))]


def tokenized(texts: Sequence[str], tokenizer: Tokenizer, limit: int) -> Iterator[Tokens]:
    """Texts as tokens, a few at a time, and of a long one only the beginning unless its tokens are long.

    While it works, the tokenizer holds up to 500 bytes a character: 700 MB for a message of 4 MB.
    `encode_batch` releases the interpreter's lock, which `encode` holds.
    """
    heads = [text[: limit * HEAD_CHARACTERS] for text in texts]
    encoded = (encoding for group in groups(heads) for encoding in tokenizer.encode_batch(group))
    for text, head, encoding in zip(texts, heads, encoded, strict=True):
        if len(head) < len(text) and not settled(encoding, len(head), limit):
            (encoding,) = tokenizer.encode_batch([text])
        yield cut(encoding.ids, limit)


def groups(texts: Sequence[str]) -> Iterator[list[str]]:
    """The texts in their order, as many together as have 100,000 characters, at least one."""
    group: list[str] = []
    for text in texts:
        if group and sum(map(len, group)) + len(text) > MAX_CHARACTERS:
            yield group
            group = []
        group.append(text)
    if group:
        yield group


def settled(head: Encoding, length: int, limit: int) -> bool:
    """True when a text's beginning has all tokens that are kept, and where it was cut can't have changed them."""
    if len(head.ids) <= limit:
        return False
    place = head.token_to_chars(limit - 1)
    return place is not None and place[1] + LONGEST_WORD < length


def cut(ids: Sequence[int], limit: int) -> Tokens:
    """Token ids as tensors, at most `limit` of them: the end of the text goes, its closing token stays."""
    truncated = len(ids) > limit
    kept = [*ids[: limit - 1], ids[-1]] if truncated else ids
    row = np.array([kept], dtype=np.int64)
    return Tokens({"input_ids": row, "attention_mask": np.ones_like(row)}, len(kept), truncated)


def response(
    model: Model, prepared: Sequence[Tokens | BadInput], outputs: Sequence[Tensors], encoding: int
) -> EmbedResponse:
    """Results in the order of the texts; `outputs` are those of the good ones."""
    found = iter(outputs)
    results = [
        finish(text, next(found)["embedding"][0], encoding) if isinstance(text, Tokens) else failure(text)
        for text in prepared
    ]
    return EmbedResponse(model=ModelVersion(name=model.name, version=model.version), results=results)


def _good(prepared: Sequence[Tokens | BadInput]) -> list[Tensors]:
    return [text.tensors for text in prepared if isinstance(text, Tokens)]


def finish(text: Tokens, vector: Array, encoding: int) -> EmbedResult:
    """The result for a text whose vector [dimension] is there."""
    return EmbedResult(
        embedding=embedding(unit(vector), encoding, normalized=True), tokens=text.count, truncated=text.truncated
    )


def failure(error: BadInput) -> EmbedResult:
    """The result for a text that could not be embedded."""
    return EmbedResult(error=status_of(error))
