"""follow: the replicas' models, watched for as long as the gateway runs. Stage: gateway."""

from __future__ import annotations

import asyncio
import logging

import grpc

from ortmesh.models.v1 import models_pb2, models_pb2_grpc
from ortmesh_gateway.addresses import resolve_all
from ortmesh_gateway.mesh import Mesh, Replica

log = logging.getLogger(__name__)

FIRST_DELAY_SECONDS = 0.1
LONGEST_DELAY_SECONDS = 2.0
SILENT_SECONDS = 5.0
REMIND_SECONDS = 60.0
"""When it is told first, and how often again, that a replica does not answer."""
RESOLVE_SECONDS = 5.0
"""How often a name is looked up, as Envoy does."""
MAX_ANSWER_BYTES = 64 * 1024 * 1024
"""All models of a service with their cards."""
KEEPALIVE_SECONDS = 10.0
"""So often a replica is asked whether it is there. The fronts allow no more."""
KEEPALIVE_TIMEOUT_SECONDS = 5.0
RENEWED = (grpc.StatusCode.OK, grpc.StatusCode.DEADLINE_EXCEEDED)
"""How a watch ends that went well: the service bounds its length."""


async def follow(replica: Replica, mesh: Mesh) -> None:
    """Reports the models of a replica, or of all replicas that a name means, until it is cancelled."""
    await (_follow_name(replica, mesh) if replica.address.is_name else _follow_one(replica, mesh))


async def _follow_name(named: Replica, mesh: Mesh) -> None:
    """Follows every address behind a name, as they come and go: a headless Service means all its pods that are ready.

    While the name means nothing, those that it meant last are followed.
    """
    following: dict[Replica, asyncio.Task[None]] = {}
    async with asyncio.TaskGroup() as group:
        while True:
            found = await _behind(named)
            for replica in found - following.keys():
                mesh.join(replica)
                following[replica] = group.create_task(_follow_one(replica, mesh), name=f"follow {replica}")
            for replica in (following.keys() - found) if found else ():
                following.pop(replica).cancel()
                mesh.leave(replica)
            if found:
                mesh.leave(named)
            await asyncio.sleep(RESOLVE_SECONDS)


async def _behind(named: Replica) -> set[Replica]:
    try:
        return {Replica(named.family, address) for address in await resolve_all(named.address)}
    except OSError as error:
        log.debug("%s", error)
        return set()


async def _follow_one(replica: Replica, mesh: Mesh) -> None:
    """Reports the replica's models to the mesh until it is cancelled; a lost replica is tried again for ever."""
    delay = FIRST_DELAY_SECONDS
    async with grpc.aio.insecure_channel(str(replica.address), options=_options()) as channel:
        while True:
            heard = await _watch(channel, replica, mesh)
            delay = FIRST_DELAY_SECONDS if heard else min(2 * delay, LONGEST_DELAY_SECONDS)
            await asyncio.sleep(delay)


def _options() -> list[tuple[str, int]]:
    return [
        ("grpc.max_receive_message_length", MAX_ANSWER_BYTES),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 1000),
        # A proxy that the environment names is for the world outside.
        ("grpc.enable_http_proxy", 0),
        # A machine may vanish without a word, and a process that hangs says none, on a socket neither.
        ("grpc.keepalive_time_ms", int(1000 * KEEPALIVE_SECONDS)),
        ("grpc.keepalive_timeout_ms", int(1000 * KEEPALIVE_TIMEOUT_SECONDS)),
        # gRPC waits for the answer as long as this says, a minute by default, whatever the line above does.
        ("grpc.http2.ping_timeout_ms", int(1000 * KEEPALIVE_TIMEOUT_SECONDS)),
        # A watch may be silent for hours, and gRPC would stop asking after two answers.
        ("grpc.http2.max_pings_without_data", 0),
    ]


async def _watch(channel: grpc.aio.Channel, replica: Replica, mesh: Mesh) -> bool:
    """Follows one stream to its end; True when it brought anything."""
    stub = models_pb2_grpc.ModelServiceStub(channel)
    heard = False
    waiting = asyncio.create_task(_tell_of_silence(replica))
    # Waits for a replica that is not up yet: that is no failure, and the channel connects when it comes.
    stream = stub.WatchModels(models_pb2.WatchModelsRequest(), wait_for_ready=True)
    try:
        async for answer in stream:
            if not heard:
                waiting.cancel()
                log.info("%s is there with %d models", replica, len(answer.models))
            heard = True
            mesh.report(replica, answer.models)
        code, details = await stream.code(), ""
    except grpc.aio.AioRpcError as error:
        code, details = error.code(), error.details() or ""
    finally:
        waiting.cancel()
    if code not in RENEWED:
        mesh.lose(replica)
        log.warning("%s is lost: %s %s", replica, code.name, details)
    return heard


async def _tell_of_silence(replica: Replica) -> None:
    """Until it is cancelled: somebody who waits for a replica that never comes should learn which."""
    await asyncio.sleep(SILENT_SECONDS)
    while True:
        log.warning("%s does not answer; it is waited for", replica)
        await asyncio.sleep(REMIND_SECONDS)
