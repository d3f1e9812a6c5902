"""Texts grow side by side, the same alone and among others; whoever leaves frees its slot; prefixes are used again."""

from __future__ import annotations

import itertools
import math
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ortmesh.errors import BadInput, Cancelled, Expired
from ortmesh.serving.batcher import Pile
from ortmesh.serving.cards import EngineSettings, Runtime
from ortmesh.serving.executor.engine.ask import CACHED, REASON, TOKEN, Ask, Reason, TextItem
from ortmesh.serving.executor.engine.cache import HostCache
from ortmesh.serving.executor.engine.engine import EngineExecutor, open_graph
from ortmesh.serving.executor.engine.graph import HostGraph
from ortmesh.serving.executor.engine.sampler import Sampling
from ortmesh.serving.executor.engine.slots import Held
from ortmesh.serving.executor.failures import ExecutorBroken
from ortmesh.serving.executor.sessions import Sessions
from ortmesh.serving.types import Tensors
from tests.nlp.tiny_llama import MARKS, SHAPE, write_tiny_llama
from tests.serving.graphs import double
from tests.serving.rest import SECONDS, resting

GREEDY = Sampling(temperature=0.0)
SETTINGS = EngineSettings(slots=6, context=256, tokens=1024)


class Heard:
    """A text as its caller gets it."""

    def __init__(self, ends: list[Heard] | None = None) -> None:
        self.ends = [] if ends is None else ends
        """All texts that have ended, in their order."""
        self.tokens: list[int] = []
        self.pieces: list[Tensors] = []
        """What came with each token."""
        self.end: Tensors | None = None
        self.error: BaseException | None = None
        self.ended = threading.Event()
        self.owner = SimpleNamespace(cancelled=False, admitted=False)
        self.begun = threading.Event()
        self.item: TextItem | None = None

    def emit(self, outputs: Tensors) -> None:
        self.tokens.append(int(outputs[TOKEN][0]))
        self.pieces.append(outputs)
        self.begun.set()

    def finish(self, outputs: Tensors) -> None:
        self.end = outputs
        self._over()

    def fail(self, error: BaseException) -> None:
        self.error = error
        self._over()

    def _over(self) -> None:
        self.ends.append(self)
        self.ended.set()

    def wait(self) -> Heard:
        assert self.ended.wait(SECONDS)
        return self

    @property
    def reason(self) -> Reason:
        assert self.end is not None, self.error
        return Reason(int(self.end[REASON][0]))

    @property
    def cached(self) -> int:
        assert self.end is not None, self.error
        return int(self.end[CACHED][0])


class Engine:
    """A running engine on a tiny model."""

    def __init__(
        self,
        model: Path,
        settings: EngineSettings = SETTINGS,
        *,
        warm_up: bool = False,
        sessions: Sessions | None = None,
    ) -> None:
        """Without `warm_up` it takes for granted that texts don't depend on each other."""
        self.sessions = sessions or Sessions(Runtime(), 1)
        meter, self.rest = resting()
        self.executor = EngineExecutor(open_graph(self.sessions.open(model)), self.sessions, settings, meter=meter)
        self.found = self.executor.warm_up() if warm_up else ""
        """What warm-up said."""
        self.broken: ExecutorBroken | None = None
        self.pile = Pile()
        self.ends: list[Heard] = []
        self.thread = threading.Thread(target=self._serve)
        self.thread.start()

    def ask(self, ask: Ask, deadline: float = math.inf, caller: str = "") -> Heard:
        heard = Heard(self.ends)
        heard.item = TextItem(ask, answer=heard, owner=heard.owner, deadline=deadline, caller=caller)
        self.pile.submit(heard.item)
        return heard

    def ask_all(self, asks: Sequence[Ask], owners: dict[int, Any] | None = None) -> list[Heard]:
        """All are there when the engine looks; some may have owners of their own."""
        heard = [Heard(self.ends) for _ in asks]
        for place, owner in (owners or {}).items():
            heard[place].owner = owner
        self.pile.submit_many(
            [
                TextItem(ask, answer=each, owner=each.owner, deadline=math.inf)
                for ask, each in zip(asks, heard, strict=True)
            ]
        )
        return heard

    def stop(self) -> None:
        self.pile.close()
        self.thread.join(SECONDS)
        assert not self.thread.is_alive()
        assert not self.executor._texts

    def _serve(self) -> None:
        try:
            self.executor.serve(self.pile)
        except ExecutorBroken as broken:
            self.broken = broken


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_llama(tmp_path_factory.mktemp("tiny")) / "model.onnx"


@pytest.fixture
def engine(model: Path) -> Iterator[Engine]:
    running = Engine(model)
    yield running
    running.stop()


def prompt(seed: int, length: int = 20) -> Any:
    return np.random.default_rng(seed).integers(len(MARKS), SHAPE.vocabulary, length)


def ask(seed: int, *, length: int = 20, tokens: int = 24, sampling: Sampling = GREEDY, **more: Any) -> Ask:
    return Ask(prompt(seed, length), tokens, frozenset(), sampling, **more)


