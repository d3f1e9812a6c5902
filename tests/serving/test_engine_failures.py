"""What becomes of texts when a run fails, when the engine must end, and where its graph allows less than others."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import NodeProto, helper, numpy_helper

from ortmesh.errors import ExecutorFailed, NotReady
from ortmesh.serving.executor.engine import admission
from ortmesh.serving.executor.engine import engine as engines
from ortmesh.serving.executor.engine import graph as graphs
from ortmesh.serving.executor.engine.ask import Ask
from ortmesh.serving.executor.engine.engine import FAILURES
from ortmesh.serving.executor.engine.graph import HostGraph
from ortmesh.serving.executor.engine.probe import DEPENDENT, Found
from ortmesh.serving.executor.engine.slots import Ids
from tests.nlp.tiny_llama import SHAPE, write_tiny_llama
from tests.serving.rest import SECONDS
from tests.serving.test_engine import GREEDY, SETTINGS, Engine, Heard, held, prompt

Start = Callable[..., Engine]
POISON = SHAPE.vocabulary - 1
"""The token with which a run of the poisoned graph fails. It never comes of itself."""
MIDDLE, LAST = 5, -1
"""Places in a prompt: one that is read by itself, and one that is computed in a step with all others."""
SMALL = SETTINGS.model_copy(update={"tokens": 200})
ALONE = SETTINGS.model_copy(update={"slots": 1})


def rewired(path: Path, nodes: Sequence[NodeProto], **constants: Any) -> Path:
    """The tiny model with other logits, which the nodes make of `given`."""
    folder = path.parent / "rewired"
    folder.mkdir()
    model = onnx.load(path)
    for node in model.graph.node:
        node.output[:] = ["given" if name == "logits" else name for name in node.output]
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    onnx.save(model, folder / "model.onnx")
    return folder / "model.onnx"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_llama(tmp_path_factory.mktemp("tiny")) / "model.onnx"


@pytest.fixture(scope="module")
def poisoned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A graph that looks each token up in a table which lacks one."""
    path = write_tiny_llama(tmp_path_factory.mktemp("poisoned")) / "model.onnx"
    never = np.zeros(SHAPE.vocabulary, np.float32)
    never[POISON] = -1e9
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["zeros"]),  # [rows, tokens]
        helper.make_node("ReduceSum", ["zeros", "tokens"], ["zero"], keepdims=1),  # [rows, 1]
        helper.make_node("Unsqueeze", ["zero", "tokens"], ["nothing"]),  # [rows, 1, 1]
        helper.make_node("Sum", ["given", "nothing", "never"], ["logits"]),
    ]
    table = np.zeros(POISON, np.float32)
    return rewired(path, nodes, table=table, tokens=np.array([1], np.int64), never=never)


@pytest.fixture(scope="module")
def dependent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A graph that adds the mean of all rows to each."""
    path = write_tiny_llama(tmp_path_factory.mktemp("dependent")) / "model.onnx"
    nodes = [
        helper.make_node("ReduceMean", ["given", "rows"], ["mean"], keepdims=1),
        helper.make_node("Add", ["given", "mean"], ["logits"]),
    ]
    return rewired(path, nodes, rows=np.array([0], np.int64))


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts engines, which are stopped in the end."""
    running: list[Engine] = []

    def started(*arguments: Any, **more: Any) -> Engine:
        running.append(Engine(*arguments, **more))
        return running[-1]

    yield started
    for each in running:
        each.stop()


def ids(seed: int, length: int = 20, poison: int | None = None) -> Ids:
    made: Ids = np.minimum(prompt(seed, length), POISON - 1)
    if poison is not None:
        made[poison] = POISON
    return made


def asked(seed: int, *, tokens: int = 24, poison: int | None = None, **more: Any) -> Ask:
    return Ask(ids(seed, poison=poison), tokens, frozenset(), GREEDY, **more)


def failed(heard: Heard) -> bool:
    """True when it ended by an error that its caller has not made."""
    return isinstance(heard.wait().error, ExecutorFailed)


def test_a_step_that_fails_ends_all_in_progress_and_later_texts_are_generated(start: Start, poisoned: Path) -> None:
    """Nothing of what was there is used again."""
    engine, good, came = start(poisoned), asked(1), threading.Event()
    before = engine.ask(good).wait()
    beside = engine.ask(replace(good, enough=held(2, came)))
    assert beside.begun.wait(SECONDS)
    bad = engine.ask(asked(2, poison=LAST))
    came.set()
    assert failed(bad)
    assert failed(beside)
    after = engine.ask(good).wait()
    assert (after.tokens, after.cached) == (before.tokens, 0)
    assert engine.ask(good).wait().cached == 19
    engine.rest.wait()
    assert engine.rest.reasons == ["length", "error", "error", "length", "length"]


