"""A service whose streams never end, for readers that don't read: ModelService with answers of 64 KB.

`python -m bench.attack.bulk ADDRESS ADAPTER`, until it is ended.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from typing import Any, cast

from ortmesh.front.address import Adapter
from ortmesh.front.call import Call
from ortmesh.front.health import Health
from ortmesh.front.limits import FrontLimits
from ortmesh.front.methods import bind, generated
from ortmesh.front.observer import NoTelemetry
from ortmesh.front.server import Front
from ortmesh.models.v1 import models_pb2

SERVICE = "ortmesh.models.v1.ModelService"
ANSWER = models_pb2.WatchModelsResponse(models=[models_pb2.Model(name="bulk", state_reason="a" * 65_536)])


async def watch(request: models_pb2.WatchModelsRequest, call: Call) -> AsyncIterator[models_pb2.WatchModelsResponse]:
    """The same answer for ever, as fast as it is taken."""
    while True:
        yield ANSWER
        await asyncio.sleep(0)


async def list_models(request: models_pb2.ListModelsRequest, call: Call) -> models_pb2.ListModelsResponse:
    """What a normal caller asks."""
    return models_pb2.ListModelsResponse()


async def _main(address: str, adapter: str) -> None:
    handlers: dict[str, Any] = {"WatchModels": watch, "ListModels": list_models}
    health = Health()
    health.set("", True)
    front = Front(
        bind(SERVICE, handlers, messages=generated(models_pb2)),
        target=address,
        adapter=cast(Adapter, adapter),
        health=health,
        telemetry=NoTelemetry(),
        limits=FrontLimits(),
    )
    await front.start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_main(*sys.argv[1:]))
