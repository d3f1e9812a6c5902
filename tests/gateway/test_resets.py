"""Calls that their caller ends: at their deadlines they cost it nothing, in storms its connection."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any

from bench.attack.frames import CANCEL, GREETING, RST_STREAM, frame, head, request
from ortmesh.front.call import Call
from ortmesh.nlp.v1.nlp_pb2 import EmbedRequest
from ortmesh_gateway.admin import Admin
from ortmesh_gateway.envoy import RESETS_A_SECOND
from ortmesh_gateway.runtime import Runtime
from tests.gateway.backend import Backend
from tests.gateway.conftest import Mesh
from tests.wire import open_socket

AT_ONCE, ROUNDS = 100, 6
"""More than the 250 at which Envoy would end the connection, fewer than what may come at once."""
STORM = 8 * RESETS_A_SECOND
BLOCK = request("/ortmesh.nlp.v1.NlpService/Embed")


async def test_calls_that_are_left_cost_their_caller_no_connection(mesh: Mesh, nlp: Backend, folder: Path) -> None:
    """As gRPC libraries leave them when a deadline passes: each soon after it began, and none answered."""
    waiting = asyncio.Semaphore(0)

    async def silent(request: Any, call: Call) -> Any:
        waiting.release()
        await asyncio.sleep(60)

    nlp.answers["Embed"] = silent
    async with mesh(nlp) as caller:
        for _ in range(ROUNDS):
            calls = [caller.nlp.Embed(EmbedRequest()) for _ in range(AT_ONCE)]
            for _ in calls:
                await waiting.acquire()
            for call in calls:
                call.cancel()
            ends = await asyncio.gather(*calls, return_exceptions=True)
            assert {type(end) for end in ends} == {asyncio.CancelledError}
        seen = await Admin(Runtime(folder / "gateway").admin).stats("http.mesh.downstream_")
    assert seen["cx_total"] == 1
    assert seen["rq_too_many_premature_resets"] == 0


async def test_a_storm_of_calls_that_are_left_at_once_ends_its_connection(mesh: Mesh, nlp: Backend) -> None:
    """Long before all of it was looked at."""

    def pair(number: int) -> bytes:
        stream = 2 * number + 1
        return head(stream, BLOCK) + frame(RST_STREAM, 0, stream, CANCEL)

    storm = GREETING + b"".join(pair(number) for number in range(STORM))

    def send(address: str) -> None:
        """Returns when the other end has closed the connection. TimeoutError when it does not."""
        with open_socket(address) as connection, contextlib.suppress(ConnectionError):
            connection.sendall(storm)
            while connection.recv(65536):
                pass

    async with mesh(nlp) as caller:
        await asyncio.to_thread(send, caller.proxy.address)
        await caller.nlp.Embed(EmbedRequest())
