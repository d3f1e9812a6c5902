"""Routes that could not be published are tried again: models get ready whatever happened meanwhile."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

import pytest

from ortmesh.models.v1 import models_pb2
from ortmesh_gateway import files
from ortmesh_gateway.gateway import Gateway
from tests.gateway.backend import Backend, model
from tests.gateway.conftest import HANG_SECONDS, Mesh, until_logged


async def test_a_model_that_comes_while_envoy_is_away_is_ready_once_it_is_back(
    mesh: Mesh, nlp: Backend, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    spawn, away, told = asyncio.create_subprocess_exec, asyncio.Event(), asyncio.Event()

    async def once_told(*arguments: Any, **options: Any) -> Any:
        away.set()
        await told.wait()
        return await spawn(*arguments, **options)

    async with mesh(nlp) as caller:
        assert caller.proxy.envoy_pid
        monkeypatch.setattr(asyncio, "create_subprocess_exec", once_told)
        os.kill(caller.proxy.envoy_pid, signal.SIGKILL)
        await away.wait()
        nlp.tell(*nlp.models, model("e5", "nlp"))
        await until_logged(caplog, "Envoy is not there to take the new routes")
        told.set()
        await _until_ready(caller.gateway, "e5")
        assert (await caller.infer("e5", wait_for_ready=True)).model_version == "nlp"


async def test_a_disk_without_room_delays_a_model_and_nothing_else(
    mesh: Mesh, nlp: Backend, caplog: pytest.LogCaptureFixture
) -> None:
    async with mesh(nlp) as caller:
        in_the_way = caller.gateway.routes.path.with_suffix(".new")
        in_the_way.mkdir()
        failed = asyncio.create_task(caller.gateway.failed())
        nlp.tell(*nlp.models, model("e5", "nlp"))
        await until_logged(caplog, "the new routes are not live: [Errno 21] Is a directory")
        assert (await caller.infer("minilm")).model_version == "nlp"
        assert not failed.done()
        in_the_way.rmdir()
        await _until_ready(caller.gateway, "e5")
        failed.cancel()


async def test_routes_that_envoy_did_not_take_in_time_are_tried_again(
    mesh: Mesh, nlp: Backend, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with mesh(nlp) as caller:
        monkeypatch.setattr(files, "APPLY_SECONDS", 0.0)
        nlp.tell(*nlp.models, model("e5", "nlp"))
        await until_logged(caplog, "Envoy did not take the new routes")
        monkeypatch.undo()
        await _until_ready(caller.gateway, "e5")


async def _until_ready(gateway: Gateway, name: str) -> None:
    mesh, changed = gateway.directory.mesh, asyncio.Event()
    unsubscribe = mesh.watch(changed.set)
    async with asyncio.timeout(HANG_SECONDS):
        while name not in mesh.names() or mesh.find(name).state != models_pb2.MODEL_STATE_READY:
            changed.clear()
            await changed.wait()
    unsubscribe()
