"""Parts of a running mesh that are ended or killed: no caller loses an answer, and each part comes back.

A mesh of its own, with two replicas of each service, since these tests kill what others call.
"""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2, health_pb2_grpc

from ortmesh.client import Client
from ortmesh.descriptors import oip
from ortmesh.models.v1.models_pb2 import ListModelsRequest
from ortmesh.nlp.v1.nlp_pb2 import EmbedRequest
from ortmesh.serving.add import add
from ortmesh.serving.store import Store
from tests.mesh.bad import neighbours
from tests.mesh.conftest import SHORT_DRAIN, START_SECONDS, RunningMesh, link_store
from tests.mesh.mixed import DOUBLER, FAMILIES, INFER, Ask, Flight, asks, infer_request, right_answers, same
from tests.serving import graphs


@pytest.fixture(scope="module", params=["native", "grpcio"])
def doomed(request: pytest.FixtureRequest, store: Store) -> Iterator[RunningMesh]:
    """A mesh whose parts may be killed: two replicas of each service, and an added model."""
    folder = Path(tempfile.mkdtemp(prefix="om-", dir="/tmp"))
    models = Store(link_store(store, folder / "models"))
    add(graphs.double(folder / "added"), DOUBLER, "nlp", models)
    replicas = [word for family in FAMILIES for word in ("--replicas", f"{family}=2")]
    running = RunningMesh(models.root, folder / "run", request.param, *replicas, **SHORT_DRAIN)
    try:
        running.until_line(r"^ready in", seconds=START_SECONDS)
        running.until_all_serve(dict.fromkeys(FAMILIES, 2))
        yield running
    finally:
        assert running.stop() == 0
        assert not running.pids(""), "something outlived the mesh"
        shutil.rmtree(folder)


@pytest.fixture
def client(doomed: RunningMesh) -> Iterator[Client]:
    with Client(doomed.address) as made:
        yield made


@pytest.fixture(scope="module")
def asked() -> list[Ask]:
    return asks()


@pytest.fixture(scope="module")
def right(doomed: RunningMesh, asked: list[Ask]) -> Mapping[Ask, Message]:
    """The answers from before anything was killed."""
    return right_answers(doomed.address, asked)


def send(mesh: RunningMesh, number: signal.Signals, part: str) -> None:
    """Sends a signal to what runs with these words in its command line."""
    pids = mesh.pids(part)
    assert pids, f"{part} does not run"
    for pid in pids:
        os.kill(pid, number)


@pytest.mark.parametrize(
    ("number", "replica"), [(signal.SIGTERM, 0), (signal.SIGKILL, 1)], ids=["terminated", "killed"]
)
def test_replicas_that_end_in_the_middle_of_200_calls_lose_none(
    doomed: RunningMesh, asked: list[Ask], right: Mapping[Ask, Message], number: signal.Signals, replica: int
) -> None:
    """One replica of each family in turn, all of whose calls are in flight then. A terminated one ends its calls; a
    killed one loses what it was computing, and the gateway has the other compute it: no method here has side
    effects."""
    after = len(doomed.lines)
    with Flight(doomed.address, asked, again=FAMILIES) as flight:
        for family in FAMILIES:
            flight.until_answered(family, 1)
            send(doomed, number, f"listen unix:{doomed.runtime}/{family}-{replica}.sock")
            flight.land(family)
        answered = flight.answers()
    assert not [ask.path for ask, answer in answered if not same(answer, right[ask])]
    for family in FAMILIES:
        doomed.until_line(rf"{family}-{replica}.* starts again", after=after)
    doomed.until_all_serve(dict.fromkeys(FAMILIES, 2))


@contextmanager
def calling_on(mesh: RunningMesh) -> Iterator[None]:
    """Callers of two methods, on connections of their own, none of whose calls may fail while the block runs."""
    x = np.ones((1, 4), np.float32)
    with Client(mesh.address) as one, Client(mesh.address) as other:
        infer: Any = other.channel.unary_unary(
            INFER,
            request_serializer=lambda request: request.SerializeToString(),
            response_deserializer=oip("ModelInferResponse").FromString,
        )
        request, texts = infer_request(DOUBLER, x), EmbedRequest(texts=["still there?"])
        with neighbours(lambda: one.nlp.Embed(texts, timeout=60), lambda: infer(request, timeout=60)):
            yield


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "terminated"])
def test_without_the_gateway_process_envoy_goes_on(
    doomed: RunningMesh, client: Client, tmp_path: Path, number: signal.Signals
) -> None:
    """Not one call of a model fails; the new process answers for the directory and makes routes for new models."""
    later, after = f"later-{number.name.lower()}", len(doomed.lines)
    with calling_on(doomed):
        send(doomed, number, "ortmesh_gateway --backend")
        doomed.until_line(r"gateway .* starts again", after=after)
        doomed.until(lambda: lists_models(client))
        doomed.until(lambda: is_serving(doomed))
        add(graphs.double(tmp_path), later, "nlp", Store(doomed.store))
        doomed.until(lambda: doubles(doomed, later))


def lists_models(client: Client) -> bool:
    """True when the directory answers, with the models of all families."""
    try:
        listed = client.models.ListModels(ListModelsRequest(), timeout=5).models
    except grpc.RpcError:
        return False
    return {model.family for model in listed} == set(FAMILIES)


def is_serving(mesh: RunningMesh) -> bool:
    """True when the mesh's health is answered, and good."""
    with grpc.insecure_channel(mesh.address) as channel:
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=5)
        except grpc.RpcError:
            return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def doubles(mesh: RunningMesh, model: str) -> bool:
    """True when a model answers by the gateway."""
    x = np.arange(4, dtype=np.float32).reshape(1, 4)
    ask = Ask("nlp", INFER, infer_request(model, x), oip("ModelInferResponse"))
    try:
        with Flight(mesh.address, [ask]) as flight:
            ((_, answer),) = flight.answers()
    except AssertionError:
        return False
    np.testing.assert_array_equal(np.frombuffer(answer.raw_output_contents[0], np.float32), x[0] * 2)
    return True


@pytest.mark.parametrize(
    ("number", "part"),
    [(signal.SIGKILL, "envoy.json"), (signal.SIGKILL, "ortmesh_gateway.proxy")],
    ids=["envoy", "its keeper"],
)
def test_a_killed_envoy_is_back_soon(doomed: RunningMesh, number: signal.Signals, part: str) -> None:
    """On a quiet machine two seconds from the kill to the next answer."""
    pid = doomed.pids("envoy.json")
    send(doomed, number, part)
    doomed.until(lambda: doomed.pids("envoy.json") != pid and doubles(doomed, DOUBLER))
