"""What prompts share is read once, and what becomes of each is what it is alone."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from ortmesh.errors import Cancelled
from ortmesh.serving.cards import EngineSettings
from ortmesh.serving.executor.engine.ask import Ask
from ortmesh.serving.executor.engine.engine import EngineExecutor
from ortmesh.serving.executor.engine.sampler import Sampling
from ortmesh.serving.executor.engine.slots import LEAST_READ, Ids, usable
from tests.nlp.tiny_llama import write_tiny_llama
from tests.serving.rest import SECONDS
from tests.serving.test_engine import SETTINGS, Engine, prompt

Start = Callable[[EngineSettings], Engine]
ALONE = SETTINGS.model_copy(update={"slots": 1})
ROOMY = SETTINGS.model_copy(update={"tokens": 2048})


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_llama(tmp_path_factory.mktemp("tiny")) / "model.onnx"


@pytest.fixture
def start(model: Path) -> Iterator[Start]:
    """Starts engines, which are stopped in the end."""
    running: list[Engine] = []

    def started(settings: EngineSettings = ROOMY) -> Engine:
        running.append(Engine(model, settings))
        return running[-1]

    yield started
    for each in running:
        each.stop()


def asked(ids: Ids, seed: int, tokens: int = 16) -> Ask:
    return Ask(ids, tokens, frozenset(), Sampling(seed=seed))


def alone(start: Start, asks: Sequence[Ask]) -> list[list[int]]:
    """What becomes of each in an engine that has seen nothing else."""
    return [start(ALONE).ask(each).wait().tokens for each in asks]


@pytest.mark.parametrize("length", [3, 4, 12, 65, 66, 130])
def test_prompts_that_are_the_same_are_read_once(start: Start, length: int) -> None:
    asks = [asked(prompt(1, length), seed) for seed in range(6)]
    heard = [each.wait() for each in start(ROOMY).ask_all(asks)]
    assert [each.tokens for each in heard] == alone(start, asks)
    assert sorted(each.cached for each in heard) == [0, *[length - 1] * 5]


def test_what_prompts_share_is_read_once_while_they_differ_later(start: Start) -> None:
    asks = [asked(np.concatenate([prompt(9, 80), prompt(seed, 10)]), seed) for seed in range(5)]
    heard = [each.wait() for each in start(ROOMY).ask_all(asks)]
    assert [each.tokens for each in heard] == alone(start, asks)
    assert sorted(each.cached for each in heard) == [0, *[80] * 4]


def test_what_is_shared_with_a_part_of_others_is_read_once_for_them(start: Start) -> None:
    """Two questions, each asked by three, behind one system prompt."""
    questions = [np.concatenate([prompt(9, 70), prompt(question, 40)]) for question in range(2)]
    asks = [asked(questions[seed % 2], seed) for seed in range(6)]
    heard = [each.wait() for each in start(ROOMY).ask_all(asks)]
    assert [each.tokens for each in heard] == alone(start, asks)
    assert sorted(each.cached for each in heard) == [0, 70, *[109] * 4]


def test_when_the_one_that_is_read_leaves_another_is_read_on(start: Start) -> None:
    """From where it was: the others have what was read so far."""
    asks = [asked(prompt(1, 200), seed) for seed in range(4)]
    engine = start(ROOMY)
    growing = engine.ask(asked(prompt(2, 10), 9, tokens=200))
    assert growing.begun.wait(SECONDS)  # so that prompts are read in chunks of 64
    gone, *stay = engine.ask_all(asks, {0: LeavesWhenPartIsRead(engine.executor)})
    assert isinstance(gone.wait().error, Cancelled)
    assert [each.wait().tokens for each in stay] == alone(start, asks)[1:]
    assert sorted(each.cached for each in stay) == [64, 199, 199]


class LeavesWhenPartIsRead:
    """Whoever asks for a text, until a chunk of its prompt is there."""

    admitted = False

    def __init__(self, executor: EngineExecutor) -> None:
        self._executor = executor
        self._left = False

    @property
    def cancelled(self) -> bool:
        self._left = self._left or any(text.length > 0 for text in self._executor._texts if text.item.owner is self)
        return self._left


def test_texts_that_begin_alike_are_what_they_are_alone(start: Start) -> None:
    """However much they share, in whatever order they come, whoever of them leaves, and whatever was before."""
    chance = random.Random(11)
    asks = [begins_like_others(chance, seed) for seed in range(24)]
    expected, engine = alone(start, asks), start(SETTINGS)
    for _ in range(6):
        order = chance.sample(range(24), 24)
        heard = dict(zip(order, engine.ask_all([asks[place] for place in order]), strict=True))
        leaving = chance.sample(order, 5)
        for place in leaving:
            heard[place].owner.cancelled = True
        for place in set(order) - set(leaving):
            assert heard[place].wait().tokens == expected[place]


def begins_like_others(chance: random.Random, seed: int) -> Ask:
    """One of two beginnings, more or less of it, and a few tokens of its own or none."""
    begin = prompt(chance.randrange(2), 140)[: chance.choice((1, 2, 3, 15, 16, 17, 64, 65, 80, 140))]
    ids = np.concatenate([begin, prompt(100 + seed, chance.choice((0, 1, 2, 3, 20)))])
    return asked(ids, seed, chance.randrange(1, 20))


@pytest.mark.parametrize("size", range(1, 60))
def test_what_is_taken_over_never_leaves_one_token_before_the_last(size: int) -> None:
    """That one would be computed alone, where a text alone computes it with others."""
    for there in range(80):
        for had in range(size):
            gain = usable(size, there, had, least_read=LEAST_READ)
            assert 0 <= gain <= max(there - had, 0)
            assert not gain or size - 1 - had - gain != 1
            assert not gain or size > 2


def test_what_many_had_in_common_is_kept_once(start: Start) -> None:
    """Else the choices of one request would drive out what others may come back to."""
    engine = start(ROOMY)
    for each in engine.ask_all([asked(prompt(1, 100), seed) for seed in range(6)]):
        each.wait()
    assert at_rest(engine) == [99]
    longer = np.concatenate([prompt(1, 100), prompt(2, 50)])
    assert engine.ask(asked(longer, 7)).wait().cached == 99
    assert at_rest(engine) == [149], "what goes on from it holds it too"
    assert engine.ask(asked(prompt(1, 100), 8)).wait().cached == 99
    assert engine.ask(asked(prompt(3, 30), 9)).wait().cached == 0
    assert at_rest(engine) == [29, 149]


def at_rest(engine: Engine) -> list[int]:
    """How many tokens are kept where any are, once all texts have ended for the engine too."""
    engine.rest.wait()
    return sorted(len(each.tokens) for each in engine.executor._slots.held if each.tokens)
