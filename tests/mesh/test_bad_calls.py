"""Bad calls on the wire, at every door: each ends at once with a status, and no neighbour notices.

What a body's frame says wrongly is answered by the adapters' own libraries where nothing of ours sees it; those codes
are in docs/adapters.md.
"""

from __future__ import annotations

import gzip
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import grpc
import pytest

from ortmesh.descriptors import OIP_SERVICE, oip
from ortmesh.nlp.v1.nlp_pb2 import EmbedRequest
from ortmesh.vision.v1.vision_pb2 import ClassifyRequest, Image
from tests.mesh.bad import ANSWER_SECONDS, client, expect_refusal, send, unharmed
from tests.mesh.conftest import Door, RunningMesh
from tests.wire import Headers, connected, framed, post

OK, INVALID, LATE, FULL, NOT_SERVED, INTERNAL = 0, 3, 4, 8, 12, 13
EMBED, INFER = "/ortmesh.nlp.v1.NlpService/Embed", f"/{OIP_SERVICE}/ModelInfer"
GOOD = EmbedRequest(texts=["good morning"]).SerializeToString()
TENSORS: bytes = oip("ModelInferRequest")(model_name="all-minilm-l6-v2").SerializeToString()
"""A message, though no good one: the model's inputs are missing, which is INVALID_ARGUMENT."""


class Bad(NamedTuple):
    """A call, and the codes with which it ends."""

    path: str
    body: bytes
    headers: Headers = ()
    gateway: int | None = None
    """Through the gateway; None where it answers as the service behind it."""
    native: int = INVALID
    grpcio: int = INVALID


@pytest.fixture
def adapter(request: pytest.FixtureRequest) -> str:
    """What the services are served by."""
    return str(request.node.callspec.params["mesh"])


@pytest.fixture(scope="module", autouse=True)
def _unharmed(mesh: RunningMesh) -> Iterator[None]:
    with unharmed(mesh, "nlp", lambda to: to.nlp.Embed(EmbedRequest(texts=["good morning"]), timeout=60)):
        yield


def _ends(door: Door, adapter: str, bad: Bad) -> str:
    """Sends a call, which must end in time and with its code; what the status said."""
    start = time.monotonic()
    heard = post(door.address("nlp"), bad.path, bad.body, bad.headers)
    expected = {"native": bad.native, "grpcio": bad.grpcio}[adapter]
    if door.through_gateway and bad.gateway is not None:
        expected = bad.gateway
    assert heard.code == expected, heard
    assert time.monotonic() - start < ANSWER_SECONDS
    return heard.message


FRAMES: Mapping[str, Bad] = {
    "no protobuf": Bad(EMBED, framed(b"\xff" * 20)),
    "no protobuf for tensors": Bad(INFER, framed(b"\xff" * 20)),
    "no message": Bad(EMBED, b"", native=INTERNAL),
    "no message for tensors": Bad(INFER, b"", gateway=INVALID, native=INTERNAL),
    "half a prefix": Bad(EMBED, b"\0\0\0", native=INTERNAL),
    "half a prefix for tensors": Bad(INFER, b"\0\0\0", gateway=INVALID, native=INTERNAL),
    "a message cut short": Bad(EMBED, framed(GOOD, length=len(GOOD) + 1), native=INTERNAL),
    "tensors cut short": Bad(INFER, framed(TENSORS, length=100), gateway=INVALID, native=INTERNAL),
    "4 GiB announced": Bad(EMBED, framed(GOOD, length=2**32 - 1), native=INTERNAL, grpcio=FULL),
    "4 GiB of tensors announced": Bad(
        INFER, framed(TENSORS, length=2**32 - 1), gateway=INVALID, native=INTERNAL, grpcio=FULL
    ),
    "a length within the message": Bad(EMBED, framed(GOOD, length=2), native=INTERNAL),
    "a second message for tensors": Bad(INFER, framed(TENSORS) * 2, gateway=INVALID),
    "a flag that is none": Bad(EMBED, framed(GOOD, flag=7), native=INTERNAL),
}


@pytest.mark.parametrize("name", FRAMES)
def test_a_body_that_is_not_one_message_is_refused(door: Door, adapter: str, name: str) -> None:
    assert _ends(door, adapter, FRAMES[name])


def test_tensors_behind_a_flag_that_is_none_are_refused_by_the_gateway(mesh: RunningMesh) -> None:
    """grpcio takes them for an empty message, or for none, as it comes."""
    assert post(mesh.address, INFER, framed(TENSORS, flag=7)).code == INVALID


def test_a_message_that_is_compressed_without_saying_how_ends_well_or_with_a_code(door: Door, adapter: str) -> None:
    """grpcio takes it as it is."""
    _ends(door, adapter, Bad(EMBED, framed(GOOD, flag=1), native=INTERNAL, grpcio=OK))


def test_of_two_messages_the_first_is_answered(door: Door, adapter: str) -> None:
    """A unary method has one; both libraries ignore what follows."""
    _ends(door, adapter, Bad(EMBED, framed(GOOD) * 2, native=OK, grpcio=OK))


ENCODINGS: Mapping[str, Bad] = {
    "gzip": Bad(EMBED, framed(gzip.compress(GOOD), flag=1), (("grpc-encoding", "gzip"),), NOT_SERVED, OK, OK),
    "unknown": Bad(EMBED, framed(GOOD, flag=1), (("grpc-encoding", "zip"),), NOT_SERVED, NOT_SERVED, INTERNAL),
    "identity": Bad(EMBED, framed(GOOD), (("grpc-encoding", "identity"),), OK, OK, OK),
}


