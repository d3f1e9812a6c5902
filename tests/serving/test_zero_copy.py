"""Copies: a tensor is read where its message lies, and an output is copied once, into its answer."""

from __future__ import annotations

import math
import tracemalloc
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytest_asyncio
from onnx import helper

from ortmesh.descriptors import oip
from ortmesh.front.admission import Admission
from ortmesh.front.call import Call
from ortmesh.front.exchange import Route
from ortmesh.front.observer import NoTelemetry
from ortmesh.front.pool import Pool
from ortmesh.serving import oip as oip_methods
from ortmesh.serving.cards import Card
from ortmesh.serving.executor.interruptible import InterruptibleSession
from ortmesh.serving.executor.session import SessionExecutor
from ortmesh.serving.executor.sessions import Sessions
from ortmesh.serving.executor.stack import split, stack
from ortmesh.serving.loaded import rows_of
from ortmesh.serving.models import Models
from ortmesh.serving.oip_request import declared, tensors_of
from ortmesh.serving.oip_response import encode
from ortmesh.serving.parts import Parts, Splitting
from ortmesh.serving.resident import trim
from ortmesh.serving.signature import Signature, signature_of
from ortmesh.serving.store import Store
from ortmesh.serving.tensors import TYPES
from ortmesh.serving.types import Array, Item, NoMeter, Tensors
from ortmesh.serving.warmup import Capture
from tests.serving import graphs
from tests.serving.shelf import install

COLUMNS = 10_000_000
NBYTES = 4 * COLUMNS
"""40 MB: beyond 32 the C library never takes memory that it kept, so that each copy is seen."""
LITTLE = NBYTES / 8


def first_column(folder: Path) -> Path:
    """y [n, 1] = what x [n, m] begins with: it needs no memory of its own."""
    weights = {"start": np.array([0], np.int64), "end": np.array([1], np.int64), "axis": np.array([1], np.int64)}
    nodes = [helper.make_node("Slice", ["x", "start", "end", "axis"], ["y"])]
    return graphs.write(folder, nodes, [graphs.tensor("x", ["n", "m"])], [graphs.tensor("y", ["n", 1])], weights)


def negative(folder: Path) -> Path:
    """y = -x, of as many bytes."""
    nodes = [helper.make_node("Neg", ["x"], ["y"])]
    return graphs.write(folder, nodes, [graphs.tensor("x", ["n", "m"])], [graphs.tensor("y", ["n", "m"])], {})


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def models(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Models]:
    folder = tmp_path_factory.mktemp("copies")
    store = Store(folder / "store")
    for graph in (first_column, negative):
        graph(folder / graph.__name__)
        install(store, folder / graph.__name__, name=graph.__name__.replace("_", "-"))
    async with Models(store, "nlp", threads=1, meter=lambda *_: NoMeter()) as models:
        await models.until_loaded()
        yield models


@pytest.fixture(scope="module")
def route(models: Models) -> Route:
    """What both adapters read ModelInfer's requests with."""
    (infer,) = (each for each in oip_methods.methods(models, family="nlp") if each.path.endswith("/ModelInfer"))
    return Route(infer, Admission(8, 1 << 30, 8), NoTelemetry())


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    pool = Pool(1, 1 << 30)
    yield pool
    pool.close()


@pytest.fixture
def fed(monkeypatch: pytest.MonkeyPatch) -> list[Mapping[str, Array]]:
    """The large tensors that sessions are fed with from now on; small ones are samples, run while nothing waits."""
    seen: list[Mapping[str, Array]] = []
    run = InterruptibleSession.run

    def noticed(self: InterruptibleSession, outputs: Sequence[str], feeds: Mapping[str, Array]) -> list[Array]:
        if feeds["x"].nbytes > LITTLE:
            seen.append(feeds)
        return run(self, outputs, feeds)

    monkeypatch.setattr(InterruptibleSession, "run", noticed)
    return seen


def message(model: str, x: Array, *, off: int = 0) -> bytes:
    """A request as it comes off the wire, whose tensor begins at an address of four times something, and `off`."""
    request: Any = oip("ModelInferRequest")(model_name=model)
    request.inputs.add(name="x", datatype="FP32", shape=x.shape)
    request.raw_input_contents.append(x.tobytes())
    for length in range(1, 9):
        request.id = "i" * length
        payload: bytes = request.SerializeToString()
        if (address(np.frombuffer(payload, np.uint8)) + len(payload) - x.nbytes) % 8 == off:
            return payload
    raise AssertionError("an id of any length shifts the tensor")


def address(array: Array) -> int:
    return int(array.ctypes.data)


def inside(array: Array, payload: bytes) -> bool:
    """Whether the array's memory is the message's."""
    start = address(np.frombuffer(payload, np.uint8))
    return start <= address(array) and address(array) + array.nbytes <= start + len(payload)


class Taken:
    """How much memory something took at its highest, beyond what there was before."""

    python = 0
    """Of Python and NumPy, as they tell tracemalloc."""
    resident = 0
    """Of the whole process, ONNX Runtime too, as the system saw it."""


@contextmanager
def taking() -> Iterator[Taken]:
    trim()
    Path("/proc/self/clear_refs").write_text("5")  # the peak becomes what is held now
    before, taken = _peak(), Taken()
    tracemalloc.start()
    try:
        yield taken
        taken.python = tracemalloc.get_traced_memory()[1]
        taken.resident = _peak() - before
    finally:
        tracemalloc.stop()


def _peak() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


async def answered(route: Route, payload: bytes, pool: Pool) -> Any:
    call = Call("/test", pool=pool)
    try:
        answer = await route.method.handler(route.parse(payload), call)  # type: ignore[misc]
    finally:
        call.end()
    return answer.SerializeToString()


# The way in


@pytest.mark.asyncio(loop_scope="module")
async def test_a_tensor_reaches_the_session_without_a_copy(
    route: Route, pool: Pool, fed: list[Mapping[str, Array]]
) -> None:
    payload = message("first-column", np.full((1, COLUMNS), 7, np.float32))
    with taking() as taken:
        answer = await answered(route, payload, pool)
    assert inside(fed[0]["x"], payload)
    assert np.shares_memory(fed[0]["x"], np.frombuffer(payload, np.uint8))
    assert taken.python < LITTLE
    assert taken.resident < LITTLE
    assert np.frombuffer(oip("ModelInferResponse").FromString(answer).raw_output_contents[0], np.float32) == [7]


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("off", [1, 2, 3])
async def test_a_tensor_at_an_odd_address_is_copied_once(
    route: Route, pool: Pool, fed: list[Mapping[str, Array]], off: int
) -> None:
    """ONNX Runtime takes up to eight times as long for some sums over it, and comes to other last digits."""
    payload = message("first-column", np.full((1, COLUMNS), 7, np.float32), off=off)
    with taking() as taken:
        await answered(route, payload, pool)
    assert fed[0]["x"].flags.aligned
    assert (fed[0]["x"] == 7).all()
    assert NBYTES <= taken.python < NBYTES + LITTLE
    assert taken.resident < NBYTES + LITTLE


class Batched:
    """An executor on its own, whose items one test puts together."""

    def __init__(self, path: Path, limit: int) -> None:
        card = Card(name="test", family="nlp")
        session = Sessions(card.runtime, threads=1).open(path)
        self.signature: Signature = signature_of(session.get_inputs(), session.get_outputs(), card)
        self.executor = SessionExecutor(session, self.signature, limit=limit, meter=NoMeter())

    def item(self, tensors: Tensors) -> Item:
        answer = Capture()
        return Item(tensors, answer=answer, owner=answer, deadline=math.inf, rows=rows_of(tensors, self.signature))

    def items(self, route: Route, payloads: Sequence[bytes]) -> list[Item]:
        requests = [route.parse(payload) for payload in payloads]
        return [self.item(tensors_of(each, declared(each, self.signature.inputs))) for each in requests]


def test_items_of_a_batch_are_copied_once_each(tmp_path: Path, route: Route, fed: list[Mapping[str, Array]]) -> None:
    batched = Batched(first_column(tmp_path), limit=8)
    rows = [np.full((1, COLUMNS), number, np.float32) for number in range(3)]
    payloads = [message("first-column", row, off=number) for number, row in enumerate(rows)]
    del rows
    with taking() as taken:
        items = batched.items(route, payloads)
        batched.executor.run(items)
    assert [float(item.answer.outputs["y"][0, 0]) for item in items] == [0, 1, 2]  # type: ignore[attr-defined]
    assert fed[0]["x"].shape == (3, COLUMNS)
    assert 3 * NBYTES <= taken.python < 3 * NBYTES + LITTLE
    assert taken.resident < 3 * NBYTES + LITTLE


