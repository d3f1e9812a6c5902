"""An item of many rows: in parts, with the same result, while others get their turns."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from ortmesh.errors import Cancelled, Expired, NotReady, OrtmeshError
from ortmesh.front.call import Call
from ortmesh.serving.models import Models
from ortmesh.serving.parts import HOLD_SECONDS, MOST_PARTS, Parts, Splitting
from ortmesh.serving.signature import Signature, TensorInfo
from ortmesh.serving.store import Store
from ortmesh.serving.types import Item, NoMeter, Tensors
from ortmesh.serving.warmup import Capture
from tests.serving import graphs
from tests.serving.shelf import install

X = TensorInfo("x", "FP32", np.dtype(np.float32), (-1, 2), 0)
Y = TensorInfo("y", "FP32", np.dtype(np.float32), (-1, 2), 0)
RATE = TensorInfo("rate", "FP32", np.dtype(np.float32), (1,), None, shared=True)
SIGNATURE = Signature({"x": X, "rate": RATE}, {"y": Y})


def splitting(max_rows: int = 4, ahead: int = 2, a_row: float = 0.0) -> Splitting:
    return Splitting(SIGNATURE, max_rows, ahead, lambda rows, size: a_row * rows)


def whole(rows: int, **kwargs: object) -> Item:
    owner = SimpleNamespace(cancelled=False, admitted=False)
    tensors = {"x": np.arange(2 * rows, dtype=np.float32).reshape(rows, 2), "rate": np.ones(1, np.float32)}
    return Item(tensors, answer=Capture(), owner=owner, deadline=math.inf, rows=rows, **kwargs)  # type: ignore[arg-type]


class Waiting:
    """What was submitted and has not run."""

    def __init__(self) -> None:
        self.items: list[Item] = []
        self.alone: list[tuple[Item, str]] = []
        self.refusal: OrtmeshError | None = None

    def submit(self, items: Sequence[Item]) -> None:
        if self.refusal is not None:
            raise self.refusal
        self.items += items

    def run_alone(self, item: Item, why: str) -> None:
        self.alone.append((item, why))

    def run(self, compute: Callable[[Tensors], Tensors] = lambda tensors: {"y": 2 * tensors["x"]}) -> None:
        item = self.items.pop(0)
        item.finish(compute(item.tensors))


def begun(item: Item, how: Splitting) -> Waiting:
    waiting = Waiting()
    Parts(item, how, waiting.submit, waiting.run_alone).begin()
    return waiting


def outputs_of(item: Item) -> Tensors:
    assert isinstance(item.answer, Capture)
    assert item.answer.outputs is not None
    return item.answer.outputs


def error_of(item: Item) -> BaseException | None:
    assert isinstance(item.answer, Capture)
    return item.answer.error


@pytest.mark.parametrize("rows", [5, 8, 9, 100])
def test_the_result_is_that_of_one_piece(rows: int) -> None:
    item = whole(rows)
    waiting = begun(item, splitting())
    while waiting.items:
        waiting.run()
    np.testing.assert_array_equal(outputs_of(item)["y"], 2 * item.tensors["x"])


def test_parts_may_end_in_any_order() -> None:
    item = whole(11)
    waiting = begun(item, splitting(ahead=3))
    while waiting.items:
        waiting.items.reverse()
        waiting.run()
    np.testing.assert_array_equal(outputs_of(item)["y"], 2 * item.tensors["x"])


def test_no_more_of_it_waits_than_keeps_the_executors_busy() -> None:
    """So whatever comes meanwhile has its turn after them."""
    waiting = begun(whole(100), splitting(ahead=3))
    while waiting.items:
        assert len(waiting.items) <= 3
        waiting.run()


def test_parts_are_those_of_their_item() -> None:
    item = whole(9, size=7, group="g", priority=1, caller="me", outputs=("y",))
    (first, second) = begun(item, splitting()).items
    for part in (first, second):
        assert (part.size, part.group, part.priority, part.caller, part.outputs) == (7, "g", 1, "me", ("y",))
        assert part.rows == 4
        assert part.tensors["rate"] is item.tensors["rate"]
    assert np.shares_memory(first.tensors["x"], item.tensors["x"])


def test_a_part_takes_no_longer_than_others_may_wait() -> None:
    assert splitting(max_rows=32, a_row=HOLD_SECONDS / 8).rows_each(whole(100)) == 8
    assert splitting(max_rows=32, a_row=2 * HOLD_SECONDS).rows_each(whole(10)) == 1
    assert splitting(max_rows=32, a_row=2 * HOLD_SECONDS).rows_each(whole(20 * MOST_PARTS)) == 20
    assert splitting(max_rows=32).rows_each(whole(100)) == 32, "where costs are not known"


def test_a_failed_part_ends_the_item_and_what_is_left_is_not_wanted() -> None:
    item = whole(100)
    waiting = begun(item, splitting())
    waiting.items.pop(0).fail(Expired("too late"))
    assert isinstance(error_of(item), Expired)
    (left,) = waiting.items
    assert left.cancelled
    left.fail(Cancelled("the caller left"))
    assert isinstance(error_of(item), Expired), "it ends once"


def test_a_caller_that_leaves_takes_its_parts_along() -> None:
    item = whole(100)
    waiting = begun(item, splitting())
    item.owner.cancelled = True  # type: ignore[misc]
    assert all(part.cancelled for part in waiting.items)


def test_whoever_was_admitted_once_is_known_to_be() -> None:
    item = whole(100)
    waiting = begun(item, splitting())
    waiting.items[0].owner.admitted = True
    assert item.owner.admitted
    waiting.run()
    assert waiting.items[-1].owner.admitted


def test_what_the_pile_refuses_at_first_reaches_the_caller() -> None:
    waiting = Waiting()
    waiting.refusal = NotReady("unloading")
    with pytest.raises(NotReady):
        Parts(whole(100), splitting(), waiting.submit, waiting.run_alone).begin()


def test_what_it_refuses_later_ends_the_item() -> None:
    item = whole(100)
    waiting = begun(item, splitting())
    waiting.refusal = NotReady("unloading")
    waiting.run()
    assert isinstance(error_of(item), NotReady)


def test_an_item_whose_part_has_not_its_rows_runs_in_one_piece() -> None:
    """A graph that drops rows: nobody could tell whose is whose."""
    item = whole(100)
    waiting = begun(item, splitting())
    waiting.run(lambda tensors: {"y": tensors["x"][:1]})
    waiting.run(lambda tensors: {"y": tensors["x"][:1]})
    ((alone, why),) = waiting.alone
    assert alone is item
    assert "rows" in why
    assert not item.done


def test_parts_whose_outputs_do_not_fit_together_run_in_one_piece() -> None:
    """How long an output is depends on what is in the rows: only the graph can tell for all of them."""
    item = whole(8)
    waiting = begun(item, splitting())
    waiting.run(lambda tensors: {"y": tensors["x"]})
    waiting.run(lambda tensors: {"y": tensors["x"][:, :1]})
    ((alone, why),) = waiting.alone
    assert alone is item
    assert "shape" in why


@asynccontextmanager
async def model_of(graph: Callable[[Path], Path], tmp_path: Path, **batching: object) -> AsyncIterator[Models]:
    store = Store(tmp_path / "store")
    graph(tmp_path / "made")
    install(store, tmp_path / "made", name="m", batching=batching)
    async with Models(store, "nlp", threads=1, meter=lambda *_: NoMeter()) as models:
        await models.until_loaded()
        yield models


async def test_a_model_answers_many_rows_and_few_side_by_side(tmp_path: Path, call: Call) -> None:
    async with model_of(graphs.double, tmp_path, max_rows=4) as models:
        model = models.find("m")
        many, few = np.random.default_rng(1).random((999, 4), np.float32), np.ones((1, 4), np.float32)
        answers = await asyncio.gather(model({"x": many}, call), model({"x": few}, call), model({"x": many}, call))
        for answer, asked in zip(answers, (many, few, many), strict=True):
            np.testing.assert_array_equal(answer["y"], 2 * asked)


async def test_a_graph_that_drops_rows_gives_its_own_result_for_many_of_them(tmp_path: Path, call: Call) -> None:
    """Warm-up may not see that it does; then what the graph gives for all rows at once is the answer."""
    async with model_of(graphs.compress, tmp_path, max_rows=4) as models:
        model = models.find("m")
        x = np.array([[n if n % 2 else -20] * 4 for n in range(40)], np.float32)
        answer = await model({"x": x}, call)
        np.testing.assert_array_equal(answer["y"], (await model({"x": x}, call))["y"])
        assert len(answer["y"]) < 40
        assert "one at a time" in model.reason
