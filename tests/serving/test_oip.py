"""OIP's methods against real models: tiny graphs made here, loaded by Models, called as the front would call them."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import pytest_asyncio
import tritonclient.grpc as triton
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from onnx import helper
from tritonclient.grpc._utils import _get_inference_request

import ortmesh
from ortmesh.descriptors import oip
from ortmesh.errors import BadInput, Cancelled, Expired, NotFound, OrtmeshError
from ortmesh.front.call import Call
from ortmesh.front.methods import Method
from ortmesh.front.pool import Pool
from ortmesh.serving import oip as oip_methods
from ortmesh.serving.cards import Batching, Card, TensorSpec
from ortmesh.serving.models import Models
from ortmesh.serving.oip_infer import DIRECT_BYTES
from ortmesh.serving.oip_request import MAX_ROWS
from ortmesh.serving.store import Store
from ortmesh.serving.tensors import TYPES, encode_raw
from ortmesh.serving.types import Array, NoMeter

pytestmark = pytest.mark.asyncio(loop_scope="module")

Request = oip("ModelInferRequest")
Response = oip("ModelInferResponse")


# Models


def save(folder: Path, nodes: Sequence[onnx.NodeProto], inputs: dict[str, Any], outputs: dict[str, Any]) -> None:
    """Writes a graph; tensors are given as name → (ONNX type, shape)."""
    takes, gives = (
        [helper.make_tensor_value_info(name, *described) for name, described in tensors.items()]
        for tensors in (inputs, outputs)
    )
    graph = helper.make_graph(nodes, "tiny", takes, gives)
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), folder / "model.onnx"
    )


def install(store: Store, card: Card, *graph: Any) -> None:
    with store.staging() as folder:
        save(folder, *graph)
        store.install(card, folder)


def card(name: str, **options: Any) -> Card:
    return Card(name=name, family="nlp", files={"model.onnx": None}, **options)


def identity(store: Store, name: str, element: int) -> None:
    shape = ["batch", "n"]
    node = helper.make_node("Identity", ["x"], ["y"])
    install(store, card(name), [node], {"x": (element, shape)}, {"y": (element, shape)})


FLOAT, HALF = onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16


def fill(store: Store) -> None:
    """An identity for every type; `sums`, two inputs and two outputs; `halves`, FP32 in and FP16 out; a broken one."""
    for kind in TYPES.values():
        identity(store, f"identity-{kind.name.lower()}", kind.onnx)
    pair = {"left": (FLOAT, ["batch", 3]), "right": (FLOAT, ["batch", 3])}
    sums = [
        helper.make_node("Add", ["left", "right"], ["sum"]),
        helper.make_node("Mul", ["left", "right"], ["product"]),
    ]
    results = {"sum": (FLOAT, ["batch", 3]), "product": (FLOAT, ["batch", 3])}
    install(store, card("sums", version="1", batching=Batching(max_rows=4)), sums, pair, results)
    install(store, card("sums", version="2"), sums, pair, results)
    halves = [helper.make_node("Cast", ["x"], ["half"], to=HALF), helper.make_node("Identity", ["x"], ["same"])]
    install(
        store,
        card("halves"),
        halves,
        {"x": (FLOAT, ["batch", 2])},
        {"half": (HALF, ["batch", 2]), "same": (FLOAT, ["batch", 2])},
    )
    install(
        store,
        card("scaled", inputs={"factor": TensorSpec(batch_axis=None, shared=True)}),
        [helper.make_node("Mul", ["x", "factor"], ["y"])],
        {"x": (FLOAT, ["batch", 2]), "factor": (FLOAT, [])},
        {"y": (FLOAT, ["batch", 2])},
    )
    with store.staging() as folder:
        (folder / "model.onnx").write_bytes(b"no graph")
        store.install(card("broken"), folder)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def models(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Models]:
    store = Store(tmp_path_factory.mktemp("models"))
    fill(store)
    async with Models(store, "nlp", threads=1, meter=lambda name, version: NoMeter()) as models:
        await models.until_loaded()
        yield models


@pytest.fixture(scope="module")
def methods(models: Models) -> dict[str, Method]:
    """The table's rows by their method's name."""
    return {method.path.rsplit("/", 1)[1]: method for method in oip_methods.methods(models, family="nlp")}


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    pool = Pool(2, 64 * 1024 * 1024)
    yield pool
    pool.close()


# Calling, as the front does


class Reply:
    """A direct answer, the bytes or the error; the call ends with it."""

    def __init__(self, call: Call) -> None:
        self.call = call
        self.payload: Future[bytes] = Future()

    def finish(self, payload: bytes) -> None:
        self.call.end()
        self.payload.set_result(payload)

    def fail(self, error: BaseException) -> None:
        self.call.end()
        self.payload.set_exception(error)


class Caller:
    """Calls methods by their names, in the coroutine's way or the direct one."""

    def __init__(self, methods: dict[str, Method], pool: Pool) -> None:
        self.methods = methods
        self.pool = pool

    def call(self, **options: Any) -> Call:
        return Call("/test", pool=self.pool, **options)

    async def __call__(self, name: str, request: Any) -> Any:
        call = self.call()
        try:
            answer = await self.methods[name].handler(request, call)  # type: ignore[misc]
        finally:
            call.end()
        kind = oip(name + "Response")
        return kind.FromString(answer.SerializeToString())

    def direct(self, request: Any, call: Call | None = None) -> Reply | None:
        """None when the handler leaves the request to the coroutine; raises what it refuses."""
        direct, call = self.methods["ModelInfer"].direct, call or self.call()
        assert direct is not None
        reply, answers = Reply(call), False
        try:
            answers = direct(request, call, reply)
        finally:
            if not answers:
                call.end()
        return reply if answers else None


