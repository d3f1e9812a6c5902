"""Embed's direct way: the same answers as the coroutine's, from the thread that received the request."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator

import pytest

from ortmesh.common.v1 import common_pb2
from ortmesh.errors import BadInput, Cancelled, NotFound
from ortmesh.front.call import Call
from ortmesh.nlp.v1.nlp_pb2 import EmbedRequest, EmbedResponse
from ortmesh.serving.models import Models
from ortmesh_nlp.embed import DIRECT_CHARACTERS, DIRECT_TEXTS, Embed
from tests.conftest import FamilyModels
from tests.nlp.replies import Waiting

SHORT = ["a cat", "the dog sleeps", "How do I reset my password?"]


@pytest.fixture
async def models(family_models: FamilyModels) -> AsyncIterator[Models]:
    async with family_models("nlp") as loaded:
        yield loaded


async def directly(models: Models, request: EmbedRequest, call: Call) -> EmbedResponse:
    """From another thread, as a server's."""
    reply, taken = Waiting(), list[bool]()
    embed = Embed(models)
    thread = threading.Thread(target=lambda: taken.append(embed.direct(request, call, reply)))
    thread.start()
    await asyncio.to_thread(thread.join)
    assert taken == [True]
    return await asyncio.wait_for(reply.answer, 30)


@pytest.mark.parametrize(
    "texts", [SHORT[:1], SHORT, [*SHORT, "", "x"], ["", " "]], ids=["one", "three", "a wrong one", "all wrong"]
)
@pytest.mark.parametrize("encoding", [0, common_pb2.VECTOR_ENCODING_FLOAT16_BYTES])
async def test_answers_are_those_of_the_coroutine(models: Models, call: Call, texts: list[str], encoding: int) -> None:
    request = EmbedRequest(texts=texts, encoding=encoding)  # type: ignore[arg-type]
    found, wanted = await directly(models, request, call), await Embed(models)(request, call)
    assert [result.WhichOneof("outcome") for result in found.results] == [
        result.WhichOneof("outcome") for result in wanted.results
    ]
    for one, other in zip(found.results, wanted.results, strict=True):
        assert list(one.embedding.values) == pytest.approx(list(other.embedding.values), abs=1e-5)
        assert len(one.embedding.packed) == len(other.embedding.packed)
        assert (one.tokens, one.truncated, one.error) == (other.tokens, other.truncated, other.error)
    assert found.model == wanted.model


async def test_longer_texts_and_many_are_left_to_the_coroutine(models: Models, call: Call) -> None:
    embed = Embed(models)
    assert not embed.direct(EmbedRequest(texts=["x" * (DIRECT_CHARACTERS + 1)]), call, Waiting())
    assert not embed.direct(EmbedRequest(texts=["x" * DIRECT_CHARACTERS, "y"]), call, Waiting())
    assert not embed.direct(EmbedRequest(texts=["x"] * (DIRECT_TEXTS + 1)), call, Waiting())


@pytest.mark.parametrize(
    ("request_", "error", "words"),
    [
        (EmbedRequest(), BadInput, "0 texts"),
        (EmbedRequest(texts=[" "]), BadInput, "not empty"),
        (EmbedRequest(texts=["a"] * 257), BadInput, "257 texts"),
        (EmbedRequest(texts=["a"], model="nobody"), NotFound, "nobody"),
    ],
)
async def test_what_is_wrong_is_raised_at_once(
    models: Models, call: Call, request_: EmbedRequest, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        Embed(models).direct(request_, call, Waiting())


async def test_a_call_that_was_left_is_told_so(models: Models, call: Call) -> None:
    call.cancel()
    with pytest.raises(Cancelled):
        Embed(models).direct(EmbedRequest(texts=SHORT), call, Waiting())
