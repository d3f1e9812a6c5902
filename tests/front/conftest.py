"""Real servers on both adapters, real clients, and the law that every test ends with: nothing is left in flight."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from google.protobuf.wrappers_pb2 import StringValue

from ortmesh.front.health import Health
from ortmesh.front.limits import FrontLimits
from ortmesh.front.server import Front
from tests.front.echo import SERVICE, Echo

HANG_SECONDS = 60.0
"""What lasts so long will not end by itself, however busy the machine is."""
DEADLINE_SECONDS = 2.0
"""Of calls that must begin before it passes."""


class Recorder:
    """Telemetry that a test can read."""

    def __init__(self) -> None:
        self.codes: Counter[tuple[str, str]] = Counter()
        self.request_bytes: Counter[str] = Counter()
        self.flying: Callable[[], int] = int

    def rpc(self, path: str) -> RpcRecorder:
        return RpcRecorder(self, path.rpartition("/")[2])

    def in_flight(self, read: Callable[[], int]) -> None:
        self.flying = read


class RpcRecorder:
    def __init__(self, recorder: Recorder, method: str) -> None:
        self.recorder = recorder
        self.method = method

    def begin(self, metadata: Any) -> None:
        return None

    def end(self, code: str, seconds: float, span: object, request_bytes: int, response_bytes: int) -> None:
        self.recorder.codes[self.method, code] += 1
        self.recorder.request_bytes[self.method] += request_bytes


class Service:
    """A running front, the handlers behind it, and a client's channel to it."""

    def __init__(self, front: Front, echo: Echo, health: Health, recorder: Recorder) -> None:
        self.front = front
        self.echo = echo
        self.health = health
        self.recorder = recorder
        self.channel = grpc.aio.insecure_channel(front.address)
        self.drained = False

    def unary(self, method: str, text: str, **options: Any) -> Any:
        """Calls a unary method of the echo service."""
        return self._stub(self.channel.unary_unary, method)(StringValue(value=text), **options)

    def stream(self, method: str, text: str, **options: Any) -> Any:
        """Calls a streaming method of the echo service."""
        return self._stub(self.channel.unary_stream, method)(StringValue(value=text), **options)

    def chat(self, method: str = "Chat", **options: Any) -> Any:
        """Begins a stream both ways of the echo service; messages are bytes where they are none."""
        return self.bare(self.channel.stream_stream, method)(**options)

    def gather(self, *texts: str | bytes, **options: Any) -> Any:
        """Sends a stream that has one answer."""
        return self.bare(self.channel.stream_unary, "Gather")(iter(texts), **options)

    def bare(self, kind: Callable[..., Any], method: str) -> Any:
        """A method whose requests are texts, or the bytes themselves."""
        return kind(
            f"/{SERVICE}/{method}",
            request_serializer=lambda each: (
                each if isinstance(each, bytes) else StringValue(value=each).SerializeToString()
            ),
            response_deserializer=lambda answer: StringValue.FromString(answer).value,
        )

    async def say(self, method: str, text: str, **options: Any) -> str:
        """Calls a unary method and returns the text of its answer."""
        return str((await self.unary(method, text, **options)).value)

    async def refused(self, method: str, text: str, **options: Any) -> grpc.aio.AioRpcError:
        """Calls a unary method that must fail and returns its error."""
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await self.unary(method, text, **options)
        return caught.value

    async def drain(self, grace_seconds: float = 1.0) -> None:
        self.drained = True
        await self.front.drain(grace_seconds)

    async def ended(self, method: str, code: str, count: int = 1) -> None:
        """Waits until telemetry has seen so many calls end."""
        await until(lambda: self.recorder.codes[method, code] >= count)

    def _stub(self, kind: Callable[..., Any], method: str) -> Any:
        return kind(
            f"/{SERVICE}/{method}",
            request_serializer=StringValue.SerializeToString,
            response_deserializer=StringValue.FromString,
        )


async def until(condition: Callable[[], object]) -> None:
    """Waits until something that happens in another thread or task is so."""
    async with asyncio.timeout(HANG_SECONDS):
        while not condition():  # noqa: ASYNC110 (what is waited for has no event)
            await asyncio.sleep(0.005)


Serve = Callable[..., Awaitable[Service]]


@pytest.fixture
def sockets() -> Iterator[Path]:
    """A folder for Unix sockets: pytest's own is too deep for their 107 bytes."""
    folder = Path(tempfile.mkdtemp(prefix="om-", dir="/tmp"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(params=["native", "grpcio"])
def adapter(request: pytest.FixtureRequest) -> str:
    """Every test runs on both adapters."""
    return str(request.param)


@pytest.fixture
async def serve(adapter: str, sockets: Path) -> AsyncIterator[Serve]:
    """Starts services: native ones on a Unix socket, grpcio ones on TCP, unless a target is given."""
    services: list[Service] = []
    usual = f"unix:{sockets}/front" if adapter == "native" else "127.0.0.1:0"

    async def start(target: str = usual, **limits: Any) -> Service:
        echo, health, recorder = Echo(), Health(), Recorder()
        front = Front(
            echo.methods(),
            target=target,
            adapter=adapter,  # type: ignore[arg-type]
            health=health,
            telemetry=recorder,
            limits=FrontLimits(**{"drain_seconds": 0.0, "pool_threads": 2, **limits}),
        )
        await front.start()
        services.append(Service(front, echo, health, recorder))
        return services[-1]

    yield start
    for service in services:
        service.echo.release.set()
        if not service.drained:
            await service.drain()
        await service.channel.close()
        admission = service.front._dispatcher.admission
        assert (admission.calls, admission.streams, admission.bytes) == (0, 0, 0)
        assert service.recorder.flying() == 0


@pytest.fixture
async def service(serve: Serve) -> Service:
    """A service with the default limits."""
    return await serve()
