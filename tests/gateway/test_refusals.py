"""What Envoy itself refuses tells a caller when to come back, as the services' own refusals do."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from ortmesh.client import retry_after_seconds
from ortmesh.config import MIB
from ortmesh.front.call import Call
from ortmesh.nlp.v1 import nlp_pb2
from ortmesh_gateway import envoy
from ortmesh_gateway.replies import RETRY_SECONDS
from tests.gateway.backend import Backend
from tests.gateway.conftest import HANG_SECONDS, Caller, Mesh

REQUEST = nlp_pb2.EmbedRequest()


async def test_more_calls_than_services_take_are_told_to_come_back(
    mesh: Mesh, nlp: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the services themselves refuse: RESOURCE_EXHAUSTED, not Envoy's UNAVAILABLE."""
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def held(request: Any, call: Call) -> Any:
        begun.set()
        await go_on.wait()
        return nlp_pb2.EmbedResponse()

    monkeypatch.setattr("ortmesh_gateway.clusters.CALLS_A_REPLICA", 1)
    nlp.answers["Embed"] = held
    async with mesh(nlp) as caller:
        first = asyncio.ensure_future(caller.nlp.Embed(REQUEST))
        await begun.wait()
        assert await _refused(caller, "OVERLOADED") == grpc.StatusCode.RESOURCE_EXHAUSTED
        go_on.set()
        await first


async def test_near_the_bound_of_its_heap_the_gateway_tells_callers_to_come_back(
    mesh: Mesh, nlp: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bound that Envoy is over from the start; it looks for the first time a moment after."""
    made = envoy._overload

    def small(settings: Any) -> Any:
        return made(settings.model_copy(update={"max_heap_bytes": MIB}))

    monkeypatch.setattr("ortmesh_gateway.envoy._overload", small)
    async with mesh(nlp) as caller:
        with suppress(grpc.aio.AioRpcError):
            async with asyncio.timeout(HANG_SECONDS):
                while True:
                    await caller.nlp.Embed(REQUEST)
                    await asyncio.sleep(0.02)
        taken = len(nlp.calls)
        assert await _refused(caller, "OVERLOADED") == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert len(nlp.calls) == taken


async def test_who_asks_for_a_service_that_is_away_is_told_to_come_back(mesh: Mesh, nlp: Backend) -> None:
    async with mesh(nlp) as caller:
        await nlp.stop()
        assert await _refused(caller, "UNREACHABLE") == grpc.StatusCode.UNAVAILABLE


async def _refused(caller: Caller, reason: str) -> grpc.StatusCode:
    """The code of a call whose details say the reason and when to come back, as grpcio-status reads them."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await caller.nlp.Embed(REQUEST, timeout=HANG_SECONDS)
    status = rpc_status.from_call(caught.value)
    assert status is not None, caught.value
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    assert all(detail.Unpack(message) for detail, message in zip(status.details, (info, retry), strict=True))
    assert (info.domain, info.reason) == ("ortmesh", reason)
    assert retry_after_seconds(caught.value) == RETRY_SECONDS
    return caught.value.code()
