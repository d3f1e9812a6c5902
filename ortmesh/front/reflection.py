"""Server reflection for the grpcio adapter: which services there are, and their descriptors. Stage: front."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

import grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2

from ortmesh import descriptors
from ortmesh.errors import Overloaded
from ortmesh.front.grpcio_context import send
from ortmesh.front.status import Failure

MAX_STREAMS = 64
"""Callers at once; they have no permits."""


def handlers(services: Sequence[str]) -> dict[str, grpc.RpcMethodHandler[Any, Any]]:
    """By path, under both names of reflection. The library has v1alpha only; v1's messages are the same bytes."""
    servicer = reflection.aio.ReflectionServicer([*services, *descriptors.REFLECTION_SERVICES], pool=descriptors.pool())
    free = MAX_STREAMS

    async def serve(requests: Any, context: Any) -> AsyncIterator[Any]:
        nonlocal free
        if not free:
            await send(context, Failure.of(Overloaded("too many ask for descriptors", retry_after_seconds=1.0)))
        free -= 1
        try:
            async for answer in servicer.ServerReflectionInfo(requests, context):
                yield answer
        finally:
            free += 1

    handler = grpc.stream_stream_rpc_method_handler(
        serve,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    return {f"/{service}/ServerReflectionInfo": handler for service in descriptors.REFLECTION_SERVICES}
