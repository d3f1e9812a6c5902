"""Bad tensor calls at every door: each is refused by its field, at once, and no neighbour notices."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from onnx import TensorProto, helper

from ortmesh.client import Client
from ortmesh.descriptors import OIP_SERVICE, oip
from ortmesh.serving.add import add
from ortmesh.serving.store import Store
from tests.mesh.bad import client, expect_refusal, send, unharmed, until_served
from tests.mesh.conftest import Door, RunningMesh
from tests.serving import graphs
from tests.serving.oip.calls import raw_request

INVALID = grpc.StatusCode.INVALID_ARGUMENT
MODEL = "mixed"
TYPES = {"x": TensorProto.FLOAT, "small": TensorProto.INT8, "counts": TensorProto.UINT8, "words": TensorProto.STRING}
"""The model's inputs, each of shape [n, 2] but `x`, which is [n, 4]; its outputs are the same, called `x_out`, …"""
Request: Any = oip("ModelInferRequest")
Response: Any = oip("ModelInferResponse")
Break = Callable[[Any], object]
"""Makes a good request bad."""


def mixed(folder: Path) -> Path:
    """A graph that gives back what it gets, of four types."""

    def shape(name: str) -> list[int | str]:
        return ["n", 4 if name == "x" else 2]

    nodes = [helper.make_node("Identity", [name], [f"{name}_out"]) for name in TYPES]
    inputs = [graphs.tensor(name, shape(name), kind) for name, kind in TYPES.items()]
    outputs = [graphs.tensor(f"{name}_out", shape(name), kind) for name, kind in TYPES.items()]
    return graphs.write(folder, [*nodes], inputs, outputs, {})


def raw() -> Any:
    """A good request, its values as bytes."""
    return raw_request(
        MODEL,
        {
            "x": ("FP32", np.zeros((1, 4), np.float32)),
            "small": ("INT8", np.zeros((1, 2), np.int8)),
            "counts": ("UINT8", np.zeros((1, 2), np.uint8)),
            "words": ("BYTES", np.array([["two", "words"]], object)),
        },
    )


def typed() -> Any:
    """A good request, its values as numbers and texts."""
    request = Request(model_name=MODEL)
    request.inputs.add(name="x", datatype="FP32", shape=[1, 4]).contents.fp32_contents.extend([0] * 4)
    request.inputs.add(name="small", datatype="INT8", shape=[1, 2]).contents.int_contents.extend([-128, 127])
    request.inputs.add(name="counts", datatype="UINT8", shape=[1, 2]).contents.uint_contents.extend([0, 255])
    request.inputs.add(name="words", datatype="BYTES", shape=[1, 2]).contents.bytes_contents.extend([b"two", b"words"])
    return request


def infer(to: Client, request: Any) -> Any:
    return Response.FromString(send(to, f"{OIP_SERVICE}/ModelInfer", request.SerializeToString()))


