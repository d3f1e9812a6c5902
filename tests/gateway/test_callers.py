"""Who a caller is for the services: the address it calls from, which nobody but the gateway says."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

from ortmesh.front.dispatch import CALLER_KEY
from ortmesh.nlp.v1.nlp_pb2 import EmbedRequest
from tests.gateway.backend import Backend
from tests.gateway.conftest import Mesh
from tests.wire import ANSWER_SECONDS, Caller, Headers, framed

EMBED = "/ortmesh.nlp.v1.NlpService/Embed"


async def test_callers_from_two_addresses_are_two(mesh: Mesh, nlp: Backend) -> None:
    async with mesh(nlp) as caller:
        for source in ("127.0.0.1", "127.0.0.2"):
            await asyncio.to_thread(_embed, caller.proxy.address, source)
    assert [call.caller for call in nlp.calls] == ["127.0.0.1", "127.0.0.2"]


async def test_connections_from_one_address_are_one_caller(mesh: Mesh, nlp: Backend) -> None:
    async with mesh(nlp) as caller:
        for _ in range(2):
            await asyncio.to_thread(_embed, caller.proxy.address, "127.0.0.2")
    assert {call.caller for call in nlp.calls} == {"127.0.0.2"}


async def test_a_caller_is_nobody_else_by_saying_so(mesh: Mesh, nlp: Backend) -> None:
    """Neither by our header, however often it is sent, nor by those of proxies."""
    forged = ((CALLER_KEY, "127.0.0.9"), (CALLER_KEY, "root"), ("x-forwarded-for", "127.0.0.9"))
    async with mesh(nlp) as caller:
        await asyncio.to_thread(_embed, caller.proxy.address, "127.0.0.2", forged)
    (call,) = nlp.calls
    assert call.caller == call.metadata[CALLER_KEY] == "127.0.0.2"


async def test_callers_on_a_unix_socket_have_no_name(mesh: Mesh, nlp: Backend, folder: Path) -> None:
    async with mesh(nlp, address=f"unix:{folder}/mesh") as caller:
        await caller.nlp.Embed(EmbedRequest(), metadata=((CALLER_KEY, "root"),))
    (call,) = nlp.calls
    assert call.caller == ""
    assert CALLER_KEY not in call.metadata


def _embed(address: str, source: str, headers: Headers = ()) -> None:
    """One good call from an address of this machine."""
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=ANSWER_SECONDS, source_address=(source, 0)) as connection:
        caller = Caller(connection)
        caller.begin(EMBED, headers)
        caller.send(framed(b""), end=True)
        assert caller.until_ended().code == 0
