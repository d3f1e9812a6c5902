"""A replica on another machine that vanishes without a word is noticed."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from ortmesh_gateway import follow as module
from ortmesh_gateway.addresses import Address
from ortmesh_gateway.follow import follow
from ortmesh_gateway.mesh import Mesh, Replica
from tests.gateway.backend import Backend
from tests.gateway.conftest import HANG_SECONDS, until_logged


class Wire:
    """A TCP port before a socket, whose wire can be cut: bytes are lost, connections stay."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._tasks: list[asyncio.Task[None]] = []
        self.cut = False

    async def start(self) -> int:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        return int(self._server.sockets[0].getsockname()[1])

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_unix_connection(self._path)
        self._tasks += [
            asyncio.create_task(self._carry(reader, far_writer)),
            asyncio.create_task(self._carry(far_reader, writer)),
        ]

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                if not self.cut:
                    writer.write(data)
        finally:
            writer.close()

    async def stop(self) -> None:
        self._server.close()
        await self._server.wait_closed()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def test_a_replica_that_vanishes_without_a_word_is_lost(
    nlp: Backend, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "KEEPALIVE_SECONDS", 1.0)
    monkeypatch.setattr(module, "KEEPALIVE_TIMEOUT_SECONDS", 0.5)
    wire = Wire(f"{folder}/nlp")
    replica = Replica("nlp", Address("127.0.0.1", await wire.start()))
    mesh, changed = Mesh([replica]), asyncio.Event()
    mesh.routed(["minilm"])
    mesh.watch(changed.set)
    following = asyncio.create_task(follow(replica, mesh))
    try:
        async with asyncio.timeout(HANG_SECONDS):
            while not mesh.ready("nlp"):
                changed.clear()
                await changed.wait()
            wire.cut = True
            while mesh.ready("nlp"):
                changed.clear()
                await changed.wait()
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        await wire.stop()


async def test_every_address_that_a_name_means_is_followed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As they come and go; while the name means nothing, those that it meant last."""
    here = [Backend("nlp", f"unix:{folder}/{name}", [name]) for name in ("one", "two")]
    wires = [Wire(f"{folder}/{name}") for name in ("one", "two")]
    for backend in here:
        await backend.start()
    ports = [await wire.start() for wire in wires]
    behind: list[Address] = []
    asked_in_vain = asyncio.Semaphore(0)

    async def resolve_all(address: Address) -> tuple[Address, ...]:
        if not behind:
            asked_in_vain.release()
            raise OSError("nobody knows the name")
        return tuple(behind)

    monkeypatch.setattr(module, "resolve_all", resolve_all)
    monkeypatch.setattr(module, "RESOLVE_SECONDS", 0.05)
    named = Replica("nlp", Address("ortmesh-nlp", 50051))
    mesh, changed = Mesh([named]), asyncio.Event()
    mesh.watch(changed.set)
    following = asyncio.create_task(follow(named, mesh))

    async def until(*names: str) -> None:
        async with asyncio.timeout(HANG_SECONDS):
            while mesh.names() != list(names):
                await changed.wait()
                changed.clear()

    one, two = (Address("127.0.0.1", port) for port in ports)
    behind[:] = [one]
    await until("one")
    behind[:] = [one, two]
    await until("one", "two")
    behind[:] = [two]
    await until("two")
    behind.clear()
    async with asyncio.timeout(HANG_SECONDS):
        for _ in range(3):
            await asked_in_vain.acquire()
    assert mesh.names() == ["two"]
    following.cancel()
    await asyncio.wait([following])
    for each in (*wires, *here):
        await each.stop()


async def test_a_replica_that_never_comes_is_told(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "SILENT_SECONDS", 0.05)
    replica = Replica("nlp", Address(path=f"{folder}/nobody"))
    following = asyncio.create_task(follow(replica, Mesh([replica])))
    await until_logged(caplog, f"nlp at unix:{folder}/nobody does not answer")
    following.cancel()
    await asyncio.wait([following])
