"""Who gets a slot: callers who have none are not shut out, and nobody who left keeps anybody out."""

from __future__ import annotations

import math
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from ortmesh.errors import Cancelled, Expired, Overloaded
from ortmesh.serving.batcher import Pile
from ortmesh.serving.cards import Runtime
from ortmesh.serving.executor.engine import admission
from ortmesh.serving.executor.engine.ask import Ask, TextItem
from ortmesh.serving.executor.engine.engine import EngineExecutor
from ortmesh.serving.executor.engine.graph import CHUNK_ALONE, HostGraph
from ortmesh.serving.executor.sessions import Sessions
from ortmesh.serving.types import NoMeter
from tests.nlp.tiny_llama import write_tiny_llama
from tests.serving.test_engine import GREEDY, SETTINGS, Heard, prompt


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_llama(tmp_path_factory.mktemp("tiny")) / "model.onnx"


class Slowly:
    """An engine whose steps the test takes."""

    def __init__(self, model: Path, *, slots: int, tokens: int) -> None:
        sessions = Sessions(Runtime(), 1)
        settings = SETTINGS.model_copy(update={"slots": slots, "tokens": tokens, "context": 512})
        self.executor = EngineExecutor(HostGraph(sessions.open(model)), sessions, settings, meter=NoMeter())
        self.pile = Pile()
        self.heard: list[Heard] = []

    def ask(self, caller: str, *, length: int = 4, tokens: int = 60, deadline: float = math.inf) -> Heard:
        """Comes to wait."""
        heard = Heard(self.heard)
        ask = Ask(prompt(len(self.pile), length), tokens, frozenset(), GREEDY)
        heard.item = TextItem(ask, answer=heard, owner=heard.owner, deadline=deadline, caller=caller)
        self.pile.submit(heard.item)
        return heard

    def admit(self) -> Counter[str]:
        """Lets in whoever may; how many texts of each caller are in progress then."""
        if len(self.pile):
            self.executor._admission.take(self.pile)
        return Counter(text.item.caller for text in self.executor._texts)

    def step(self) -> None:
        """One of the engine's."""
        self.admit()
        self.executor._step()

    def leave(self, caller: str) -> None:
        """All texts of a caller that are in progress end."""
        for text in self.executor._texts:
            if text.item.caller == caller:
                text.item.owner.cancelled = True  # type: ignore[misc]
        self.executor._end_unwanted()


def test_one_caller_leaves_slots_to_those_who_have_none(model: Path) -> None:
    engine = Slowly(model, slots=16, tokens=16 * 512)
    for _ in range(20):
        engine.ask("many")
    assert engine.admit() == {"many": 14}
    engine.ask("other")
    engine.ask("other")
    assert engine.admit() == {"many": 14, "other": 1}, "its second is one of those who have some"
    engine.ask("third")
    assert engine.admit() == {"many": 14, "other": 1, "third": 1}
    engine.leave("many")
    assert engine.admit() == {"many": 6, "other": 2, "third": 1}


def test_one_caller_leaves_tokens_to_those_who_have_none(model: Path) -> None:
    """What does not fit holds up its caller's next, and nobody else."""
    engine = Slowly(model, slots=16, tokens=2048)
    for _ in range(4):
        engine.ask("many", tokens=440)
    engine.ask("many", tokens=300)
    engine.ask("many", tokens=1)
    assert engine.admit() == {"many": 4}
    engine.ask("other", tokens=200)
    assert engine.admit() == {"many": 4, "other": 1}
    engine.leave("many")
    assert engine.admit() == {"many": 2, "other": 1}


def test_without_names_all_slots_are_everybodys(model: Path) -> None:
    engine = Slowly(model, slots=16, tokens=16 * 64)
    for _ in range(20):
        engine.ask("")
    assert engine.admit() == {"": 16}


def test_a_large_text_is_not_overtaken_for_ever(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small ones of others fit all the time, and would always leave too little room."""
    engine = Slowly(model, slots=8, tokens=600)
    engine.ask("first", tokens=200)
    engine.ask("second", tokens=200)
    engine.admit()
    large = engine.ask("large", tokens=450)
    assert engine.admit() == {"first": 1, "second": 1}
    engine.ask("small", tokens=100)
    assert engine.admit() == {"first": 1, "second": 1, "small": 1}, "for a while others go before it"
    monkeypatch.setattr(admission, "PATIENCE_SECONDS", -1.0)
    engine.leave("small")
    engine.ask("smaller", tokens=10)
    assert engine.admit() == {"first": 1, "second": 1}, "what is free is kept for it now"
    engine.leave("first")
    engine.leave("second")
    assert engine.admit() == {"large": 1, "smaller": 1}
    assert not large.ended.is_set()


def test_room_is_not_kept_for_one_that_has_left(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "PATIENCE_SECONDS", -1.0)
    engine = Slowly(model, slots=8, tokens=600)
    engine.ask("first", tokens=300)
    engine.admit()
    large = engine.ask("large", tokens=450)
    engine.admit()
    large.owner.cancelled = True
    engine.ask("small", tokens=10)
    assert engine.admit() == {"first": 1, "small": 1}
    assert isinstance(large.wait().error, Cancelled)


def test_what_nobody_waits_for_ends_while_all_slots_are_taken(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "LOOK_SECONDS", -1.0)
    engine = Slowly(model, slots=8, tokens=8 * 64)
    for _ in range(8):
        engine.ask("")
    engine.admit()
    left, late, waits = engine.ask(""), engine.ask("", deadline=time.monotonic() - 1), engine.ask("")
    left.owner.cancelled = True
    engine.admit()
    assert isinstance(left.wait().error, Cancelled)
    assert isinstance(late.wait().error, Expired)
    assert not waits.ended.is_set()


def test_a_callers_prompts_take_turns_with_anothers(model: Path) -> None:
    """Ten long prompts of one, a short one of another: it is read next, not after a chunk of each."""
    engine = Slowly(model, slots=16, tokens=16 * 512)
    for _ in range(10):
        engine.ask("long", length=CHUNK_ALONE + 200, tokens=1)
    engine.step()
    other = engine.ask("other", length=30, tokens=1)
    steps = 0
    while not other.ended.is_set():
        engine.step()
        steps += 1
        assert steps < 50
    assert steps <= 2
    assert len(engine.heard) == 1, "no other has ended"


def test_a_full_pile_has_room_when_those_who_wait_have_left() -> None:
    """An engine takes nothing for minutes while its slots are taken."""
    now = 100.0
    pile = Pile(max_items=4, clock=lambda: now)
    heard = [Heard([]) for _ in range(5)]

    def item(place: int) -> TextItem:
        each, ask = heard[place], Ask(np.arange(3), 1, frozenset(), GREEDY)
        return TextItem(ask, answer=each, owner=each.owner, deadline=math.inf)

    pile.submit_many([item(place) for place in range(4)])
    with pytest.raises(Overloaded):
        pile.submit(item(4))
    heard[1].owner.cancelled = heard[2].owner.cancelled = True
    with pytest.raises(Overloaded):
        pile.submit(item(4))  # it was looked through just now
    now += 1.0
    pile.submit(item(4))
    assert [isinstance(each.error, Cancelled) for each in heard] == [False, True, True, False, False]
    assert len(pile) == 3
    assert pile.take_first(lambda item: item.owner is heard[4].owner) is None, "of a caller only its first"
    first = pile.take_first(lambda item: True)
    assert first is not None
    assert first.owner is heard[0].owner