@pytest.fixture(scope="module", autouse=True)
def _unharmed(mesh: RunningMesh, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The model is added to the running mesh; good calls of it go on beside all bad ones."""
    add(mixed(tmp_path_factory.mktemp("mixed")), MODEL, "nlp", Store(mesh.store))
    until_served(mesh, "nlp", lambda to: infer(to, raw()))
    with unharmed(mesh, "nlp", lambda to: (infer(to, raw()), infer(to, typed()))):
        yield


def _set(place: int, **fields: Any) -> Break:
    """Gives other fields to one input."""

    def change(request: Any) -> None:
        for name, value in fields.items():
            if isinstance(value, list):
                getattr(request.inputs[place], name)[:] = value
            else:
                setattr(request.inputs[place], name, value)

    return change


def _bytes(place: int, content: bytes) -> Break:
    """Gives other bytes to one input."""
    return lambda request: request.raw_input_contents.__setitem__(place, content)


def _values(place: int, field: str, values: list[Any]) -> Break:
    """Gives other values to one input."""

    def change(request: Any) -> None:
        request.inputs[place].contents.Clear()
        getattr(request.inputs[place].contents, field).extend(values)

    return change


BAD_RAW: Mapping[str, tuple[Break, str]] = {
    "a name that is none": (_set(0, name="y"), "inputs[0].name"),
    "no name": (_set(0, name=""), "inputs[0].name"),
    "a name of 10 MB": (_set(0, name="x" * 10_000_000), "inputs[0].name"),
    "another type": (_set(0, datatype="FP64"), "inputs[0].datatype"),
    "a type that is none": (_set(1, datatype="FLOAT"), "inputs[1].datatype"),
    "another shape": (_set(0, shape=[1, 5]), "inputs[0].shape"),
    "a rank too few": (_set(0, shape=[4]), "inputs[0].shape"),
    "a rank too many": (_set(0, shape=[1, 4, 1]), "inputs[0].shape"),
    "no shape": (_set(0, shape=[]), "inputs[0].shape"),
    "a negative size": (_set(0, shape=[-1, 4]), "inputs[0].shape"),
    "the smallest number as a size": (_set(0, shape=[-(2**63), 4]), "inputs[0].shape"),
    "sizes beyond 64 bits": (_set(0, shape=[2**62, 4]), "inputs[0].shape"),
    "sizes that wrap to the right ones": (_set(0, shape=[2**62 + 1, 4]), "inputs[0].shape"),
    "a terabyte of texts": (_set(3, shape=[2**39, 2]), "inputs[3].shape"),
    "a million dimensions": (_set(0, shape=[1] * 1_000_000), "inputs[0].shape"),
    "no rows": (_set(0, shape=[0, 4]), "inputs[0].shape"),
    "rows that disagree": (_set(1, shape=[2, 2]), "inputs[1].shape"),
    "a byte too few": (_bytes(0, bytes(15)), "raw_input_contents[0]"),
    "a byte too many": (_bytes(1, bytes(3)), "raw_input_contents[1]"),
    "a buffer too many": (lambda request: request.raw_input_contents.append(b""), "raw_input_contents"),
    "a buffer too few": (lambda request: request.raw_input_contents.pop(), "raw_input_contents"),
    "values beside the bytes": (
        lambda request: request.inputs[2].contents.uint_contents.append(1),
        "inputs[2].contents",
    ),
    "an input twice": (lambda request: request.inputs.add().CopyFrom(request.inputs[0]), "inputs[4].name"),
    "an input missing": (lambda request: request.inputs.pop(), "inputs"),
    "no inputs": (lambda request: request.ClearField("inputs"), "inputs"),
    "100,000 empty inputs": (lambda request: [request.inputs.add() for _ in range(100_000)], ""),
    "an output that is none": (lambda request: request.outputs.add(name="y"), "outputs[0].name"),
    "an output twice": (
        lambda request: [request.outputs.add(name="x_out") for _ in range(2)],
        "outputs[1].name",
    ),
    "a text's length beyond the bytes": (_bytes(3, b"\xff\xff\xff\xffxy" + bytes(4)), "raw_input_contents[3]"),
    "a text's length cut off": (_bytes(3, bytes(7)), "raw_input_contents[3]"),
    "bytes after the last text": (_bytes(3, bytes(9)), "raw_input_contents[3]"),
    "a text that is not UTF-8": (_bytes(3, b"\1\0\0\0\xff" + bytes(4)), "raw_input_contents[3]"),
}
BAD_TYPED: Mapping[str, tuple[Break, str]] = {
    "300 in INT8": (_values(1, "int_contents", [0, 300]), "inputs[1].contents.int_contents[1]"),
    "-129 in INT8": (_values(1, "int_contents", [-129, 0]), "inputs[1].contents.int_contents[0]"),
    "256 in UINT8": (_values(2, "uint_contents", [256, 0]), "inputs[2].contents.uint_contents[0]"),
    "-1 in UINT8, as 32 bits": (_values(2, "uint_contents", [2**32 - 1, 0]), "inputs[2].contents.uint_contents[0]"),
    "-1 in UINT8": (_values(2, "int_contents", [-1, 0]), "inputs[2].contents.int_contents"),
    "FP32 in another field": (_values(0, "fp64_contents", [0] * 4), "inputs[0].contents.fp64_contents"),
    "two fields": (
        lambda request: request.inputs[0].contents.int64_contents.append(1),
        "inputs[0].contents.int64_contents",
    ),
    "a value too few": (_values(0, "fp32_contents", [0] * 3), "inputs[0].contents.fp32_contents"),
    "a value too many": (_values(1, "int_contents", [0] * 3), "inputs[1].contents.int_contents"),
    "no values": (lambda request: request.inputs[1].ClearField("contents"), "inputs[1].contents.int_contents"),
    "a text that is not UTF-8": (_values(3, "bytes_contents", [b"ok", b"\xff"]), "inputs[3].contents.bytes_contents"),
    "30 million values": (_values(1, "int_contents", [1] * 30_000_000), "inputs[1].contents"),
}


@pytest.mark.parametrize("name", BAD_RAW)
def test_bad_bytes_are_refused(door: Door, name: str) -> None:
    _refused(door, raw(), *BAD_RAW[name])


@pytest.mark.parametrize("name", BAD_TYPED)
def test_bad_values_are_refused(door: Door, name: str) -> None:
    _refused(door, typed(), *BAD_TYPED[name])


def _refused(door: Door, request: Any, spoil: Break, field: str) -> None:
    spoil(request)
    with client(door, "nlp") as to:
        error = expect_refusal(lambda: infer(to, request), INVALID, field or None)
    assert len(error.details() or "") < 1000, "a caller's megabytes came back"


def test_odd_parameters_harm_nothing(door: Door) -> None:
    """Of any type, on the request and on its tensors: none has a meaning yet."""
    request = raw()
    for owner in (request, request.inputs[0], request.outputs.add(name="x_out")):
        owner.parameters["\0"].int64_param = -(2**63)
        owner.parameters["priority"].string_param = "high" * 10_000
        owner.parameters["timeout"].double_param = float("nan")
        owner.parameters[""].SetInParent()
    with client(door, "nlp") as to:
        assert [output.name for output in infer(to, request).outputs] == ["x_out"]


@pytest.mark.parametrize(
    ("name", "version", "told"),
    [
        ("mixde", "", "mixed"),
        (MODEL, "9", "it has 1"),
        ("m" * 10_000_000, "", "model 'mmm"),
        (MODEL, "9" * 1_000_000, "no version '999"),
        ("../mixed", "", "mixed"),
    ],
    ids=["a name", "a version", "10 MB of a name", "1 MB of a version", "a path"],
)
def test_an_unknown_model_is_not_found_and_what_is_there_is_told(
    door: Door, name: str, version: str, told: str
) -> None:
    request = raw()
    request.model_name, request.model_version = name, version
    with client(door, "nlp") as to:
        error = expect_refusal(lambda: infer(to, request), grpc.StatusCode.NOT_FOUND)
        assert told in (error.details() or "")


def test_metadata_of_an_unknown_model_is_not_found_and_it_is_not_ready(door: Door) -> None:
    """That it is not ready is an answer, not an error."""
    with client(door, "nlp") as to:
        question = oip("ModelMetadataRequest")(name="mixde").SerializeToString()
        error = expect_refusal(lambda: send(to, f"{OIP_SERVICE}/ModelMetadata", question), grpc.StatusCode.NOT_FOUND)
        assert MODEL in (error.details() or "")
        question = oip("ModelReadyRequest")(name=MODEL, version="9").SerializeToString()
        answer = oip("ModelReadyResponse").FromString(send(to, f"{OIP_SERVICE}/ModelReady", question))
    assert not answer.ready


def test_no_name_at_all_is_asked_for(door: Door) -> None:
    with client(door, "nlp") as to, pytest.raises(grpc.RpcError) as refused:
        infer(to, Request())
    assert refused.value.code() in (INVALID, grpc.StatusCode.NOT_FOUND)
