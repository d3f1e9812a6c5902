"""Envoy's life: it is restarted, drained, outlives its gateway, and never its keeper."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import select
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import grpc
import pytest

from ortmesh.config import GatewaySettings
from ortmesh.front.call import Call
from ortmesh.nlp.v1 import nlp_pb2
from ortmesh.nlp.v1.nlp_pb2_grpc import NlpServiceStub
from ortmesh_gateway.admin import Admin
from ortmesh_gateway.binary import find_envoy
from ortmesh_gateway.gateway import Gateway
from ortmesh_gateway.process import EnvoyFailed, EnvoyProcess, arguments
from ortmesh_gateway.proxy import Proxy
from tests.gateway.backend import Backend, model
from tests.gateway.conftest import HANG_SECONDS, Mesh, until_known


@pytest.mark.parametrize("address", ["127.0.0.1:0", "unix:{folder}/mesh"])
async def test_a_killed_envoy_is_started_again_where_it_was(
    address: str, folder: Path, mesh: Mesh, nlp: Backend, caplog: pytest.LogCaptureFixture
) -> None:
    """On the same port or socket, with the routes that it had."""
    async with mesh(nlp, address=address.format(folder=folder)) as caller:
        first = caller.proxy.envoy_pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        assert (await caller.infer("minilm", timeout=HANG_SECONDS, wait_for_ready=True)).model_version == "nlp"
        assert caller.proxy.envoy_pid not in (None, first)
        (line,) = [record.message for record in caplog.records if record.levelno == logging.ERROR]
        assert "Envoy was ended by SIGKILL; a new one starts in 0.1 s" in line


async def test_calls_in_flight_end_before_envoy_does(nlp: Backend, folder: Path) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def slow(request: Any, call: Call) -> Any:
        begun.set()
        await go_on.wait()
        return nlp_pb2.EmbedResponse()

    nlp.answers["Embed"] = slow
    proxy = Proxy(_settings(nlp, folder))
    await proxy.start()
    async with grpc.aio.insecure_channel(proxy.address) as channel:
        call = NlpServiceStub(channel).Embed(nlp_pb2.EmbedRequest(), wait_for_ready=True)
        running = asyncio.ensure_future(call)
        await begun.wait()
        stopping = asyncio.create_task(proxy.stop())
        _, pending = await asyncio.wait([stopping], timeout=0.2)
        assert pending, "it waits for the call"
        go_on.set()
        assert await running == nlp_pb2.EmbedResponse()
        await stopping
        assert proxy.envoy_pid is None


async def test_envoy_serves_on_while_its_gateway_is_started_anew(mesh: Mesh, nlp: Backend, folder: Path) -> None:
    """Also calls that are routed by their models' names, and models that come later are routed again."""
    async with mesh(nlp) as caller:
        await caller.gateway.stop()
        assert (await caller.infer("minilm")).model_version == "nlp"
        routes = (folder / "gateway" / "routes.json").read_text()
        again = Gateway(_settings(nlp, folder))
        await again.start()
        try:
            await until_known(again, "minilm")
            assert (folder / "gateway" / "routes.json").read_text() == routes
            nlp.tell(*nlp.models, model("e5", "nlp"))
            await until_known(again, "e5", "minilm")
            assert (await caller.infer("e5")).model_version == "nlp"
        finally:
            await again.stop()


async def test_a_new_gateway_keeps_the_routes_of_a_family_until_that_tells_of_itself(
    mesh: Mesh, nlp: Backend, folder: Path
) -> None:
    """It knows no model yet: routes to none would fail calls that Envoy serves well."""
    async with mesh(nlp) as caller:
        await caller.gateway.stop()
        settings = _settings(nlp, folder)
        again = Gateway(settings.model_copy(update={"backends": (f"nlp=unix:{folder}/nobody",)}))
        await again.start()
        try:
            await again.settled()
            assert (await caller.infer("minilm")).model_version == "nlp"
        finally:
            await again.stop()


