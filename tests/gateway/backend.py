"""A small service for the gateway's tests: a real front, answers that say who gave them, models as a test sets them.

`python -m tests.gateway.backend FAMILY SOCKET LABEL MODEL…` runs one in a process of its own, to be killed.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any

from ortmesh import descriptors
from ortmesh.front.call import Call
from ortmesh.front.health import Health
from ortmesh.front.limits import FrontLimits
from ortmesh.front.methods import Method, bind, private
from ortmesh.front.observer import NoTelemetry
from ortmesh.front.server import Front
from ortmesh.models.v1 import models_pb2
from ortmesh_gateway.methods import services

Handler = Callable[[Any, Call], Awaitable[Any]]
StreamHandler = Callable[[Any, Call], AsyncIterator[Any]]

READY = models_pb2.MODEL_STATE_READY
LIMITS = FrontLimits(drain_seconds=0.0, pool_threads=1)


def model(
    name: str, family: str, *, version: str = "1", state: models_pb2.ModelState.ValueType = READY, **fields: Any
) -> models_pb2.Model:
    """A model as a service reports it."""
    fields.setdefault("default_version", True)
    return models_pb2.Model(name=name, version=version, family=family, state=state, **fields)


class Backend:
    """One replica of a family's service on a Unix socket."""

    def __init__(
        self, family: str, target: str, models: Iterable[str] = (), *, label: str = "", adapter: Any = "grpcio"
    ) -> None:
        self.family = family
        self.label = label or family
        self.models = [model(name, family) for name in models]
        self.calls: list[Call] = []
        """Every call of a task or of OIP that came here."""
        self.answers: dict[str, Handler] = {}
        """What a test wants a method to do, by its name."""
        self.streams: dict[str, StreamHandler] = {}
        """The same of methods that answer with a stream; without one it is empty."""
        self.health = Health()
        self.serve(True)
        self._changed = asyncio.Event()
        self._front = Front(
            [*self._tasks(), *self._oip(), *self._model_service()],
            target=target,
            adapter=adapter,
            health=self.health,
            telemetry=NoTelemetry(),
            limits=LIMITS,
        )

    @property
    def argument(self) -> str:
        """As the gateway takes it."""
        return f"{self.family}={self._front.address}"

    def serve(self, serving: bool) -> None:
        """Says by health whether it serves."""
        for name in ("", *services(self.family)):
            self.health.set(name, serving)

    async def start(self) -> None:
        await self._front.start()

    async def stop(self) -> None:
        await self._front.drain(0.5)

    def tell(self, *models: models_pb2.Model) -> None:
        """From now on these are its models."""
        self.models = list(models)
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def _tasks(self) -> list[Method]:
        service = f"ortmesh.{self.family}.v1.{self.family.capitalize()}Service"
        described = descriptors.service(service).methods_by_name
        handlers = {
            name: self._streamer(name) if method.server_streaming else self._handler(name, method.output_type.full_name)
            for name, method in described.items()
        }
        return bind(service, handlers, messages=private)

    def _streamer(self, name: str) -> StreamHandler:
        async def answer(request: Any, call: Call) -> AsyncIterator[Any]:
            self.calls.append(call)
            if name in self.streams:
                async for each in self.streams[name](request, call):
                    yield each

        return answer

    def _handler(self, name: str, output: str) -> Handler:
        async def answer(request: Any, call: Call) -> Any:
            self.calls.append(call)
            if name in self.answers:
                return await self.answers[name](request, call)
            return private(output)(model={"name": request.model, "version": self.label})

        return answer

    def _oip(self) -> list[Method]:
        async def infer(request: Any, call: Call) -> Any:
            self.calls.append(call)
            return descriptors.oip("ModelInferResponse")(model_name=request.model_name, model_version=self.label)

        async def ready(request: Any, call: Call) -> Any:
            self.calls.append(call)
            return descriptors.oip("ModelReadyResponse")(ready=True)

        async def metadata(request: Any, call: Call) -> Any:
            self.calls.append(call)
            return descriptors.oip("ModelMetadataResponse")(name=request.name, platform=self.label)

        async def stream(requests: Any, call: Call) -> AsyncIterator[Any]:
            self.calls.append(call)
            async for request in requests:
                answer = {"model_name": request.model_name, "model_version": self.label}
                yield descriptors.oip("ModelStreamInferResponse")(infer_response=answer)

        handlers = {"ModelStreamInfer": stream, "ModelInfer": infer, "ModelReady": ready, "ModelMetadata": metadata}
        return bind(descriptors.OIP_SERVICE, handlers, messages=private)

    def _model_service(self) -> list[Method]:
        async def watch(request: Any, call: Call) -> AsyncIterator[Any]:
            while True:
                changed = self._changed
                yield models_pb2.WatchModelsResponse(models=self.models)
                await changed.wait()

        handlers = {"WatchModels": watch}
        return bind(
            "ortmesh.models.v1.ModelService", handlers, messages=lambda name: getattr(models_pb2, name.split(".")[-1])
        )


async def _main(family: str, target: str, label: str, *models: str) -> None:
    backend = Backend(family, target, models, label=label)
    await backend.start()
    print("listening", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_main(*sys.argv[1:]))