def test_a_text_has_as_many_tokens_as_it_may_have(engine: Engine) -> None:
    heard = engine.ask(ask(1, tokens=7)).wait()
    assert len(heard.tokens) == 7
    assert heard.reason is Reason.LENGTH


def test_it_ends_before_the_token_that_stops_it_and_after_what_is_enough(engine: Engine) -> None:
    whole = engine.ask(ask(1)).wait().tokens
    stop = next(token for token in whole if whole.index(token) > 2)
    before = engine.ask(replace(ask(1), stop_tokens=frozenset([stop]))).wait()
    assert (before.tokens, before.reason) == (whole[: whole.index(stop)], Reason.STOP)
    until = engine.ask(ask(1, enough=lambda token: token == stop)).wait()
    assert (until.tokens, until.reason) == (whole[: whole.index(stop) + 1], Reason.STOP)


@pytest.mark.parametrize("sampling", [GREEDY, Sampling(seed=7), Sampling(temperature=0.7, top_p=0.9, seed=3)])
def test_a_text_is_the_same_alone_and_among_others(engine: Engine, model: Path, sampling: Sampling) -> None:
    """Whatever their lengths, whenever they come and go, and whatever was kept of earlier ones."""
    chance = random.Random(5)
    asks = [
        ask(seed, length=chance.choice((1, 2, 3, 4, 17, 64, 65, 66, 130)), tokens=chance.randrange(1, 40),
            sampling=replace(sampling, seed=seed))
        for seed in range(24)
    ]  # fmt: skip
    alone = []
    for each in asks:
        single = Engine(model, replace_slots(1))
        alone.append(single.ask(each).wait().tokens)
        single.stop()
    for _ in range(2):
        heard = [engine.ask(each) for each in asks]
        assert [each.wait().tokens for each in heard] == alone
        chance.shuffle(pairs := list(zip(asks, alone, strict=True)))
        asks, alone = [each for each, _ in pairs], [each for _, each in pairs]


def replace_slots(slots: int) -> EngineSettings:
    return SETTINGS.model_copy(update={"slots": slots})


def test_a_conversation_that_goes_on_computes_only_what_is_new(engine: Engine) -> None:
    first = engine.ask(ask(1, length=100, tokens=10)).wait()
    assert first.cached == 0
    longer = np.concatenate([prompt(1, 100), first.tokens, prompt(2, 30)])
    second = engine.ask(Ask(longer, 10, frozenset(), GREEDY)).wait()
    assert 95 <= second.cached <= 100
    again = engine.ask(Ask(longer, 10, frozenset(), GREEDY)).wait()
    assert (again.tokens, again.cached) == (second.tokens, len(longer) - 1)


def test_a_system_prompt_that_many_share_is_computed_once(engine: Engine) -> None:
    """Also while the first of them is still in progress."""
    system = prompt(9, 80)
    asks = [Ask(np.concatenate([system, prompt(seed, 10)]), 30, frozenset(), GREEDY) for seed in range(5)]
    first = engine.ask(asks[0])
    assert first.begun.wait(SECONDS)
    others = [engine.ask(each) for each in asks[1:]]
    assert all(each.wait().cached >= 80 for each in others)
    assert first.wait().cached == 0


def test_what_is_kept_is_forgotten_when_the_tokens_are_needed(model: Path) -> None:
    engine = Engine(model, SETTINGS.model_copy(update={"tokens": 300}))
    try:
        for seed in range(6):
            assert len(engine.ask(ask(seed, length=120, tokens=20)).wait().tokens) == 20
            assert engine.executor._slots.tokens <= 300
    finally:
        engine.stop()


def test_texts_that_do_not_fit_together_wait_for_each_other(model: Path) -> None:
    engine = Engine(model, SETTINGS.model_copy(update={"tokens": 300}))
    try:
        heard = [engine.ask(ask(seed, length=150, tokens=50)) for seed in range(4)]
        assert all(len(each.wait().tokens) == 50 for each in heard)
    finally:
        engine.stop()


