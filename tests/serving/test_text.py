"""A text in progress: what is told of its tokens' times."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ortmesh.serving.executor.engine import text as texts
from ortmesh.serving.executor.engine.ask import Ask, Reason, TextItem
from ortmesh.serving.executor.engine.sampler import Sampling
from ortmesh.serving.executor.engine.slots import LEAST_READ, Held, Values
from ortmesh.serving.executor.engine.text import Text
from tests.serving.test_engine import Heard

PROMPT, STOP, VOCABULARY = [5, 6, 7], 2, 16


class Clock:
    """In place of `time`: a step takes as long as a test says."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(texts, "time", made)
    return made


def a_text(tokens: int = 8) -> Text:
    """One whose prompt is read."""
    heard = Heard()
    ask = Ask(np.array(PROMPT, np.int64), tokens, frozenset([STOP]), Sampling(temperature=0.0))
    item = TextItem(ask, answer=heard, owner=heard.owner, deadline=math.inf)
    return Text(item, Held(list(PROMPT), len(PROMPT) - 1), 0, LEAST_READ)


def likely(token: int) -> Values:
    logits = np.zeros(VOCABULARY, np.float32)
    logits[token] = 1.0
    return logits


def test_the_step_that_only_ends_a_text_is_no_time_of_its_tokens(clock: Clock) -> None:
    """Nor is what passes until somebody asks."""
    text = a_text()
    for at, token in ((10.0, 8), (11.0, 9), (14.0, 10)):
        clock.now = at
        assert text.append(likely(token))
        assert text.token_seconds is None, "it has not ended"
        text.stepped()
    clock.now = 90.0
    assert not text.append(likely(STOP))
    clock.now = 100.0
    assert text.reason is Reason.STOP
    assert text.token_seconds == 2.0


def test_a_text_of_one_token_has_no_time_between_tokens(clock: Clock) -> None:
    text = a_text(1)
    clock.now = 10.0
    assert text.append(likely(8))
    clock.now = 20.0
    assert text.reason is Reason.LENGTH
    assert text.first_seconds == 10.0 - text.item.arrival
    assert text.token_seconds is None
