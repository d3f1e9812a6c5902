"""A card that wants longer texts than the graph can have is refused when it is loaded, with how long they may be."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import NodeProto, TensorProto, helper, numpy_helper

from ortmesh.serving.cards import Card, EngineSettings, Runtime
from ortmesh.serving.executor.engine.ask import Reason
from ortmesh.serving.executor.engine.engine import open_graph
from ortmesh.serving.executor.engine.reach import OutOfReach, must_reach
from ortmesh.serving.executor.sessions import Sessions
from ortmesh.serving.loaded import load
from ortmesh.serving.types import NoMeter
from tests.nlp.tiny_llama import SHAPE, write_tiny_llama
from tests.serving.test_device_graph import Device
from tests.serving.test_engine import Engine, ask

LONGEST = SHAPE.positions
EXPECTED = f"runtime.engine.context: {{}} tokens: expected at most {LONGEST}, "


def settings(context: int) -> EngineSettings:
    return EngineSettings(slots=2, context=context, tokens=2 * context)


def rebuilt(path: Path, nodes: Sequence[NodeProto], renamed: dict[str, str]) -> None:
    """Nodes before all others, and other names for what those read."""
    model = onnx.load(path)
    for node in model.graph.node:
        node.input[:] = [renamed.get(name, name) for name in node.input]
    others = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*nodes, *others])
    model.graph.initializer.append(numpy_helper.from_array(np.zeros(1, np.float32), "zero"))
    onnx.save(model, path)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_llama(tmp_path_factory.mktemp("tiny")) / "model.onnx"


@pytest.fixture(scope="module")
def computing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its tables come out of the run: no initializer says how long they are."""
    path = write_tiny_llama(tmp_path_factory.mktemp("computing")) / "model.onnx"
    nodes = [
        helper.make_node("ReduceMax", ["attention_mask"], ["ones"], keepdims=0),
        helper.make_node("Cast", ["ones"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["floats", "zero"], ["nothing"]),
        helper.make_node("Add", ["cos_cache", "nothing"], ["cosines"]),
        helper.make_node("Add", ["sin_cache", "nothing"], ["sines"]),
    ]
    rebuilt(path, nodes, {"cos_cache": "cosines", "sin_cache": "sines"})
    return path


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """It looks tokens up in a table that has none of them."""
    path = write_tiny_llama(tmp_path_factory.mktemp("broken")) / "model.onnx"
    nodes = [
        helper.make_node("Gather", ["zero", "attention_mask"], ["floats"]),
        helper.make_node("Cast", ["floats"], ["whole"], to=TensorProto.INT64),
        helper.make_node("Add", ["attention_mask", "whole"], ["mask"]),
    ]
    rebuilt(path, nodes, {"attention_mask": "mask"})
    return path


@pytest.fixture(params=[False, True], ids=["cpu", "device"])
def sessions(request: pytest.FixtureRequest) -> Sessions:
    return Device() if request.param else Sessions(Runtime(), 1)


@pytest.mark.parametrize("context", [LONGEST + 1, 600, 20_000])
def test_a_longer_context_is_refused_with_the_longest_that_there_can_be(
    model: Path, sessions: Sessions, context: int
) -> None:
    with pytest.raises(OutOfReach, match=EXPECTED.format(context)):
        Engine(model, settings(context), sessions=sessions, warm_up=True)


def test_so_is_one_whose_tables_are_computed(computing: Path, sessions: Sessions) -> None:
    with pytest.raises(OutOfReach, match=EXPECTED.format(600)):
        Engine(computing, settings(600), sessions=sessions, warm_up=True)


def test_a_model_that_is_loaded_says_why_it_is_not_served(model: Path) -> None:
    card = Card(name="tiny", family="nlp", runtime=Runtime(engine=settings(2048)))
    with pytest.raises(OutOfReach, match=EXPECTED.format(2048)):
        load(card, model.parent, 1, NoMeter())


def test_a_text_ends_where_the_tables_do(model: Path, sessions: Sessions) -> None:
    """With a context of all that they have."""
    engine = Engine(model, settings(LONGEST), sessions=sessions, warm_up=True)
    heard = engine.ask(ask(1, length=LONGEST - 5, tokens=5)).wait()
    engine.stop()
    assert (heard.reason, len(heard.tokens)) == (Reason.LENGTH, 5)


def test_what_fails_at_every_place_is_told_as_it_is(broken: Path, sessions: Sessions) -> None:
    """A shorter context would not help."""
    graph = open_graph(sessions.open(broken))
    with pytest.raises(RuntimeError, match="out of data bounds"):
        must_reach(graph, graph.slots(slots=2, length=64))