@pytest.fixture(scope="module")
def ask(methods: dict[str, Method], pool: Pool) -> Caller:
    return Caller(methods, pool)


def raw_request(model: str, tensors: dict[str, tuple[str, Array]], **fields: Any) -> Any:
    request = Request(model_name=model, **fields)
    for name, (datatype, array) in tensors.items():
        request.inputs.add(name=name, datatype=datatype, shape=array.shape)
        request.raw_input_contents.append(encode_raw(TYPES[datatype], array))
    return request


def pair(rows: int = 1, model: str = "sums", **fields: Any) -> Any:
    """A raw request to `sums`: left counts from 0, right is 10."""
    left = np.arange(rows * 3, dtype=np.float32).reshape(rows, 3)
    return raw_request(model, {"left": ("FP32", left), "right": ("FP32", np.full_like(left, 10))}, **fields)


def typed_pair() -> Any:
    request = Request(model_name="sums")
    for name, values in (("left", [0, 1, 2]), ("right", [10, 10, 10])):
        request.inputs.add(name=name, datatype="FP32", shape=[1, 3]).contents.fp32_contents.extend(values)
    return request


def floats(payload: bytes) -> list[float]:
    return [float(value) for value in np.frombuffer(payload, np.float32)]


async def refused(ask: Caller, request: Any) -> tuple[str, str]:
    """The field and the text of the BadInput with which the request is answered."""
    with pytest.raises(BadInput) as caught:
        await ask("ModelInfer", request)
    (violation,) = caught.value.violations
    return violation.field, violation.description


# Every type through a real graph


def values(name: str) -> st.SearchStrategy[Array]:
    shapes = hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=4)
    texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
    return hnp.arrays(TYPES[name].dtype, shapes, elements=texts if name == "BYTES" else None)


@pytest.mark.parametrize("name", TYPES)
async def test_every_type_goes_through_a_model_raw(name: str, ask: Caller) -> None:
    """Bit for bit, the direct way where there is one, the coroutine's always."""
    requests: list[Any] = []

    @settings(max_examples=15)
    @given(array=values(name))
    def collect(array: Array) -> None:
        requests.append(raw_request(f"identity-{name.lower()}", {"x": (name, array)}, id="7"))

    collect()
    for request in requests:
        answers = [await ask("ModelInfer", request)]
        reply = ask.direct(request)
        assert (reply is None) == (name == "BYTES")
        if reply is not None:
            answers.append(Response.FromString(await asyncio.wrap_future(reply.payload)))
        for answer in answers:
            assert answer.raw_output_contents == request.raw_input_contents
            assert (answer.outputs[0].name, answer.outputs[0].datatype) == ("y", name)
            assert answer.outputs[0].shape == request.inputs[0].shape
            assert not answer.outputs[0].HasField("contents")
            assert (answer.model_name, answer.model_version, answer.id) == (request.model_name, "1", "7")


