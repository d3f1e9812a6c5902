"""What the gateway answers itself: models of the whole mesh, OIP's server calls, health, reflection."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

import ortmesh
from ortmesh import descriptors
from ortmesh.models.v1 import models_pb2, models_pb2_grpc
from tests.gateway.backend import Backend, model
from tests.gateway.conftest import HANG_SECONDS, Caller, Mesh

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
LOADING = models_pb2.MODEL_STATE_LOADING


@pytest.fixture
async def caller(mesh: Mesh, nlp: Backend, vision: Backend) -> AsyncIterator[Caller]:
    """A mesh of two families."""
    nlp.tell(model("minilm", "nlp", tasks=["embed"]), model("e5", "nlp", state=LOADING, state_reason="is read"))
    async with mesh(nlp, vision) as made:
        yield made


def _models(caller: Caller) -> Any:
    return models_pb2_grpc.ModelServiceStub(caller.channel)


def _health(caller: Caller) -> Any:
    return health_pb2_grpc.HealthStub(caller.channel)


async def test_models_of_all_services_are_listed(caller: Caller) -> None:
    listed = await _models(caller).ListModels(models_pb2.ListModelsRequest())
    assert [(each.name, each.family) for each in listed.models] == [
        ("e5", "nlp"),
        ("efficientnet", "vision"),
        ("minilm", "nlp"),
    ]
    of_vision = await _models(caller).ListModels(models_pb2.ListModelsRequest(family="vision"))
    to_embed = await _models(caller).ListModels(models_pb2.ListModelsRequest(task="embed"))
    assert [each.name for each in (*of_vision.models, *to_embed.models)] == ["efficientnet", "minilm"]


async def test_pages_hold_every_model_once(caller: Caller) -> None:
    names, token = [], ""
    while True:
        request = models_pb2.ListModelsRequest(page_size=1, page_token=token)
        page = await _models(caller).ListModels(request)
        names += [each.name for each in page.models]
        token = page.next_page_token
        if not token:
            break
    assert names == ["e5", "efficientnet", "minilm"]


async def test_a_wrong_page_is_an_invalid_argument(caller: Caller) -> None:
    for wrong in (models_pb2.ListModelsRequest(page_size=-1), models_pb2.ListModelsRequest(page_token="made up")):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await _models(caller).ListModels(wrong)
        assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT


async def test_one_model_is_shown_and_an_unknown_one_has_near_names(caller: Caller) -> None:
    shown = await _models(caller).GetModel(models_pb2.GetModelRequest(model="minilm@1"))
    assert shown.name == "minilm"
    with pytest.raises(grpc.aio.AioRpcError, match="near names: efficientnet") as caught:
        await _models(caller).GetModel(models_pb2.GetModelRequest(model="eficientnet"))
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND


async def test_a_watch_tells_all_at_once_and_then_every_change(caller: Caller, vision: Backend) -> None:
    watch = _models(caller).WatchModels(models_pb2.WatchModelsRequest(family="vision"))
    first = await watch.read()
    vision.tell(*vision.models, model("ocr", "vision"))
    second = await watch.read()
    watch.cancel()
    assert [[each.name for each in answer.models] for answer in (first, second)] == [
        ["efficientnet"],
        ["efficientnet", "ocr"],
    ]


async def test_oip_tells_of_the_mesh_as_one_server(caller: Caller) -> None:
    assert (await caller.oip("ServerLive")).live
    assert (await caller.oip("ServerReady")).ready
    metadata = await caller.oip("ServerMetadata")
    assert (metadata.name, metadata.version) == ("ortmesh", ortmesh.__version__)
    index = await caller.oip("RepositoryIndex")
    assert [(each.name, each.state, each.reason) for each in index.models] == [
        ("e5", "LOADING", "is read"),
        ("efficientnet", "READY", ""),
        ("minilm", "READY", ""),
    ]
    ready = await caller.oip("RepositoryIndex", descriptors.oip("RepositoryIndexRequest")(ready=True))
    assert [each.name for each in ready.models] == ["efficientnet", "minilm"]


async def test_oip_says_not_ready_as_soon_as_health_does(caller: Caller) -> None:
    """Load balancers that ask the one or the other go elsewhere at the same moment."""
    caller.gateway.directory.health.drain()
    assert not (await caller.oip("ServerReady")).ready


async def test_the_repositorys_name_is_no_models_name(caller: Caller, nlp: Backend) -> None:
    with pytest.raises(grpc.aio.AioRpcError, match="repository_name"):
        await caller.oip("RepositoryIndex", descriptors.oip("RepositoryIndexRequest")(repository_name="minilm"))
    assert not nlp.calls


async def test_a_model_that_nobody_has_is_not_ready_which_is_no_error(caller: Caller) -> None:
    answer = await caller.oip("ModelReady", descriptors.oip("ModelReadyRequest")(name="nothing"))
    assert not answer.ready


@pytest.mark.parametrize("method", ["ModelInfer", "ModelMetadata"])
async def test_other_calls_for_it_are_not_found_with_near_names_of_the_whole_mesh(caller: Caller, method: str) -> None:
    field = "model_name" if method == "ModelInfer" else "name"
    request = descriptors.oip(f"{method}Request")(**{field: "effcientnet"})
    with pytest.raises(grpc.aio.AioRpcError, match="near names: efficientnet") as caught:
        await caller.oip(method, request)
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND


async def test_health_is_that_of_the_mesh(caller: Caller) -> None:
    expected = {
        "": SERVING,
        "ortmesh.nlp.v1.NlpService": SERVING,
        "ortmesh.vision.v1.VisionService": SERVING,
        "ortmesh.models.v1.ModelService": SERVING,
        descriptors.OIP_SERVICE: SERVING,
        "models/minilm": SERVING,
        "models/e5": NOT_SERVING,
    }
    for name, status in expected.items():
        assert (await _health(caller).Check(health_pb2.HealthCheckRequest(service=name))).status == status, name


async def test_health_knows_no_other_name(caller: Caller) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await _health(caller).Check(health_pb2.HealthCheckRequest(service="ortmesh.speech.v1.SpeechService"))
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND


async def test_the_mesh_serves_when_each_family_has_a_model_ready(caller: Caller, vision: Backend) -> None:
    watch = _health(caller).Watch(health_pb2.HealthCheckRequest())
    assert (await watch.read()).status == SERVING
    vision.tell(model("efficientnet", "vision", state=LOADING))
    assert (await watch.read()).status == NOT_SERVING
    vision.tell(model("efficientnet", "vision"))
    assert (await watch.read()).status == SERVING
    watch.cancel()


async def test_a_service_that_stops_unreadies_the_mesh_and_its_return_readies_it(
    caller: Caller, vision: Backend, folder: Any
) -> None:
    watch = _health(caller).Watch(health_pb2.HealthCheckRequest(service="ortmesh.vision.v1.VisionService"))
    assert (await watch.read()).status == SERVING
    await vision.stop()
    assert (await watch.read()).status == NOT_SERVING
    again = Backend("vision", f"unix:{folder}/vision", ["efficientnet"])
    await again.start()
    assert (await asyncio.wait_for(watch.read(), HANG_SECONDS)).status == SERVING
    watch.cancel()
    await again.stop()


async def test_reflection_lists_all_services_and_describes_them(caller: Caller) -> None:
    stub = reflection_pb2_grpc.ServerReflectionStub(caller.channel)
    requests = [
        reflection_pb2.ServerReflectionRequest(list_services=""),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol="ortmesh.nlp.v1.NlpService"),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol="inference.ModelInferRequest"),
    ]
    listed, typed, oip = [answer async for answer in stub.ServerReflectionInfo(iter(requests))]
    assert {each.name for each in listed.list_services_response.service} >= {
        "grpc.health.v1.Health",
        "inference.GRPCInferenceService",
        "ortmesh.models.v1.ModelService",
        "ortmesh.nlp.v1.NlpService",
        "ortmesh.vision.v1.VisionService",
    }
    assert typed.file_descriptor_response.file_descriptor_proto
    assert oip.file_descriptor_response.file_descriptor_proto


@pytest.mark.parametrize("service", descriptors.REFLECTION_SERVICES)
async def test_reflection_answers_callers_that_keep_talking(caller: Caller, service: str) -> None:
    """As grpcurl does: v1 first, on a stream that it closes at the end."""
    call = caller.channel.stream_stream(
        f"/{service}/ServerReflectionInfo",
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )(timeout=HANG_SECONDS)
    for symbol in ("ortmesh.nlp.v1.NlpService", "grpc.reflection.v1.ServerReflection"):
        await call.write(reflection_pb2.ServerReflectionRequest(file_containing_symbol=symbol))
        answer = await call.read()
        assert answer.file_descriptor_response.file_descriptor_proto
    await call.done_writing()
    assert await call.code() is grpc.StatusCode.OK


async def test_an_unknown_method_is_refused_before_its_caller_has_said_all(caller: Caller) -> None:
    """A stream's caller may wait for the answer before it goes on."""
    assert await asyncio.to_thread(_code_while_more_is_to_come, caller.proxy.address) is grpc.StatusCode.UNIMPLEMENTED


def _code_while_more_is_to_come(address: str) -> grpc.StatusCode:
    """What a stream ends with whose caller has written one message and goes on only when it has ended.

    By the synchronous client: grpc.aio calls a write after the end INTERNAL.
    """
    ended = threading.Event()

    def messages() -> Iterator[bytes]:
        yield b"first"
        ended.wait()

    with grpc.insecure_channel(address) as channel:
        call: Any = channel.stream_stream("/no.such.Service/Method")(messages(), timeout=HANG_SECONDS)
        try:
            return call.code()
        finally:
            ended.set()