@pytest.mark.parametrize("name", ENCODINGS)
def test_a_compressed_message_is_refused_by_the_gateway(door: Door, adapter: str, name: str) -> None:
    """It would unpack it without a bound. A service unpacks what it knows."""
    _ends(door, adapter, ENCODINGS[name])


@pytest.mark.parametrize("written", ["", "-1S", "12", "1x", "1.5S", "S", "9" * 7 + "SS"])
def test_a_malformed_deadline_is_refused_by_the_gateway(door: Door, adapter: str, written: str) -> None:
    _ends(door, adapter, Bad(EMBED, framed(GOOD), (("grpc-timeout", written),), INVALID, OK, INTERNAL))


def test_a_deadline_of_ten_digits_is_refused_by_the_gateway(door: Door, adapter: str) -> None:
    _ends(door, adapter, Bad(EMBED, framed(GOOD), (("grpc-timeout", "9999999999S"),), INVALID, OK, OK))


@pytest.mark.parametrize("written", ["0n", "0H", "00000000S", "1n"])
def test_a_deadline_that_has_passed_is_exceeded(door: Door, adapter: str, written: str) -> None:
    _ends(door, adapter, Bad(EMBED, framed(GOOD), (("grpc-timeout", written),), LATE, LATE, LATE))


def test_a_deadline_in_ten_thousand_years_is_one(door: Door, adapter: str) -> None:
    _ends(door, adapter, Bad(EMBED, framed(GOOD), (("grpc-timeout", "99999999H"),), OK, OK, OK))


@pytest.mark.parametrize("path", ["/ortmesh.nlp.v1.NlpService/Nope", "/no.Service/Embed", "/", "/x", "/" + "x" * 8000])
def test_an_unknown_method_is_unimplemented(door: Door, adapter: str, path: str) -> None:
    _ends(door, adapter, Bad(path, framed(GOOD), (), NOT_SERVED, NOT_SERVED, NOT_SERVED))


LARGE: Mapping[str, tuple[str, str, bytes, int]] = {
    "texts": ("nlp", EMBED, EmbedRequest(texts=["x" * (4 << 20)]).SerializeToString(), 4 << 20),
    "a picture": (
        "vision",
        "/ortmesh.vision.v1.VisionService/Classify",
        ClassifyRequest(image=Image(encoded=bytes(32 << 20))).SerializeToString(),
        32 << 20,
    ),
    "tensors": (
        "nlp",
        INFER,
        oip("ModelInferRequest")(
            model_name="all-minilm-l6-v2", raw_input_contents=[bytes(32 << 20)]
        ).SerializeToString(),
        32 << 20,
    ),
    "a question about health": ("nlp", "/grpc.health.v1.Health/Check", bytes(70_000), 4096),
}


@pytest.mark.parametrize("name", LARGE)
def test_a_message_over_its_methods_limit_is_refused_and_the_limit_told(door: Door, name: str) -> None:
    family, path, message, limit = LARGE[name]
    with client(door, family) as to:
        error = expect_refusal(lambda: send(to, path[1:], message), grpc.StatusCode.RESOURCE_EXHAUSTED)
    told = 65536 if door.through_gateway and "Health" in path else limit
    assert str(told) in (error.details() or "")


ODD_HEADERS: Mapping[str, Sequence[tuple[str, str]]] = {
    "200 entries": [(f"x-entry-{number}", "1") for number in range(200)],
    "14 KB": [("x-long", "x" * 14_000)],
    "no ASCII": [("x-name", "Zoë")],
    "a forged caller": [("x-ortmesh-caller", "root"), ("x-ortmesh-model", "lid-176"), ("x-ortmesh-claims", "all")],
    "odd traces": [("traceparent", "00-zz"), ("tracestate", "=,=")],
    "a trace of zeros": [("traceparent", f"00-{'0' * 32}-{'0' * 16}-01")],
    "orders to Envoy": [("x-envoy-upstream-rq-timeout-ms", "1"), ("x-envoy-retry-on", "5xx")],
    "a name twice": [("x-name", "a"), ("x-name", "b")],
}


@pytest.mark.parametrize("name", ODD_HEADERS)
def test_odd_metadata_harms_nothing(door: Door, adapter: str, name: str) -> None:
    _ends(door, adapter, Bad(EMBED, framed(GOOD), ODD_HEADERS[name], OK, OK, OK))


@pytest.mark.parametrize(
    ("header", "bad", "good"),
    [("x-some-bin", "!", "aGk"), ("grpc-trace-bin", "!", "aGk"), ("grpc-previous-rpc-attempts", "!", "1")],
)
def test_one_callers_malformed_metadata_does_not_fail_anothers(
    mesh: RunningMesh, header: str, bad: str, good: str
) -> None:
    """They share the gateway's connections, in whose table of headers grpcio keeps a failure for all that follow."""
    for value in (bad, good) * 4:
        assert post(mesh.address, EMBED, framed(GOOD), ((header, value),)).code == OK


def test_a_caller_that_leaves_in_the_middle_of_its_message_harms_nothing(door: Door) -> None:
    for sent in (b"", b"\0", framed(GOOD)[:-1]):
        with connected(door.address("nlp")) as caller:
            caller.begin(EMBED)
            caller.send(sent, end=False)
    with client(door, "nlp") as to:
        assert to.nlp.Embed(EmbedRequest(texts=["still there?"]), timeout=60).results