@pytest.mark.parametrize("name", [name for name, kind in TYPES.items() if kind.contents])
async def test_every_type_goes_through_a_model_typed(name: str, ask: Caller) -> None:
    """A typed request is answered typed; it is never direct."""
    field = TYPES[name].contents
    assert field is not None
    request = Request(model_name=f"identity-{name.lower()}", id="8")
    some = [b"a\0b", "é".encode()] if name == "BYTES" else [0, 1]
    getattr(request.inputs.add(name="x", datatype=name, shape=[2, 1]).contents, field).extend(some)
    assert ask.direct(request) is None
    answer = await ask("ModelInfer", request)
    assert list(getattr(answer.outputs[0].contents, field)) == some
    assert list(answer.outputs[0].shape) == [2, 1]
    assert not answer.raw_output_contents
    assert answer.id == "8"


# Answers


async def test_outputs_are_answered_in_the_graphs_order_unless_some_are_asked_for(ask: Caller) -> None:
    request = pair()
    assert [output.name for output in (await ask("ModelInfer", request)).outputs] == ["sum", "product"]
    request.outputs.add(name="product")
    request.outputs.add(name="sum")
    answer = await ask("ModelInfer", request)
    assert [output.name for output in answer.outputs] == ["product", "sum"]
    assert [floats(payload) for payload in answer.raw_output_contents] == [[0, 10, 20], [10, 11, 12]]
    del request.outputs[1]
    reply = ask.direct(request)
    assert reply is not None
    answer = Response.FromString(await asyncio.wrap_future(reply.payload))
    assert [floats(payload) for payload in answer.raw_output_contents] == [[0, 10, 20]]


async def test_a_typed_request_is_answered_raw_when_an_output_has_no_typed_form(ask: Caller) -> None:
    """FP16 travels raw only, and an answer is raw throughout or not at all."""
    request = Request(model_name="halves")
    request.inputs.add(name="x", datatype="FP32", shape=[1, 2]).contents.fp32_contents.extend([1.5, -2])
    answer = await ask("ModelInfer", request)
    assert [output.datatype for output in answer.outputs] == ["FP16", "FP32"]
    assert np.frombuffer(answer.raw_output_contents[0], np.float16).tolist() == [1.5, -2]
    assert floats(answer.raw_output_contents[1]) == [1.5, -2]
    request.outputs.add(name="same")
    answer = await ask("ModelInfer", request)
    assert list(answer.outputs[0].contents.fp32_contents) == [1.5, -2]


async def test_a_version_is_chosen_by_its_name(ask: Caller) -> None:
    """Without one the default answers, which is the newest; the answer says which it was."""
    assert (await ask("ModelInfer", pair())).model_version == "2"
    assert (await ask("ModelInfer", pair(model_version="1"))).model_version == "1"


async def test_parameters_are_ignored(ask: Caller) -> None:
    request = pair()
    request.parameters["priority"].int64_param = 3
    request.inputs[0].parameters["binary_data_size"].int64_param = 12
    assert (await ask("ModelInfer", request)).outputs


async def test_requests_that_pile_up_get_their_own_rows(ask: Caller) -> None:
    """Batches of several callers, some of more rows than the card's `max_rows`, are cut apart again."""
    requests = [pair(rows, model_version="1", id=str(rows)) for rows in (1, 2, 3, 1, 9, 2, 1, 1)]
    replies = [ask.direct(request) for request in requests]
    for request, reply in zip(requests, replies, strict=True):
        assert reply is not None
        answer = Response.FromString(await asyncio.wrap_future(reply.payload))
        rows = int(request.id)
        assert list(answer.outputs[0].shape) == [rows, 3]
        assert floats(answer.raw_output_contents[0]) == [value + 10 for value in range(rows * 3)]
        assert answer.id == request.id


async def test_a_shared_scalar_has_no_rows(ask: Caller) -> None:
    for factor in (2.0, 3.0):
        request = raw_request(
            "scaled",
            {"x": ("FP32", np.ones((5, 2), np.float32)), "factor": ("FP32", np.array(factor, np.float32))},
        )
        answer = await ask("ModelInfer", request)
        assert floats(answer.raw_output_contents[0]) == [factor] * 10


async def test_a_large_raw_request_is_left_to_the_pool(ask: Caller) -> None:
    array = np.arange(DIRECT_BYTES // 4 + 1, dtype=np.float32).reshape(1, -1)
    request = raw_request("identity-fp32", {"x": ("FP32", array)})
    assert ask.direct(request) is None
    answer = await ask("ModelInfer", request)
    assert answer.raw_output_contents[0] == array.tobytes()
    fits = raw_request("identity-fp32", {"x": ("FP32", array[:, :-1])})
    reply = ask.direct(fits)
    assert reply is not None
    await asyncio.wrap_future(reply.payload)


async def test_tritonclient_reads_what_it_asked_for(ask: Caller) -> None:
    """The protocol's reference client writes the request and reads the answer."""
    left = triton.InferInput("left", [2, 3], "FP32")
    left.set_data_from_numpy(np.ones((2, 3), np.float32))
    right = triton.InferInput("right", [2, 3], "FP32")
    right.set_data_from_numpy(np.full((2, 3), 4, np.float32))
    wanted = [triton.InferRequestedOutput("product")]
    request = _get_inference_request("sums", [left, right], "", "a", wanted, 0, False, False, 0, None, None)
    answer = await ask("ModelInfer", Request.FromString(request.SerializeToString()))
    theirs = triton.service_pb2.ModelInferResponse.FromString(answer.SerializeToString())
    result = triton.InferResult(theirs)
    np.testing.assert_array_equal(result.as_numpy("product"), np.full((2, 3), 4, np.float32))
    assert result.as_numpy("sum") is None


# Refusals


async def test_an_unknown_input_is_refused_with_a_near_name(ask: Caller) -> None:
    request = pair()
    request.inputs[1].name = "rigth"
    assert await refused(ask, request) == (
        "inputs[1].name",
        "'rigth' is unknown (did you mean 'right'?): expected one of 'left', 'right'",
    )


async def test_megabytes_of_a_name_are_not_repeated(ask: Caller) -> None:
    request = pair()
    request.inputs[1].name = "x" * 1_000_000
    _, text = await refused(ask, request)
    assert len(text) < 300
    request = pair()
    request.inputs[1].datatype = "x" * 1_000_000
    _, text = await refused(ask, request)
    assert len(text) < 300


async def test_an_input_that_is_missing_is_named(ask: Caller) -> None:
    request = pair()
    del request.inputs[0]
    assert await refused(ask, request) == ("inputs", "expected also 'left' FP32 [-1, 3]")
    assert await refused(ask, Request(model_name="sums")) == (
        "inputs",
        "expected also 'left' FP32 [-1, 3], 'right' FP32 [-1, 3]",
    )


async def test_an_input_given_twice_is_refused(ask: Caller) -> None:
    request = pair()
    request.inputs[1].name = "left"
    assert await refused(ask, request) == ("inputs[1].name", "'left' is given twice")


async def test_another_type_is_refused(ask: Caller) -> None:
    request = pair()
    request.inputs[1].datatype = "FP64"
    assert await refused(ask, request) == ("inputs[1].datatype", "'FP64': expected 'right' FP32 [-1, 3]")


@pytest.mark.parametrize("shape", [[3], [1, 1, 3], [1, 4], []])
async def test_another_shape_is_refused(shape: list[int], ask: Caller) -> None:
    request = pair()
    request.inputs[0].shape[:] = shape
    assert await refused(ask, request) == ("inputs[0].shape", f"{shape}: expected 'left' FP32 [-1, 3]")


async def test_a_negative_size_is_not_taken_for_a_free_one(ask: Caller) -> None:
    request = pair()
    request.inputs[0].shape[:] = [-1, 3]
    assert await refused(ask, request) == ("inputs[0].shape", "[-1, 3]: expected sizes that are not negative")


async def test_rows_that_disagree_between_inputs_are_refused(ask: Caller) -> None:
    request = pair(2)
    request.inputs[1].shape[:] = [1, 3]
    assert await refused(ask, request) == (
        "inputs[1].shape",
        "1 rows along axis 0: expected 2 as in the inputs before it",
    )


async def test_a_request_has_rows_but_not_too_many(ask: Caller) -> None:
    assert await refused(ask, pair(0)) == ("inputs[0].shape", "no rows along axis 0: expected at least 1")
    assert await refused(ask, pair(MAX_ROWS + 1)) == (
        "inputs[0].shape",
        f"{MAX_ROWS + 1} rows along axis 0: expected at most {MAX_ROWS}",
    )
    assert (await ask("ModelInfer", pair(MAX_ROWS))).outputs[0].shape[0] == MAX_ROWS


async def test_missing_and_surplus_buffers_are_refused(ask: Caller) -> None:
    request = pair()
    request.raw_input_contents.append(b"")
    field = "raw_input_contents"
    assert await refused(ask, request) == (field, "3 buffers: expected 2, one for each of `inputs`")
    del request.raw_input_contents[1:]
    assert await refused(ask, request) == (field, "1 buffers: expected 2, one for each of `inputs`")
    del request.raw_input_contents[:]
    assert await refused(ask, request) == (
        "inputs[0].contents.fp32_contents",
        "0 values: expected 3 for FP32 [1, 3]",
    )


async def test_raw_and_typed_values_together_are_refused(ask: Caller) -> None:
    request = pair()
    request.inputs[1].contents.fp32_contents.extend([1, 2, 3])
    assert await refused(ask, request) == (
        "inputs[1].contents",
        "raw_input_contents is used: expected no contents beside it",
    )


async def test_the_direct_way_refuses_as_the_coroutine_does(ask: Caller) -> None:
    request = pair()
    request.raw_input_contents[1] = bytes(11)
    with pytest.raises(BadInput, match=r"raw_input_contents\[1\]: 11 bytes: expected 12 for FP32 \[1, 3\]"):
        ask.direct(request)


async def test_wrong_bytes_are_refused_by_their_buffer(ask: Caller) -> None:
    request = pair()
    request.raw_input_contents[1] = bytes(11)
    assert await refused(ask, request) == ("raw_input_contents[1]", "11 bytes: expected 12 for FP32 [1, 3]")


async def test_wrong_typed_values_are_refused_by_their_field(ask: Caller) -> None:
    """They are found in the pool, and are the caller's error all the same."""
    request = typed_pair()
    request.inputs[1].contents.int_contents.append(1)
    assert await refused(ask, request) == (
        "inputs[1].contents.int_contents",
        "expected FP32 in fp32_contents",
    )


async def test_an_output_that_the_model_does_not_have_is_refused(ask: Caller) -> None:
    request = pair()
    request.outputs.add(name="sum")
    request.outputs.add(name="produkt")
    assert await refused(ask, request) == (
        "outputs[1].name",
        "'produkt' is unknown (did you mean 'product'?): expected one of 'sum', 'product'",
    )
    request.outputs[1].name = "sum"
    assert await refused(ask, request) == ("outputs[1].name", "'sum' is asked for twice")


@pytest.mark.parametrize(
    ("model", "version", "code"),
    [
        ("sum", "", "NOT_FOUND"),
        ("sums", "9", "NOT_FOUND"),
        ("", "", "NOT_FOUND"),
        ("broken", "", "FAILED_PRECONDITION"),
    ],
)
async def test_a_model_that_is_not_served_is_told_before_its_tensors_are_read(
    model: str, version: str, code: str, ask: Caller
) -> None:
    request = pair(model=model, model_version=version)
    for way in (lambda: ask("ModelInfer", request), lambda: asyncio.to_thread(ask.direct, request)):
        with pytest.raises(OrtmeshError) as caught:
            await way()
        assert caught.value.code == code


# Calls that end early


async def test_a_call_that_is_over_is_not_computed(ask: Caller) -> None:
    """The direct way answers with why; the pool does not even decode."""
    gone = ask.call()
    gone.cancel()
    reply = ask.direct(pair(), gone)
    assert reply is not None
    with pytest.raises(Cancelled):
        await asyncio.wrap_future(reply.payload)
    late = ask.call(deadline=-math.inf)
    with pytest.raises(Expired):
        await ask.methods["ModelInfer"].handler(typed_pair(), late)  # type: ignore[misc]


@pytest.mark.parametrize("wrong", [False, True])
async def test_a_call_gives_its_lease_back(wrong: bool, ask: Caller, models: Models) -> None:
    """Whether it was answered or refused: a version whose calls have ended can be unloaded."""
    model = models.find("sums", "1")
    request = pair(model_version="1")
    if wrong:
        request.raw_input_contents.pop()
        with pytest.raises(BadInput):
            ask.direct(request)
    else:
        reply = ask.direct(request)
        assert reply is not None
        await asyncio.wrap_future(reply.payload)
    assert model._leases == 0


# The other methods


async def test_the_server_is_live_and_says_what_it_is(ask: Caller) -> None:
    assert (await ask("ServerLive", oip("ServerLiveRequest")())).live
    answer = await ask("ServerMetadata", oip("ServerMetadataRequest")())
    assert (answer.name, answer.version) == ("ortmesh-nlp", ortmesh.__version__)


async def test_the_server_is_ready_with_a_ready_model_until_it_drains(
    ask: Caller, models: Models, pool: Pool, tmp_path: Path
) -> None:
    request = oip("ServerReadyRequest")()
    assert (await ask("ServerReady", request)).ready
    draining = oip_methods.methods(models, family="nlp", accepting=lambda: False)
    assert not (
        await Caller({each.path.rsplit("/")[-1]: each for each in draining}, pool)("ServerReady", request)
    ).ready
    async with Models(Store(tmp_path), "nlp", threads=1, meter=lambda name, version: NoMeter()) as none:
        empty = oip_methods.methods(none, family="nlp")
        assert not (
            await Caller({each.path.rsplit("/")[-1]: each for each in empty}, pool)("ServerReady", request)
        ).ready


@pytest.mark.parametrize(
    ("name", "version", "ready"),
    [("sums", "", True), ("sums", "1", True), ("sums", "3", False), ("none", "", False), ("broken", "", False)],
)
async def test_a_model_that_is_not_served_is_not_ready(name: str, version: str, ready: bool, ask: Caller) -> None:
    assert (await ask("ModelReady", oip("ModelReadyRequest")(name=name, version=version))).ready == ready


async def test_metadata_says_what_a_model_takes_and_gives(ask: Caller) -> None:
    answer = await ask("ModelMetadata", oip("ModelMetadataRequest")(name="sums", version="1"))
    assert (answer.name, list(answer.versions), answer.platform) == ("sums", ["1", "2"], "onnxruntime_onnx")
    described = [(each.name, each.datatype, list(each.shape)) for each in [*answer.inputs, *answer.outputs]]
    assert described == [(name, "FP32", [-1, 3]) for name in ("left", "right", "sum", "product")]
    with pytest.raises(NotFound, match="sums"):
        await ask("ModelMetadata", oip("ModelMetadataRequest")(name="sumz"))


async def test_the_index_lists_every_version_with_its_state(ask: Caller) -> None:
    answer = await ask("RepositoryIndex", oip("RepositoryIndexRequest")())
    states = {(each.name, each.version): (each.state, each.reason) for each in answer.models}
    assert states["sums", "1"] == states["sums", "2"] == ("READY", "")
    assert states["broken", "1"][0] == "UNAVAILABLE"
    assert states["broken", "1"][1]
    answer = await ask("RepositoryIndex", oip("RepositoryIndexRequest")(ready=True))
    assert {each.name for each in answer.models} == {name for name, _ in states} - {"broken"}
    with pytest.raises(BadInput, match="repository_name"):
        await ask("RepositoryIndex", oip("RepositoryIndexRequest")(repository_name="other"))