def test_whoever_leaves_frees_its_slot(engine: Engine) -> None:
    one = 150  # six of them and their prompts are as many as all texts may have together
    left = threading.Event()
    staying = engine.ask(ask(1, tokens=one, enough=held(one // 2, left)))
    leaving = [engine.ask(ask(seed, tokens=one, enough=held(one // 2, left))) for seed in range(2, 7)]
    waiting = engine.ask(ask(8, tokens=3))
    for each in leaving:
        assert each.begun.wait(SECONDS)
        each.owner.cancelled = True
    left.set()
    assert all(isinstance(each.wait().error, Cancelled) for each in leaving)
    assert len(waiting.wait().tokens) == 3
    assert len(staying.wait().tokens) == one


def held(at: int, go_on: threading.Event) -> Callable[[int], bool]:
    """Never enough: at so many tokens it waits, and with it the engine."""
    tokens = itertools.count(1)

    def enough(token: int) -> bool:
        assert next(tokens) != at or go_on.wait(SECONDS)
        return False

    return enough


def test_a_deadline_ends_a_text_in_the_middle(engine: Engine) -> None:
    passed = threading.Event()
    heard = engine.ask(ask(1, tokens=200, enough=held(3, passed)), deadline=time.monotonic() + 1000)
    assert heard.begun.wait(SECONDS)
    assert heard.item is not None
    heard.item.deadline = time.monotonic()
    passed.set()
    assert isinstance(heard.wait().error, Expired)
    assert 1 <= len(heard.tokens) <= 3


def test_who_asks_for_little_is_not_behind_all_that_another_asks_for(model: Path) -> None:
    """Also where the tokens of all texts together are few: those that do not fit wait where callers take turns."""
    engine = Engine(model, SETTINGS.model_copy(update={"tokens": 300}))
    try:
        asked = threading.Event()
        many = [
            engine.ask(ask(seed, length=100, tokens=150, enough=held(1, asked)), caller="many") for seed in range(5)
        ]
        few = engine.ask(ask(9, length=10, tokens=5), caller="few")
        asked.set()
        few.wait()
        assert engine.ends.index(few) <= 3
        assert all(len(each.wait().tokens) == 150 for each in many)
    finally:
        engine.stop()


def test_a_prompt_that_the_graph_has_no_tokens_for_is_refused_alone(engine: Engine) -> None:
    good = engine.ask(ask(1, tokens=60))
    for wrong in ([SHAPE.vocabulary], [-1], [5, SHAPE.vocabulary + 7, 6], []):
        heard = engine.ask(Ask(np.array(wrong, np.int64), 3, frozenset(), GREEDY)).wait()
        assert isinstance(heard.error, BadInput)
    assert len(good.wait().tokens) == 60


def test_what_goes_wrong_with_one_text_is_its_own(engine: Engine) -> None:
    class Broken:
        def allowed(self) -> Any:
            raise RuntimeError("broken")

        def accept(self, token: int) -> bool:
            return False

    good = engine.ask(ask(1))
    bad = engine.ask(ask(2, grammar=Broken())).wait()
    assert bad.error is not None
    assert len(good.wait().tokens) == 24


def test_only_what_a_grammar_allows_comes(engine: Engine) -> None:
    class Even:
        """Tokens of even numbers, five of them."""

        def __init__(self) -> None:
            self.left = 5

        def allowed(self) -> Any:
            return np.full((SHAPE.vocabulary + 31) // 32, 0x55555555, np.uint32)

        def accept(self, token: int) -> bool:
            self.left -= 1
            return self.left == 0

    heard = engine.ask(ask(1, grammar=Even())).wait()
    assert len(heard.tokens) == 5
    assert all(token % 2 == 0 for token in heard.tokens)
    assert heard.reason is Reason.STOP


def test_the_likeliest_tokens_are_told(engine: Engine) -> None:
    heard = engine.ask(ask(1, top=4, tokens=3)).wait()
    assert heard.reason is Reason.LENGTH
    assert len(heard.pieces) == 3
    for piece in heard.pieces:
        assert piece["top"].shape == piece["top_logprobs"].shape == (1, 4)
        assert piece["top"][0, 0] == piece["token"][0]
        assert piece["logprob"][0] == pytest.approx(piece["top_logprobs"][0, 0], abs=1e-5)
        assert (np.diff(piece["top_logprobs"][0]) <= 0).all()


def test_two_thousand_texts_left_at_random_leave_nothing(engine: Engine) -> None:
    chance = random.Random(1)
    alive: list[Heard] = []
    for seed in range(2000):
        alive.append(engine.ask(ask(seed % 50, length=chance.randrange(1, 60), tokens=chance.randrange(1, 60))))
        if len(alive) == 32:
            alive.pop(chance.randrange(32)).owner.cancelled = True
    for each in alive:
        each.owner.cancelled = True
    for each in alive:
        each.wait()
    assert len(engine.ask(ask(1, tokens=2)).wait().tokens) == 2
    engine.rest.wait()
    assert engine.executor._slots.tokens <= SETTINGS.tokens


def test_a_graph_of_another_kind_says_what_it_lacks(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"it lacks .*attention_mask"):
        HostGraph(Sessions(Runtime(), 1).open(double(tmp_path)))


def test_runs_over_other_slots_write_into_their_own_buffers(model: Path) -> None:
    """What is bound once for some slots is not used for others."""
    graph = HostGraph(Sessions(Runtime(), 1).open(model))
    one, other = (graph.slots(slots=2, length=16) for _ in range(2))
    given = []
    for slots, seed in ((one, 1), (other, 2), (one, 1)):
        slots.held[0] = Held()
        graph.read(slots, 0, prompt(seed, 8).tolist())
        slots.held[0].tokens = prompt(seed, 8).tolist()
        given.append(graph.step(slots, [5]).copy())
    assert np.array_equal(given[0], given[2])
    assert not np.array_equal(given[0], given[1])
    first, second = (slots.cache for slots in (one, other))
    assert isinstance(first, HostCache)
    assert isinstance(second, HostCache)
    assert first.buffers[0][0, :, :8].any()
    assert second.buffers[0][0, :, :8].any()
    assert not np.array_equal(first.buffers[0], second.buffers[0])
