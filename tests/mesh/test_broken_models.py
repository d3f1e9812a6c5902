"""Models whose files are broken: they fail alone and say why at every door, while all others serve."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from ortmesh.client import Client
from ortmesh.descriptors import OIP_SERVICE, oip
from ortmesh.models.v1.models_pb2 import GetModelRequest, Model, ModelState
from ortmesh.nlp.v1.nlp_pb2 import EmbedRequest
from ortmesh.serving.add import add
from ortmesh.serving.cards import Card
from ortmesh.serving.store import Store
from tests.mesh.bad import client, expect_refusal, send, unharmed, until_served
from tests.mesh.conftest import Door, RunningMesh
from tests.serving import graphs
from tests.serving.oip.calls import raw_request

REFUSED = grpc.StatusCode.FAILED_PRECONDITION
SPOILT: Mapping[str, Callable[[bytes], bytes]] = {
    "cut": lambda content: content[: len(content) // 2],
    "garbage": lambda content: b"\xff" * len(content),
    "empty": lambda content: b"",
    "a-page-of-html": lambda content: b"<html>404 not found</html>",
}
"""What became of a model's file, by the name of the model."""
HALF = "half-broken"
"""Its version 1 serves, its version 2 is broken."""


def infer(to: Client, name: str, version: str = "") -> Any:
    request = raw_request(name, {"x": ("FP32", np.ones((1, 4), np.float32))}, model_version=version)
    answer = send(to, f"{OIP_SERVICE}/ModelInfer", request.SerializeToString())
    return oip("ModelInferResponse").FromString(answer)


def described(to: Client, name: str) -> Model:
    return to.models.GetModel(GetModelRequest(model=name), timeout=60)


@pytest.fixture(scope="module", autouse=True)
def _broken(mesh: RunningMesh, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """They come into the store of the running mesh, beside one that serves; good calls go on all the while."""
    store, folder = Store(mesh.store), tmp_path_factory.mktemp("broken")
    card = add(graphs.double(folder), HALF, "nlp", store)
    until_served(mesh, "nlp", lambda to: infer(to, HALF))
    content = (store.folder(HALF, "1") / card.graph).read_bytes()
    with unharmed(mesh, "nlp", lambda to: (to.nlp.Embed(EmbedRequest(texts=["x"]), timeout=60), infer(to, HALF))):
        for name, spoil in SPOILT.items():
            _install(store, card.model_copy(update={"name": name}), spoil(content))
        _install(store, card.model_copy(update={"version": "2"}), b"no graph")
        for address in (mesh.address, *(mesh.socket(f"nlp-{number}") for number in range(2))):
            with Client(address) as to:
                for name in (*SPOILT, f"{HALF}@2"):
                    mesh.until(lambda to=to, name=name: _has_failed(to, name))  # type: ignore[misc]
        yield
    for name in SPOILT:
        store.remove(name, "1")
    for version in "12":
        store.remove(HALF, version)


def _install(store: Store, card: Card, content: bytes) -> None:
    with store.staging() as folder:
        (folder / card.graph).write_bytes(content)
        store.install(card, folder)


def _has_failed(to: Client, name: str) -> bool:
    try:
        return described(to, name).state == ModelState.MODEL_STATE_FAILED
    except grpc.RpcError as error:
        if error.code() is grpc.StatusCode.NOT_FOUND:
            return False
        raise


@pytest.mark.parametrize("name", SPOILT)
def test_a_broken_model_says_why(door: Door, name: str) -> None:
    with client(door, "nlp") as to:
        model = described(to, name)
    assert model.state == ModelState.MODEL_STATE_FAILED
    assert "model.onnx" in model.state_reason
    assert str(door.mesh.store) not in model.state_reason, "where files lie is the operator's business"


@pytest.mark.parametrize("name", SPOILT)
def test_a_broken_model_is_not_serving_and_its_service_is(door: Door, name: str) -> None:
    with client(door, "nlp") as to:
        health = health_pb2_grpc.HealthStub(to.channel)
        states = {
            service: health.Check(health_pb2.HealthCheckRequest(service=service), timeout=60).status
            for service in (f"models/{name}", "ortmesh.nlp.v1.NlpService", f"models/{HALF}")
        }
    assert list(states.values()) == [
        health_pb2.HealthCheckResponse.NOT_SERVING,
        health_pb2.HealthCheckResponse.SERVING,
        health_pb2.HealthCheckResponse.SERVING,
    ]


@pytest.mark.parametrize("name", SPOILT)
def test_calls_of_a_broken_model_are_refused_with_its_reason(door: Door, name: str) -> None:
    with client(door, "nlp") as to:
        error = expect_refusal(lambda: infer(to, name), REFUSED)
        assert "model.onnx" in (error.details() or "")
        question = oip("ModelMetadataRequest")(name=name).SerializeToString()
        expect_refusal(lambda: send(to, f"{OIP_SERVICE}/ModelMetadata", question), REFUSED)
        question = oip("ModelReadyRequest")(name=name).SerializeToString()
        answer = oip("ModelReadyResponse").FromString(send(to, f"{OIP_SERVICE}/ModelReady", question))
        assert not answer.ready
        expect_refusal(lambda: to.nlp.Embed(EmbedRequest(texts=["x"], model=name)), grpc.StatusCode.INVALID_ARGUMENT)


def test_a_broken_version_leaves_the_one_before_it_in_service(door: Door) -> None:
    with client(door, "nlp") as to:
        assert infer(to, HALF).model_version == "1"
        error = expect_refusal(lambda: infer(to, HALF, "2"), REFUSED)
        assert "model.onnx" in (error.details() or "")
        assert described(to, HALF).version == "1"
