"""What the gateway's tests share: a folder for sockets, backends, and a gateway with a real Envoy in front of them."""

from __future__ import annotations

import asyncio
import logging
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from ortmesh import descriptors
from ortmesh.config import GatewaySettings
from ortmesh.nlp.v1.nlp_pb2_grpc import NlpServiceStub
from ortmesh.speech.v1.speech_pb2_grpc import SpeechServiceStub
from ortmesh.vision.v1.vision_pb2_grpc import VisionServiceStub
from ortmesh_gateway.gateway import Gateway
from ortmesh_gateway.proxy import Proxy
from tests.gateway.backend import Backend

if TYPE_CHECKING:
    from ortmesh.nlp.v1.nlp_pb2_grpc import NlpServiceAsyncStub
    from ortmesh.speech.v1.speech_pb2_grpc import SpeechServiceAsyncStub
    from ortmesh.vision.v1.vision_pb2_grpc import VisionServiceAsyncStub

MIB = 1024 * 1024
UNLIMITED = [("grpc.max_send_message_length", -1)]
HANG_SECONDS = 60.0
"""What lasts so long will not end by itself, however busy the machine is."""


@dataclass
class Caller:
    """A gateway, its Envoy, and a channel to it."""

    gateway: Gateway
    proxy: Proxy
    channel: grpc.aio.Channel

    @property
    def nlp(self) -> NlpServiceAsyncStub:
        return NlpServiceStub(self.channel)

    @property
    def vision(self) -> VisionServiceAsyncStub:
        return VisionServiceStub(self.channel)

    @property
    def speech(self) -> SpeechServiceAsyncStub:
        return SpeechServiceStub(self.channel)

    async def oip(self, method: str, request: Any = None, **options: Any) -> Any:
        """Calls a method of the Open Inference Protocol; `request` is a message, or its bytes."""
        described = descriptors.service(descriptors.OIP_SERVICE).methods_by_name[method]
        call = self.channel.unary_unary(
            f"/{descriptors.OIP_SERVICE}/{method}",
            request_serializer=lambda each: each if isinstance(each, bytes) else each.SerializeToString(),
            response_deserializer=descriptors.oip(described.output_type.name).FromString,
        )
        return await call(descriptors.oip(described.input_type.name)() if request is None else request, **options)

    async def infer(self, model: str, **options: Any) -> Any:
        return await self.oip("ModelInfer", descriptors.oip("ModelInferRequest")(model_name=model), **options)

    async def until_known(self, *names: str) -> None:
        """Waits until the mesh has exactly these models and their routes are live."""
        await until_known(self.gateway, *names)


async def until_known(gateway: Gateway, *names: str) -> None:
    changed = asyncio.Event()
    unsubscribe = gateway.directory.mesh.watch(changed.set)
    while set(gateway.directory.mesh.names()) != set(names):
        changed.clear()
        await changed.wait()
    unsubscribe()
    await gateway.settled()


async def until_logged(caplog: pytest.LogCaptureFixture, text: str) -> None:
    """Returns once the gateway has logged the text."""
    logged = asyncio.Event()

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if text in record.getMessage():
                logged.set()

    listener = Listener()
    logging.getLogger("ortmesh_gateway").addHandler(listener)
    try:
        async with asyncio.timeout(HANG_SECONDS):
            if text not in caplog.text:
                await logged.wait()
    finally:
        logging.getLogger("ortmesh_gateway").removeHandler(listener)


Mesh = Callable[..., AbstractAsyncContextManager[Caller]]


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder whose path is short enough for sockets."""
    made = Path(tempfile.mkdtemp(prefix="om-", dir="/tmp"))
    yield made
    shutil.rmtree(made)


@pytest.fixture
def mesh(folder: Path) -> Mesh:
    """`async with mesh(backend, …) as caller`: a gateway before them whose routes know all their models, and whose
    Envoy reaches them unless they are not `healthy`."""

    @asynccontextmanager
    async def running(*backends: Backend, healthy: bool = True, **settings: Any) -> AsyncIterator[Caller]:
        chosen: dict[str, Any] = {"address": "127.0.0.1:0", "drain_seconds": 0, "workers": 1, **settings}
        chosen.setdefault("runtime", folder / "gateway")
        chosen["backends"] = tuple(backend.argument for backend in backends)
        async with front(GatewaySettings(**chosen)) as (gateway, proxy):
            await until_known(gateway, *(each.name for backend in backends for each in backend.models))
            if healthy:
                await gateway.reached()
            async with grpc.aio.insecure_channel(proxy.address, options=UNLIMITED) as channel:
                yield Caller(gateway, proxy, channel)

    return running


@asynccontextmanager
async def front(settings: GatewaySettings) -> AsyncIterator[tuple[Gateway, Proxy]]:
    """A gateway and its Envoy, started; ended together, as `ortmesh up` ends them."""
    gateway, proxy = Gateway(settings), Proxy(settings)
    await asyncio.gather(gateway.start(), proxy.start())
    try:
        yield gateway, proxy
    finally:
        await asyncio.gather(gateway.stop(), proxy.stop())


@pytest.fixture
async def nlp(folder: Path) -> AsyncIterator[Backend]:
    """An nlp service with the model `minilm`."""
    backend = Backend("nlp", f"unix:{folder}/nlp", ["minilm"])
    await backend.start()
    yield backend
    await backend.stop()


@pytest.fixture
async def vision(folder: Path) -> AsyncIterator[Backend]:
    """A vision service with the model `efficientnet`."""
    backend = Backend("vision", f"unix:{folder}/vision", ["efficientnet"])
    await backend.start()
    yield backend
    await backend.stop()
