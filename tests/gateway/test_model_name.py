"""OIP calls find their model's service by the name in the body, read as protobuf reads it."""

from __future__ import annotations

import random

import grpc
import pytest

from ortmesh import descriptors
from tests.gateway.backend import Backend
from tests.gateway.conftest import MIB, Caller, Mesh


def _field(number: int, payload: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(payload)) + payload


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


MINILM = _field(1, b"minilm")
EFFICIENTNET = _field(1, b"efficientnet")
ID = _field(3, b"an id of the caller's")
TENSOR = _field(7, b"\x0a\x06minilm" * (3 * MIB // 8))

BODIES = {
    "first": MINILM + ID,
    "last": ID + MINILM,
    "after 3 MB of tensors": TENSOR + MINILM,
    "before 3 MB of tensors": MINILM + TENSOR,
    "the last occurrence counts": EFFICIENTNET + ID + MINILM,
    "an empty one before it": _field(1, b"") + MINILM,
    "after a varint, a 64-bit and a 32-bit field": b"\x50\xff\xff\x03"
    + b"\x59"
    + b"x" * 8
    + b"\x65"
    + b"y" * 4
    + MINILM,
    "its key in two bytes": b"\x8a\x00\x06minilm",
    "after a group with another inside": b"\x7b\x73" + EFFICIENTNET + b"\x74\x7c" + MINILM,
    "among 4,096 fields": ID * 4095 + MINILM,
}


async def test_the_name_is_found_wherever_it_stands(mesh: Mesh, nlp: Backend, vision: Backend) -> None:
    async with mesh(nlp, vision) as caller:
        for where, body in BODIES.items():
            answer = await caller.oip("ModelInfer", body)
            assert (answer.model_name, answer.model_version) == ("minilm", "nlp"), where


async def test_the_name_is_the_one_that_protobuf_reads(mesh: Mesh, nlp: Backend, vision: Backend) -> None:
    """300 messages of fields in any order, each as often as chance wants."""
    chance = random.Random(7)
    tensor = _field(5, _field(1, b"minilm"))
    fields = [MINILM, EFFICIENTNET, ID, _field(7, bytes(300)), tensor, _field(2, b"1"), _field(15, b"?")]
    request = descriptors.oip("ModelInferRequest")
    async with mesh(nlp, vision) as caller:
        for _ in range(300):
            body = b"".join(chance.choices(fields, k=chance.randrange(1, 9)))
            if name := request.FromString(body).model_name:
                answer = await caller.oip("ModelInfer", body)
                assert answer.model_version == {"minilm": "nlp", "efficientnet": "vision"}[name]


async def test_each_model_has_its_service_and_others_the_directory(mesh: Mesh, nlp: Backend, vision: Backend) -> None:
    async with mesh(nlp, vision) as caller:
        assert (await caller.infer("minilm")).model_version == "nlp"
        assert (await caller.infer("efficientnet")).model_version == "vision"
        for method, field in (("ModelReady", "ready"), ("ModelMetadata", "platform")):
            request = descriptors.oip(f"{method}Request")(name="efficientnet")
            assert getattr(await caller.oip(method, request), field) in (True, "vision")
        await _is_not_found(caller, "minilm-l6")


async def test_a_name_that_is_none_goes_to_the_directory(mesh: Mesh, nlp: Backend) -> None:
    async with mesh(nlp) as caller:
        for name in ("", "a" * 300, "minilm\n", "minilm\x00", "mini lm", "../minilm", "ménilm"):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await caller.infer(name)
            assert caught.value.code() in (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INVALID_ARGUMENT)
        assert not nlp.calls


async def test_a_body_that_is_no_message_is_refused_by_the_directory(mesh: Mesh, nlp: Backend) -> None:
    async with mesh(nlp) as caller:
        for body in (b"\xff" * 40, b"\x0a\x7fshort", b"\x0b\x0b", b"\x0a"):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await caller.oip("ModelInfer", body)
            assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert not nlp.calls


async def test_headers_that_only_the_gateway_sets_are_removed(mesh: Mesh, nlp: Backend, vision: Backend) -> None:
    """A forged model's name does not route, a forged caller is told to no service."""
    forged = (
        ("x-ortmesh-model", "efficientnet"),
        ("x-ortmesh-caller", "somebody"),
        ("x-ortmesh-claims", "all"),
        ("x-envoy-max-retries", "99"),
        ("x-envoy-upstream-rq-timeout-ms", "1"),
    )
    async with mesh(nlp, vision) as caller:
        assert (await caller.infer("minilm", metadata=forged)).model_version == "nlp"
        await _is_not_found(caller, "minilm-l6", metadata=forged)
        (call,) = nlp.calls
        assert call.metadata["x-ortmesh-model"] == "minilm"
        assert call.metadata["x-ortmesh-caller"] == "127.0.0.1"
        assert not {"x-ortmesh-claims", "x-envoy-max-retries"} & set(call.metadata)


async def _is_not_found(caller: Caller, model: str, **options: object) -> None:
    with pytest.raises(grpc.aio.AioRpcError, match="near names: minilm") as caught:
        await caller.infer(model, **options)
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND
