"""Bad and odd texts at every door: each is refused by its field, or read, and no neighbour notices."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import grpc
import pytest

from ortmesh.client import Client
from ortmesh.nlp.v1 import nlp_pb2
from tests.mesh.bad import client, errors_of, expect_refusal, send, unharmed
from tests.mesh.conftest import Door, RunningMesh

INVALID = grpc.StatusCode.INVALID_ARGUMENT
Call = Callable[[Client, Any], Any]
"""Puts a text into a method's request and sends it."""
LONG_TEXTS_BYTES = 450_000_000
"""What two texts of 100,000 characters, each a token, may take at once: they are good, only long."""
LONE = b"\xed\xa0\x80"
"""Half of a pair of surrogates, as careless encoders write it."""


def embed(to: Client, texts: Sequence[str]) -> Any:
    return to.nlp.Embed(nlp_pb2.EmbedRequest(texts=texts), timeout=60)


def detect_language(to: Client, texts: Sequence[str]) -> Any:
    return to.nlp.DetectLanguage(nlp_pb2.DetectLanguageRequest(texts=texts), timeout=60)


def find_entities(to: Client, text: str) -> Any:
    return to.nlp.FindEntities(nlp_pb2.FindEntitiesRequest(text=text), timeout=60)


TEXTS_METHODS: Mapping[str, Call] = {"Embed": embed, "DetectLanguage": detect_language}
"""Those that take several."""
BAD_TEXTS: Mapping[str, str] = {"empty": "", "white space": " \n\t\u3000", "a megabyte": "word " * 200_000}
BAD_LISTS: Mapping[str, Sequence[str]] = {"none": [], "257": ["x"] * 257}


@pytest.fixture(scope="module", autouse=True)
def _unharmed(mesh: RunningMesh) -> Iterator[None]:
    with unharmed(mesh, "nlp", good, growth_bytes=LONG_TEXTS_BYTES):
        yield


def good(to: Client) -> None:
    """What a neighbour asks, of every method."""
    embed(to, ["good morning"] * 8)
    detect_language(to, ["good morning"] * 8)
    find_entities(to, "good morning, Maria Gonzalez " * 40)


@pytest.mark.parametrize("name", BAD_TEXTS)
def test_what_is_no_text_is_refused(door: Door, name: str) -> None:
    text = BAD_TEXTS[name]
    with client(door, "nlp") as to:
        for call in TEXTS_METHODS.values():
            expect_refusal(partial(call, to, [text]), INVALID, "texts[0]")
        expect_refusal(lambda: find_entities(to, text), INVALID, "text")


@pytest.mark.parametrize("method", TEXTS_METHODS)
@pytest.mark.parametrize("name", BAD_LISTS)
def test_none_and_too_many_texts_are_refused(door: Door, name: str, method: str) -> None:
    with client(door, "nlp") as to:
        expect_refusal(lambda: TEXTS_METHODS[method](to, BAD_LISTS[name]), INVALID, "texts")


@pytest.mark.parametrize("method", TEXTS_METHODS)
def test_a_bad_text_among_good_ones_fails_alone(door: Door, method: str) -> None:
    texts = ["All human beings are born free."] * 10
    texts[7] = " "
    with client(door, "nlp") as to:
        answer = TEXTS_METHODS[method](to, texts)
    assert errors_of(answer.results) == {7: (3, ["texts[7]"])}


@pytest.mark.parametrize(
    ("method", "request_bytes", "field"),
    [
        ("Embed", b"\x12\x01a" * 5 + b"\x12\x03" + LONE, "texts[5]"),
        ("DetectLanguage", b"\x12\x04caf\xe9", "texts[0]"),
        ("FindEntities", b"\x12\x03" + LONE, "text"),
        ("FindEntities", b"\x12\x01a\x0a\x03" + LONE, "model"),
    ],
)
def test_a_text_that_is_not_utf8_is_named(door: Door, method: str, request_bytes: bytes, field: str) -> None:
    """No stub can write it, but other programs do."""
    with client(door, "nlp") as to:
        expect_refusal(lambda: send(to, f"ortmesh.nlp.v1.NlpService/{method}", request_bytes), INVALID, field)


def test_nuls_are_characters_like_others(door: Door) -> None:
    with client(door, "nlp") as to:
        with_nuls, without = embed(to, ["good\0 morning\0", "good morning"]).results
        assert list(with_nuls.embedding.values) == pytest.approx(list(without.embedding.values), abs=1e-4)
        assert detect_language(to, ["Alle Menschen\0sind frei\0"]).results[0].detected.languages[0].code == "de"
        found = find_entities(to, "My name is \0Maria Gonzalez\0 from Boston.").entities
        assert [(each.text, each.start) for each in found][:2] == [("Maria", 12), ("Gonzalez", 18)]


@pytest.mark.parametrize("unit", ["3.", "+", "@", "a", "각각 ", "🙂", "e\u0301\u0323", "\u202e\u2066", "\0"])
def test_the_longest_texts_of_the_worst_kinds_are_read_soon(door: Door, unit: str) -> None:
    """Alone each takes half a second; the deadline of a minute leaves room for whoever else works here."""
    text = (unit * 100_000)[:100_000]
    with client(door, "nlp") as to:
        find_entities(to, text)
        detect_language(to, [text] * 4)
        embed(to, [text] * 4)
