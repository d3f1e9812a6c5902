"""NlpService.Generate on SmolLM2: sense, forms, and the same text alone and among others."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest

from ortmesh.front.call import Call
from ortmesh.front.pool import Pool
from ortmesh.nlp.v1 import nlp_pb2
from ortmesh.nlp.v1.nlp_pb2 import Chat, ChatMessage, CountTokensRequest, GenerateRequest
from ortmesh.serving.models import Models
from ortmesh_nlp.count_tokens import CountTokens
from ortmesh_nlp.generate import Generate
from tests.conftest import FamilyModels

QUESTIONS = (
    "What is the capital of France?",
    "Who wrote Hamlet?",
    "Name three primary colors.",
    "What do bees make?",
    "Write one sentence about the sea.",
)


@pytest.fixture
async def models(family_models: FamilyModels) -> AsyncIterator[Models]:
    async with family_models("nlp") as loaded:
        yield loaded


def asked(question: str) -> Chat:
    return Chat(messages=[ChatMessage(role=nlp_pb2.CHAT_ROLE_USER, content=question)])


async def text(models: Models, request: GenerateRequest) -> str:
    pool = Pool(threads=1, max_bytes=1 << 30)
    call = Call("/ortmesh.nlp.v1.NlpService/Generate", pool)
    try:
        return "".join([answer.text async for answer in Generate(models)(request, call)])
    finally:
        call.end()
        pool.close()


async def test_answers_make_sense_and_are_the_same_alone_and_among_others(models: Models, call: Call) -> None:
    requests = [GenerateRequest(chat=asked(question), max_tokens=24) for question in QUESTIONS]
    alone = [await text(models, request) for request in requests]
    assert "Paris" in alone[0]
    assert "Shakespeare" in alone[1]
    among = await asyncio.gather(*(text(models, request) for request in (*requests, *requests)))
    assert among == [*alone, *alone]
    counted = await CountTokens(models)(CountTokensRequest(chat=asked(QUESTIONS[0])), call)
    assert counted.context == 2048


async def test_a_form_is_followed_with_sense(models: Models) -> None:
    """The text ends by itself: the whole of it is JSON."""
    schema = {
        "type": "object",
        "properties": {"capital": {"type": "string", "maxLength": 20}},
        "required": ["capital"],
        "additionalProperties": False,
    }
    request = GenerateRequest(chat=asked(QUESTIONS[0]), max_tokens=40, json_schema=json.dumps(schema))
    assert "Paris" in json.loads(await text(models, request))["capital"]
