"""However a prompt is cut into chunks on a CPU, its keys and values are the same numbers, bit by bit."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ortmesh.serving.cards import Runtime
from ortmesh.serving.executor.engine.ask import TextItem
from ortmesh.serving.executor.engine.cache import HostCache
from ortmesh.serving.executor.engine.graph import BLOCK, HostGraph
from ortmesh.serving.executor.engine.prefill import Prefill
from ortmesh.serving.executor.engine.slots import LEAST_READ, Held, Slots
from ortmesh.serving.executor.engine.text import Text
from ortmesh.serving.executor.sessions import Sessions
from ortmesh.serving.types import Array
from tests.nlp.tiny_llama import SHAPE, write_tiny_llama
from tests.serving.test_engine import Heard, ask

LENGTH = 300
"""Tokens of the text, of which all prompts are a beginning."""


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> HostGraph:
    folder = write_tiny_llama(tmp_path_factory.mktemp("tiny"))
    return HostGraph(Sessions(Runtime(), 1).open(folder / "model.onnx"))


def text_of(slots: Slots, slot: int, seed: int, length: int) -> Text:
    """One in a slot of which nothing is there."""
    heard = Heard()
    item = TextItem(ask(seed, length=length), answer=heard, owner=heard.owner, deadline=math.inf)
    slots.held[slot] = Held()
    return Text(item, slots.held[slot], 0, LEAST_READ)


def chunks(graph: HostGraph, slots: Slots, slot: int, text: Text, *, alone: bool) -> list[int]:
    """Reads its prompt, while another text grows if it is not alone: the tokens of each chunk."""
    prefill, found = Prefill(slots, graph), list[int]()
    texts = [text] if alone else [text, text_of(slots, 2, 0, 1)]
    while (turn := prefill.next(texts)) is not None:
        graph.read(slots, slot, turn[1])
        text.read(len(turn[1]))
        found.append(len(turn[1]))
    return found


def written(slots: Slots, slot: int, tokens: int) -> list[Array]:
    assert isinstance(slots.cache, HostCache)
    return [buffer[slot, :, :tokens] for buffer in slots.cache.buffers]


@pytest.mark.parametrize("seed", range(3))
def test_a_prompt_of_any_length_has_the_keys_and_values_of_a_longer_one(graph: HostGraph, seed: int) -> None:
    """Else a text would depend on what of its prompt was there before."""
    slots = graph.slots(slots=3, length=LENGTH)
    chunks(graph, slots, 0, text_of(slots, 0, seed, LENGTH), alone=True)
    for length in range(LEAST_READ + 1, LENGTH):
        for alone in (True, False):
            chunks(graph, slots, 1, text_of(slots, 1, seed, length), alone=alone)
            read = written(slots, 1, length - 1)
            for wanted, found in zip(written(slots, 0, length - 1), read, strict=True):
                np.testing.assert_array_equal(found, wanted, err_msg=f"of {length} tokens")


@pytest.mark.parametrize("alone", [True, False])
def test_all_of_a_prompt_is_read_and_no_chunk_ends_with_a_block_of_one(graph: HostGraph, alone: bool) -> None:
    slots = graph.slots(slots=3, length=SHAPE.positions)
    for length in range(LEAST_READ + 1, SHAPE.positions, 3):
        found = chunks(graph, slots, 1, text_of(slots, 1, 1, length), alone=alone)
        assert sum(found) == length - 1
        assert not any(chunk % BLOCK == 1 for chunk in found)