@pytest.mark.parametrize("poison", [MIDDLE, LAST])
def test_failures_without_a_token_between_them_break_the_executor(start: Start, poisoned: Path, poison: int) -> None:
    """Whoever is in progress ends then; the one that waits for tokens stays in the pile, for the next executor. That
    prompts are read before is no sign that texts can be generated."""
    engine = start(poisoned, SMALL)
    for seed in range(FAILURES - 1):
        assert failed(engine.ask(asked(seed, poison=poison)))
        engine.rest.wait()
    *heard, waits = engine.ask_all([asked(8, poison=poison), asked(7), asked(9, tokens=170)])
    assert all(map(failed, heard))
    engine.thread.join(SECONDS)
    assert not waits.ended.is_set()
    assert len(engine.pile) == 1
    assert engine.broken is not None
    assert not any(each.tokens for each in heard)
    assert engine.rest.reasons == ["error"] * (FAILURES + 1)
    assert engine.rest.state == (0, 0, 0)


@pytest.mark.parametrize("poison", [MIDDLE, LAST])
def test_failures_with_tokens_between_them_break_nothing(start: Start, poisoned: Path, poison: int) -> None:
    engine = start(poisoned)
    for seed in range(2 * FAILURES):
        assert failed(engine.ask(asked(seed, poison=poison)))
        assert len(engine.ask(asked(seed, tokens=1)).wait().tokens) == 1
    assert engine.broken is None


def test_a_prompt_that_fails_ends_alone(start: Start, poisoned: Path) -> None:
    """Also one that others waited for, which begin alike: another is read on from there."""
    came = threading.Event()
    shared, bad = ids(1, 100), np.concatenate([ids(1, 100), ids(2, 10, poison=MIDDLE)])
    asks = [Ask(np.concatenate([shared, ids(seed, 30)]), 16, frozenset(), GREEDY) for seed in range(3, 6)]
    growing = asked(6, tokens=60)
    alone = [start(poisoned, ALONE).ask(each).wait().tokens for each in (growing, *asks)]
    engine = start(poisoned)
    beside = engine.ask(replace(growing, enough=held(2, came)))
    assert beside.begun.wait(SECONDS)
    first, *others = engine.ask_all([Ask(bad, 16, frozenset(), GREEDY), *asks])
    came.set()
    assert failed(first)
    assert [each.wait().tokens for each in (beside, *others)] == alone
    assert sorted(each.cached for each in others) == [64, 100, 100]


def test_an_interruption_ends_all_texts_and_the_engine(start: Start, tiny: Path) -> None:
    engine, came = start(tiny, SMALL), threading.Event()
    *heard, waits = engine.ask_all(
        [asked(1, tokens=100, enough=held(2, came)), asked(2, tokens=40), asked(3, tokens=150)]
    )
    assert heard[0].begun.wait(SECONDS)
    engine.executor.interrupt()
    came.set()
    engine.thread.join(SECONDS)
    assert not engine.thread.is_alive()
    assert engine.broken is None
    assert all(isinstance(each.wait().error, NotReady) for each in heard)
    assert all(len(each.tokens) <= 2 for each in heard)
    assert not waits.ended.is_set(), "it waits for tokens in the pile, which ends it when it is closed"
    engine.pile.close(NotReady("the model was unloaded"))
    assert isinstance(waits.wait().error, NotReady)
    assert engine.rest.state == (0, 0, 0)


def test_texts_that_depend_on_each_other_are_generated_one_at_a_time(start: Start, dependent: Path) -> None:
    """And nothing is kept, since it would differ by how it was read."""
    asks = [asked(seed, tokens=12) for seed in (1, 2, 1, 3)]
    alone = [start(dependent, ALONE, warm_up=True).ask(each).wait().tokens for each in asks]
    engine = start(dependent, warm_up=True)
    assert engine.found == DEPENDENT
    heard = engine.ask_all(asks)
    assert [each.wait().tokens for each in heard] == alone
    assert not any(each.cached for each in heard)
    engine.rest.wait()
    assert (engine.rest.most, engine.rest.most_kept) == (1, 0)


@pytest.mark.parametrize("rows", [1, 2])
def test_a_text_alone_has_an_idle_row_only_where_that_is_needed(
    start: Start, tiny: Path, monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    steps: list[int] = []
    fill = graphs._Step.fill

    def found(graph: HostGraph, slots: Any) -> Found:
        return Found(rows)

    def counted(step: graphs._Step, tokens: Sequence[int], lengths: Sequence[int]) -> None:
        steps.append(len(lengths))
        fill(step, tokens, lengths)

    monkeypatch.setattr(engines, "probe", found)
    monkeypatch.setattr(graphs._Step, "fill", counted)
    engine = start(tiny, warm_up=True)
    texts = [engine.ask(asked(1, tokens=5)).wait().tokens for _ in range(2)]
    assert steps == [rows] * 10
    assert texts[0] == texts[1]


def test_what_is_kept_is_given_back_when_nothing_comes_for_long(
    start: Start, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = start(tiny)
    before = [engine.ask(asked(1)).wait() for _ in range(2)]
    assert [each.cached for each in before] == [0, 19]
    engine.rest.wait()
    assert engine.rest.state == (0, 0, 19)
    monkeypatch.setattr(admission, "KEPT_SECONDS", 0.01)
    engine.ask(asked(2, tokens=1)).wait()  # it waits for that long from the next time on
    engine.rest.wait_empty()
    after = engine.ask(asked(1)).wait()
    assert (after.tokens, after.cached) == (before[0].tokens, 0)
