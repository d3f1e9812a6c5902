"""What is attacked: the gateway before real services, or a service's own port, started in processes of their own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from bench.attack import processes
from bench.attack.caller import call_once
from bench.attack.door import Door
from bench.attack.processes import CHECKOUT
from ortmesh.client import Client
from ortmesh.config import GatewaySettings
from ortmesh.models.v1 import models_pb2
from ortmesh.nlp.v1 import nlp_pb2
from ortmesh_gateway.addresses import Address
from ortmesh_gateway.binary import find_envoy
from ortmesh_gateway.envoy import bootstrap
from ortmesh_gateway.process import arguments
from ortmesh_gateway.routes import route_configuration

START_SECONDS = 120.0
STOP_SECONDS = 60.0
PAUSE_SECONDS = 0.1
CHEAP = "/ortmesh.nlp.v1.NlpService/DetectLanguage"
CHEAP_REQUEST = nlp_pb2.DetectLanguageRequest(texts=["Wo ist der Bahnhof?"]).SerializeToString()
LARGE = "/inference.GRPCInferenceService/ModelInfer"
LIST = "/ortmesh.models.v1.ModelService/ListModels"
WATCH = "/ortmesh.models.v1.ModelService/WatchModels"
MODEL = "lid-176"


@dataclass(frozen=True, slots=True)
class Target:
    """A door, and the processes behind it."""

    door: Door
    roots: tuple[int, ...]

    def pids(self) -> list[int]:
        """All its processes."""
        return sorted(pid for root in self.roots for pid in processes.tree(root))


def _nlp(address: str) -> Door:
    return Door(address, CHEAP, CHEAP_REQUEST, large=LARGE)


def _bulk(address: str) -> Door:
    request = models_pb2.ListModelsRequest().SerializeToString()
    return Door(address, LIST, request, large=LARGE, stream=WATCH)


@contextlib.contextmanager
def gateway() -> Iterator[Target]:
    """The whole of `ortmesh up`, with the language service."""
    with _folder() as folder:
        address = free_address()
        port = address.rpartition(":")[2]
        command = [*_python("ortmesh.cli"), "up", "--families", "nlp", "--port", port, "--runtime", str(folder)]
        with _running(_nlp(address), folder, command) as target:
            yield target


@contextlib.contextmanager
def grpcio_service() -> Iterator[Target]:
    """The language service on a port of its own, as strangers may reach it."""
    with _folder() as folder, _running(_nlp(address := free_address()), folder, _service(address, "grpcio")) as target:
        yield target


@contextlib.contextmanager
def native_service() -> Iterator[Target]:
    """The language service on a Unix socket, as the gateway reaches it."""
    with _folder() as folder:
        address = f"unix:{folder}/nlp.sock"
        with _running(_nlp(address), folder, _service(address, "native")) as target:
            yield target


@contextlib.contextmanager
def bulk_gateway() -> Iterator[Target]:
    """Envoy with the gateway's configuration, and in the directory's place a service of endless streams."""
    with _folder() as folder:
        backend, address = f"unix:{folder}/bulk.sock", free_address()
        settings = GatewaySettings(address=address)
        made = bootstrap(
            settings,
            listen=Address.parse(address),
            directory=Address.parse(backend),
            admin=folder / "admin.sock",
            routes={"route_config": route_configuration({}, ())},
        )
        configuration = folder / "envoy.json"
        configuration.write_text(json.dumps(made))
        envoy = [str(find_envoy()), *arguments(configuration, workers=settings.workers, drain_seconds=1)]
        with _running(_bulk(address), folder, [*_python("bench.attack.bulk"), backend, "native"], envoy) as target:
            yield target


@contextlib.contextmanager
def bulk_grpcio() -> Iterator[Target]:
    """Endless streams on a grpcio port."""
    address = free_address()
    with _folder() as folder, _running(_bulk(address), folder, [*_python("bench.attack.bulk"), address, "grpcio"]) as t:
        yield t


@contextlib.contextmanager
def bulk_native() -> Iterator[Target]:
    """Endless streams on a Unix socket."""
    with _folder() as folder:
        address = f"unix:{folder}/bulk.sock"
        with _running(_bulk(address), folder, [*_python("bench.attack.bulk"), address, "native"]) as target:
            yield target


Start = Callable[[], AbstractContextManager[Target]]

TARGETS: dict[str, tuple[Start, Start]] = {
    "gateway": (gateway, bulk_gateway),
    "grpcio": (grpcio_service, bulk_grpcio),
    "native": (native_service, bulk_native),
}
"""How each target is started, and the one like it whose streams are long."""


def _python(module: str) -> list[str]:
    return [sys.executable, "-m", module]


def _service(address: str, adapter: str) -> list[str]:
    return [*_python("ortmesh_nlp"), "--listen", address, "--adapter", adapter, "--only", MODEL]


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    """A folder whose path is short enough for sockets."""
    made = Path(tempfile.mkdtemp(prefix="om-", dir="/tmp"))
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


@contextlib.contextmanager
def _running(door: Door, folder: Path, *commands: list[str]) -> Iterator[Target]:
    """Starts the commands and waits until a good call is answered and all models are loaded."""
    log = folder / "log"
    with log.open("wb") as out:
        environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
        started = [subprocess.Popen(each, stdout=out, stderr=out, env=environment, cwd=CHECKOUT) for each in commands]
        try:
            _until(lambda: _answers(door), started, log)
            if door.cheap == CHEAP:
                _until(lambda: _has_loaded(door), started, log)  # else what loads still would count as an attack's
            yield Target(door, tuple(each.pid for each in started))
        finally:
            for process in reversed(started):
                process.terminate()
            for process in started:
                process.wait(STOP_SECONDS)


def _until(holds: Callable[[], bool], started: list[subprocess.Popen[bytes]], log: Path) -> None:
    until = time.monotonic() + START_SECONDS
    while not holds():
        ended = any(process.poll() is not None for process in started)
        if ended or time.monotonic() > until:
            raise RuntimeError(f"the target did not start:\n{log.read_text()}")
        time.sleep(PAUSE_SECONDS)


def _answers(door: Door) -> bool:
    return asyncio.run(call_once(door.address, door.cheap, door.cheap_request, 1.0)).code == "OK"


def _has_loaded(door: Door) -> bool:
    with Client(door.address) as client:
        listed = client.models.ListModels(models_pb2.ListModelsRequest())
    return all(model.state != models_pb2.MODEL_STATE_LOADING for model in listed.models)


def free_address() -> str:
    """A port of this machine on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"
