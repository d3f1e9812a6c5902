"""Replicas: who gets which call, what is repeated and what a death costs."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from ortmesh.config import GatewaySettings
from ortmesh.errors import Draining, Internal, Overloaded
from ortmesh.front.call import Call
from ortmesh.nlp.v1 import nlp_pb2
from ortmesh.vision.v1 import vision_pb2
from tests.gateway.backend import Backend
from tests.gateway.conftest import HANG_SECONDS, MIB, Mesh, front, until_known

ROOT = Path(__file__).parents[2]


@pytest.fixture
async def pair(folder: Path) -> AsyncIterator[tuple[Backend, Backend]]:
    """Two replicas of nlp that say who they are."""
    backends = tuple(Backend("nlp", f"unix:{folder}/{label}", ["minilm"], label=label) for label in ("one", "two"))
    for backend in backends:
        await backend.start()
    yield backends  # type: ignore[misc]
    for backend in backends:
        await backend.stop()


async def test_the_less_busy_of_two_replicas_gets_the_call(mesh: Mesh, pair: tuple[Backend, Backend]) -> None:
    """One holds a call. It still gets some: all that are drawn at random may be itself."""
    started, done = asyncio.Event(), asyncio.Event()

    async def hold_the_first(request: Any, call: Call) -> Any:
        if not started.is_set():
            started.set()
            await done.wait()
        return nlp_pb2.EmbedResponse()

    async with mesh(*pair) as caller:
        while not all(backend.calls for backend in pair):
            await caller.nlp.Embed(nlp_pb2.EmbedRequest())
        for backend in pair:
            backend.calls.clear()
            backend.answers["Embed"] = hold_the_first
        held = asyncio.ensure_future(caller.nlp.Embed(nlp_pb2.EmbedRequest()))
        await started.wait()
        (free,) = (backend for backend in pair if not backend.calls)
        for _ in range(100):
            await caller.nlp.Embed(nlp_pb2.EmbedRequest(), timeout=HANG_SECONDS)
        assert len(free.calls) > 80
        done.set()
        await held


async def test_unavailable_is_retried_on_the_other_replica(mesh: Mesh, pair: tuple[Backend, Backend]) -> None:
    """With the deadline that the caller gave, and with a body larger than Envoy's buffers."""

    async def refuse(request: Any, call: Call) -> Any:
        raise Draining("elsewhere, please")

    pair[0].answers["Embed"] = refuse
    async with mesh(*pair) as caller:
        while not pair[0].calls:  # which replica is asked first is drawn
            request = nlp_pb2.EmbedRequest(texts=["a" * (3 * MIB)])
            answer = await caller.nlp.Embed(request, timeout=20)
            assert answer.model.version == "two"
        # gRPC's core rounds what it sends up by half a percent.
        assert all(call.deadline - call.arrival < 20.2 for backend in pair for call in backend.calls)


async def test_one_replica_alone_is_asked_again(mesh: Mesh, nlp: Backend) -> None:
    """A model that was just loading, or a service that was full for a moment."""

    async def refuse_twice(request: Any, call: Call) -> Any:
        if len(nlp.calls) <= 2:
            raise Draining("not yet")
        return nlp_pb2.EmbedResponse()

    nlp.answers["Embed"] = refuse_twice
    async with mesh(nlp) as caller:
        await caller.nlp.Embed(nlp_pb2.EmbedRequest())
        assert len(nlp.calls) == 3


@pytest.mark.parametrize("error", [Internal("a bug"), Overloaded("full")])
async def test_other_errors_are_not_repeated(error: Exception, mesh: Mesh, pair: tuple[Backend, Backend]) -> None:
    async def fail(request: Any, call: Call) -> Any:
        raise error

    for backend in pair:
        backend.answers["Embed"] = fail
    async with mesh(*pair) as caller:
        with pytest.raises(grpc.aio.AioRpcError):
            await caller.nlp.Embed(nlp_pb2.EmbedRequest())
        assert sum(len(backend.calls) for backend in pair) == 1


async def test_answers_that_say_unavailable_eject_no_replica(mesh: Mesh, vision: Backend) -> None:
    """One model that loads must not take the others' service away."""

    async def refuse(request: Any, call: Call) -> Any:
        raise Draining("this model loads")

    vision.answers["Embed"] = refuse
    async with mesh(vision) as caller:
        for _ in range(4):
            with pytest.raises(grpc.aio.AioRpcError):
                await caller.vision.Embed(vision_pb2.EmbedRequest())
            await caller.vision.Classify(vision_pb2.ClassifyRequest())


async def test_a_replica_that_says_not_serving_gets_no_new_calls(mesh: Mesh, pair: tuple[Backend, Backend]) -> None:
    """And gets them again when it serves again."""
    async with mesh(*pair) as caller:

        async def until_all_go_to(labels: set[str]) -> None:
            async with asyncio.timeout(HANG_SECONDS):
                while await _labels(caller.nlp, 10) != labels:
                    pass

        pair[0].serve(False)
        await until_all_go_to({"two"})
        pair[0].serve(True)
        await until_all_go_to({"one", "two"})


async def test_a_killed_replica_loses_no_new_call_and_comes_back(folder: Path) -> None:
    """Real processes: one is killed under load, calls that begin afterwards all succeed, and it returns."""
    sockets = {label: f"unix:{folder}/{label}" for label in ("one", "two")}
    async with contextlib.AsyncExitStack() as stack:
        processes = {label: await stack.enter_async_context(_process(label, each)) for label, each in sockets.items()}
        settings = GatewaySettings(
            address="127.0.0.1:0",
            backends=tuple(f"nlp={each}" for each in sockets.values()),
            drain_seconds=0,
            runtime=folder / "gateway",
        )
        gateway, proxy = await stack.enter_async_context(front(settings))
        await until_known(gateway, "minilm")
        await gateway.reached()
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(proxy.address))
        stub = _stub(channel)
        await _until_both_answer(stub)
        processes["one"].kill()
        await processes["one"].wait()
        assert await _labels(stub, 300) == {"two"}
        await stack.enter_async_context(_process("one", sockets["one"]))
        await _until_both_answer(stub)


async def _until_both_answer(stub: Any) -> None:
    async with asyncio.timeout(HANG_SECONDS):
        while await _labels(stub, 20) != {"one", "two"}:
            pass


def _stub(channel: grpc.aio.Channel) -> Any:
    from ortmesh.nlp.v1.nlp_pb2_grpc import NlpServiceStub

    return NlpServiceStub(channel)


async def _labels(stub: Any, count: int) -> set[str]:
    """Who answers so many calls, 10 at a time. Raises when one fails."""
    found: collections.Counter[str] = collections.Counter()
    for _ in range(0, count, 10):
        answers = await asyncio.gather(*(stub.Embed(nlp_pb2.EmbedRequest()) for _ in range(10)))
        found.update(answer.model.version for answer in answers)
    return set(found)


@contextlib.asynccontextmanager
async def _process(label: str, target: str) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.gateway.backend", "nlp", target, label, "minilm"),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        assert await process.stdout.readline() == b"listening\n"
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