async def test_a_port_in_use_is_said_before_anything_starts(nlp: Backend, folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        proxy = Proxy(_settings(nlp, folder, address=address))
        with pytest.raises(OSError, match=f"cannot listen on {address}: Address already in use"):
            await proxy.start()
        assert proxy.envoy_pid is None


async def test_a_second_proxy_in_the_same_folder_is_refused(mesh: Mesh, nlp: Backend, folder: Path) -> None:
    async with mesh(nlp) as caller:
        second = Proxy(_settings(nlp, folder))
        with pytest.raises(OSError, match=r"another process listens on this socket.*admin\.sock"):
            await second.start()
        assert (await caller.infer("minilm")).model_version == "nlp"


async def test_an_envoy_that_cannot_start_says_why(folder: Path) -> None:
    (folder / "envoy.json").write_text('{"static_resources": {"clusters": [{"name": ""}]}}')
    process = EnvoyProcess(
        find_envoy(), arguments(folder / "envoy.json", workers=1, drain_seconds=1), Admin(folder / "admin.sock")
    )
    with pytest.raises(EnvoyFailed, match=r"exited with 1 before it served.*Cluster"):
        await process.start()
    await process.stop(0)


async def test_a_line_of_any_length_does_not_stop_the_reading_of_its_log(folder: Path) -> None:
    """An Envoy whose log nobody reads stands still once the pipe is full."""
    envoy = folder / "envoy"
    envoy.write_text(
        "#!/bin/sh\nhead -c 300000 /dev/zero | tr '\\0' x >&2; echo >&2; echo 'error the reason' >&2; exit 3"
    )
    envoy.chmod(0o700)
    process = EnvoyProcess(envoy, [], Admin(folder / "admin.sock"))
    with pytest.raises(EnvoyFailed, match=r"exited with 3 before it served: .*xxx | the reason$") as caught:
        await process.start()
    assert len(str(caught.value)) < 5000
    await process.stop(0)


async def test_a_machine_without_room_for_a_new_envoy_is_asked_again(
    mesh: Mesh, nlp: Backend, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with mesh(nlp) as caller:
        spawn, refused = asyncio.create_subprocess_exec, asyncio.Event()

        async def refuse_once(*arguments: Any, **options: Any) -> Any:
            if refused.is_set():
                return await spawn(*arguments, **options)
            refused.set()
            raise BlockingIOError(11, "Resource temporarily unavailable")

        monkeypatch.setattr(asyncio, "create_subprocess_exec", refuse_once)
        assert caller.proxy.envoy_pid
        os.kill(caller.proxy.envoy_pid, signal.SIGKILL)
        await asyncio.wait_for(refused.wait(), HANG_SECONDS)
        assert (await caller.infer("minilm", timeout=HANG_SECONDS, wait_for_ready=True)).model_version == "nlp"
        assert "could not be started ([Errno 11] Resource temporarily unavailable)" in caplog.text


async def test_a_terminals_ctrl_c_does_not_reach_envoy(mesh: Mesh, nlp: Backend) -> None:
    """It would end at once, and with it the calls that the gateway lets end."""
    async with mesh(nlp) as caller:
        assert caller.proxy.envoy_pid
        assert os.getpgid(caller.proxy.envoy_pid) != os.getpgid(0)


async def test_the_gateway_listens_where_a_name_points(mesh: Mesh, nlp: Backend) -> None:
    async with mesh(nlp, address="localhost:0") as caller:
        assert caller.proxy.address.startswith("127.0.0.1:")
        assert (await caller.infer("minilm")).model_version == "nlp"


def test_envoy_ends_with_its_proxy(folder: Path) -> None:
    """However the proxy ends: nothing is left that holds the port."""
    gateway = _start("--listen", "127.0.0.1:0", "--backend", f"nlp=unix:{folder}/nobody", runtime=folder / "run")
    try:
        line = _until(gateway, "listens on")
        children = Path(f"/proc/{gateway.pid}/task/{gateway.pid}/children").read_text().split()
        envoys = [os.pidfd_open(int(pid)) for pid in children if "envoy" in Path(f"/proc/{pid}/comm").read_text()]
        assert envoys, line
    finally:
        gateway.kill()
        gateway.communicate()
    for envoy in envoys:
        assert select.select([envoy], [], [], HANG_SECONDS)[0], "Envoy still runs"
        os.close(envoy)


@pytest.mark.parametrize("module", ["ortmesh_gateway", "ortmesh_gateway.proxy"])
def test_a_process_ends_in_order_on_sigterm(module: str, folder: Path) -> None:
    listen = ("--listen", f"unix:{folder}/mesh") if module.endswith("proxy") else ()
    gateway = _start(*listen, "--backend", f"nlp=unix:{folder}/nobody", runtime=folder / "run", module=module)
    _until(gateway, "listen")
    gateway.send_signal(signal.SIGTERM)
    gateway.communicate(timeout=HANG_SECONDS)
    assert gateway.returncode == 0
    assert not list(folder.rglob("*.sock"))


def test_the_access_log_tells_of_a_call_without_its_payload(folder: Path) -> None:
    words = ("--listen", f"unix:{folder}/mesh", "--access-log", "--backend", f"nlp=unix:{folder}/nobody")
    gateway = _start(*words, runtime=folder / "run")
    _until(gateway, "listens on")
    with grpc.insecure_channel(f"unix:{folder}/mesh") as channel, pytest.raises(grpc.RpcError):
        NlpServiceStub(channel).Embed(nlp_pb2.EmbedRequest(texts=["a secret"]), timeout=HANG_SECONDS)
    gateway.send_signal(signal.SIGTERM)
    out, _ = gateway.communicate(timeout=HANG_SECONDS)
    (line,) = out.splitlines()
    told = json.loads(line)
    assert told["method"] == "/ortmesh.nlp.v1.NlpService/Embed"
    assert (told["status"], told["cluster"]) == ("UNAVAILABLE", "nlp")
    assert "secret" not in line


def test_the_command_fails_plainly_when_the_port_is_taken(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        words = ("--listen", f"127.0.0.1:{taken.getsockname()[1]}", "--backend", "nlp=unix:/tmp/nobody")
        gateway = _start(*words, runtime=folder / "run")
        _, said = gateway.communicate(timeout=HANG_SECONDS)
    assert gateway.returncode == 1
    assert "Address already in use" in said
    assert "Traceback" not in said


def test_a_runtime_folder_too_deep_for_sockets_is_told(folder: Path) -> None:
    gateway = _start(
        "--listen", f"unix:{folder}/mesh", "--backend", f"nlp=unix:{folder}/x", runtime=Path("/tmp/" + 88 * "x")
    )
    _, said = gateway.communicate(timeout=HANG_SECONDS)
    assert gateway.returncode == 1
    assert "the folder of the sockets has at most 92 bytes, see ORTMESH_GATEWAY_RUNTIME" in said
    assert "Traceback" not in said


def test_the_runtime_folder_may_be_a_relative_one(folder: Path) -> None:
    gateway = _start(
        *("--listen", f"unix:{folder}/mesh", "--backend", f"nlp=unix:{folder}/x"), runtime=Path("run"), cwd=folder
    )
    _until(gateway, "listens on")
    gateway.send_signal(signal.SIGTERM)
    gateway.communicate(timeout=HANG_SECONDS)
    assert gateway.returncode == 0
    assert (folder / "run" / "routes.json").exists()


def test_what_ends_a_gateway_that_served_is_not_told_as_a_failed_start(folder: Path) -> None:
    code = (
        "import argparse\n"
        "from ortmesh_gateway.command import main\n"
        "from ortmesh_gateway.gateway import Gateway\n"
        "async def failed(self): raise OSError('a bug')\n"
        "Gateway.failed = failed\n"
        "main('gateway', argparse.ArgumentParser(), Gateway)"
    )
    environment = os.environ | {"ORTMESH_GATEWAY_RUNTIME": str(folder), "ORTMESH_GATEWAY_DRAIN_SECONDS": "0"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False, timeout=HANG_SECONDS
    )
    assert done.returncode == 1
    assert "the gateway can't go on" in done.stderr
    assert "a bug" in done.stderr
    assert "can't start" not in done.stderr


@pytest.mark.parametrize("module", ["ortmesh_gateway", "ortmesh_gateway.proxy"])
def test_the_command_names_a_wrong_backend(module: str, folder: Path) -> None:
    gateway = _start("--backend", "smell=unix:/tmp/x", runtime=folder / "run", module=module)
    _, said = gateway.communicate(timeout=HANG_SECONDS)
    assert gateway.returncode == 2
    assert "'smell=unix:/tmp/x' is not FAMILY=ADDRESS" in said


def _settings(nlp: Backend, folder: Path, address: str = "127.0.0.1:0") -> GatewaySettings:
    runtime = folder / "gateway"
    return GatewaySettings(address=address, backends=(nlp.argument,), drain_seconds=0, runtime=runtime)


def _start(
    *arguments: str, runtime: Path, cwd: Path | None = None, module: str = "ortmesh_gateway.proxy"
) -> subprocess.Popen[str]:
    environment = os.environ | {"ORTMESH_GATEWAY_DRAIN_SECONDS": "0", "ORTMESH_GATEWAY_RUNTIME": str(runtime)}
    command = [sys.executable, "-m", module, *arguments]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, cwd=cwd
    )


def _until(process: subprocess.Popen[str], text: str) -> str:
    """Reads the log to the line with this text; fails with all of it when the process ends before."""
    assert process.stderr is not None
    read = []
    for line in process.stderr:
        read.append(line)
        if text in line:
            return line
    raise AssertionError("".join(read))
