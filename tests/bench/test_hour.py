"""The bench's hour of generated texts, in seconds: a real service, asked for everything by callers of few words."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import grpc
import pytest
from tokenizers import Tokenizer

from bench.generate import hour as hours
from bench.generate.hour import Caller, hour
from bench.generate.jobs import Drawn
from bench.generate.plan import QUICK
from bench.generate.service import Service, running
from ortmesh.nlp.v1.nlp_pb2_grpc import NlpServiceStub
from tests.nlp import tiny_llama
from tests.nlp.writers import writer
from tests.serving.rest import SECONDS

KINDS = {"goes_on", "sampled", "long", "choices", "schema", "regex", "leaves", "late", "wrong", "counts"}
CONTEXT = 8192
"""The tiny model's tokens are letters, and a conversation is of words."""
BRIEF = replace(QUICK, mixed_minutes=0.03, mixed_rest_seconds=0.05)
ASKED = 60
"""Requests among which, by this seed, are all kinds."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiny_llama, "SHAPE", replace(tiny_llama.SHAPE, positions=CONTEXT))
        shelf = writer(tmp_path_factory.mktemp("store"), context=CONTEXT, tokens=4 * CONTEXT)
    ((_, place),) = shelf.cards()
    return place


@pytest.fixture(scope="module")
def service(folder: Path) -> Iterator[Service]:
    with running(folder, 1) as started:
        yield started


@pytest.fixture
def tokenizer(folder: Path) -> Tokenizer:
    return Tokenizer.from_file(str(folder / "tokenizer.json"))


def kinds(told: list[str]) -> set[str]:
    return {each.partition(":")[0] for each in told}


def test_a_caller_asks_for_everything_and_only_what_is_wrong_is_refused(service: Service, tokenizer: Tokenizer) -> None:
    with grpc.insecure_channel(service.address) as channel:
        caller = Caller(NlpServiceStub(channel), Drawn(tokenizer, 1), 1)
        for _ in range(ASKED):
            caller.ask()
    assert kinds(list(caller.ended)) == KINDS
    assert caller.ended.total() == ASKED
    assert {each for each in caller.ended if ":" in each} <= {"wrong: INVALID_ARGUMENT", "late: DEADLINE_EXCEEDED"}


def test_an_hour_is_told_by_its_parts(service: Service, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory of each stretch and after it, and what was asked."""
    monkeypatch.setattr(hours, "LOOK_SECONDS", 0.02)
    monkeypatch.setattr(hours, "PAUSE_SECONDS", 0.01)
    head, _, *rows, _, found, _, told = hour(service, tokenizer, BRIEF).splitlines()
    assert head.count("-") == hours.PARTS
    sizes = [[int(cell) for cell in row.split("|")[2:-1]] for row in rows]
    assert [len(each) for each in sizes] == [hours.PARTS] * 3
    mean, most, _ = sizes
    assert all(0 < each <= highest for each, highest in zip(mean, most, strict=True))
    assert len(re.findall(r"[+-]\d+\.\d%", found)) == 3
    count, _, ended = told.removesuffix(".").partition(" requests: ")
    each = [part.partition(" ") for part in ended.split(", ")]
    assert sum(int(number) for number, _, _ in each) == int(count) > 0
    assert kinds([name for _, _, name in each]) <= KINDS


class Signalling(Caller):
    """Tells that it asks."""

    def __init__(self, stub: NlpServiceStub, drawn: Drawn, seed: int) -> None:
        super().__init__(stub, drawn, seed)
        self.asked = threading.Event()

    def ask(self) -> None:
        """As any."""
        self.asked.set()
        super().ask()


def test_what_goes_wrong_with_a_caller_is_raised_at_the_end(tokenizer: Tokenizer) -> None:
    """Here nobody serves."""
    with grpc.insecure_channel("unix:/nowhere/at/all") as channel:
        caller = Signalling(NlpServiceStub(channel), Drawn(tokenizer, 1), 1)
        with pytest.raises(grpc.RpcError, match="UNAVAILABLE"), hours._asking([caller]):
            assert caller.asked.wait(SECONDS)