def test_an_item_of_more_rows_than_a_batch_is_not_copied(
    tmp_path: Path, route: Route, fed: list[Mapping[str, Array]]
) -> None:
    batched = Batched(first_column(tmp_path), limit=2)
    payload = message("first-column", np.arange(COLUMNS, dtype=np.float32).reshape(5, -1))
    with taking() as taken:
        (item,) = batched.items(route, [payload])
        waiting: list[Item] = []
        splitting = Splitting(batched.signature, 2, 1, lambda rows, size: 0.0)
        Parts(item, splitting, waiting.extend, lambda item, why: None).begin()
        while waiting:
            batched.executor.run([waiting.pop()])
    assert [feeds["x"].shape[0] for feeds in fed] == [2, 2, 1]
    assert all(inside(feeds["x"], payload) for feeds in fed)
    assert taken.python < LITTLE
    assert taken.resident < LITTLE


def test_padding_copies_each_item_once() -> None:
    """Into one array that was made for all."""
    signature = _padded()
    batched = [_item({"x": np.ones((1, COLUMNS // (number + 1)), np.float32)}) for number in range(2)]
    with taking() as taken:
        feeds, _ = stack(batched, signature)
    assert feeds["x"].shape == (2, COLUMNS)
    assert taken.python < 2 * NBYTES + LITTLE


def _padded() -> Signature:
    class Node:
        name, type, shape = "x", "tensor(float)", ("n", "m")

    return signature_of([Node()], [], Card.model_validate({**CARD, "inputs": {"x": {"pad_axis": 1}}}))


CARD = {"name": "test", "family": "nlp"}


def _item(tensors: Tensors) -> Item:
    answer = Capture()
    return Item(tensors, answer=answer, owner=answer, deadline=math.inf)


# The way back


@pytest.mark.asyncio(loop_scope="module")
async def test_an_output_is_copied_once_into_its_answer(route: Route, pool: Pool) -> None:
    """40 MB are ONNX Runtime's output, 40 the answer."""
    payload = message("negative", np.full((1, COLUMNS), 7, np.float32))
    with taking() as taken:
        answer = await answered(route, payload, pool)
    assert (np.frombuffer(answer, np.float32, COLUMNS, len(answer) - NBYTES) == -7).all()
    assert NBYTES <= taken.python < NBYTES + LITTLE
    assert taken.resident < 2 * NBYTES + LITTLE


def test_the_pieces_of_a_batch_are_views_that_are_copied_once(tmp_path: Path) -> None:
    batched = Batched(negative(tmp_path), limit=8)
    outputs = {"y": np.arange(2 * COLUMNS, dtype=np.float32).reshape(2, COLUMNS)}
    items = [batched.item({"x": np.zeros((1, 1), np.float32)}) for _ in range(2)]
    with taking() as taken:
        pieces = split(outputs, items, batched.signature)
        answer = encode(("m", "1"), list(batched.signature.outputs.values()), pieces[1], request_id="", raw=True)
    assert all(np.shares_memory(piece["y"], outputs["y"]) for piece in pieces)
    assert answer.endswith(outputs["y"][1].tobytes())
    assert taken.python < NBYTES + LITTLE + NBYTES / 1000


@pytest.mark.parametrize("datatype", ["BOOL", "INT8", "FP16", "BF16", "FP32", "INT64"])
@pytest.mark.parametrize("turned", [False, True])
def test_a_large_output_of_any_type_and_layout_is_answered_as_it_is(datatype: str, turned: bool) -> None:
    (info,) = _output(datatype)
    values = np.random.default_rng(0).integers(0, 2, (300, 400)).astype(info.dtype)
    values = values.T if turned else values
    for request_id in ("", "i", "ii"):
        answer = encode(("m", "1"), [info], {"y": values}, request_id=request_id, raw=True)
        read = oip("ModelInferResponse").FromString(answer)
        assert read.id == request_id
        assert list(read.outputs[0].shape) == list(values.shape)
        assert read.raw_output_contents[0] == values.tobytes()


def _output(datatype: str) -> list[Any]:
    class Node:
        name, type, shape = "y", TYPES[datatype].ort, ("n", "m")

    return list(signature_of([], [Node()], Card.model_validate(CARD)).outputs.values())
