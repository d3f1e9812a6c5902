"""The real thing, started: `ortmesh up` with two replicas of the language service, on both adapters."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from ortmesh.cli.health import until_loaded
from ortmesh.client import Client
from ortmesh.serving.store import Store

START_SECONDS = 120
HANG_SECONDS = 100.0
"""What lasts so long will not come true by itself, however busy the machine is."""
SHORT_DRAIN = {"ORTMESH_GATEWAY_DRAIN_SECONDS": "0.3"}
"""For a mesh whose end no caller has to notice."""


class RunningMesh:
    """An `ortmesh up` and what it printed."""

    def __init__(self, store: Path, runtime: Path, adapter: str, *arguments: str, **environment: str) -> None:
        self.store = store
        self.runtime = runtime
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.address = f"127.0.0.1:{port}"
        self.lines: list[str] = []
        self._changed = threading.Condition()
        command = [
            sys.executable,
            "-m",
            "ortmesh.cli",
            "up",
            "--port",
            str(port),
            "--runtime",
            str(runtime),
            *arguments,
        ]
        own = {"ORTMESH_MODELS": str(store), "ORTMESH_SERVICE_ADAPTER": adapter, "COLUMNS": "200"}
        self.process = subprocess.Popen(
            command,
            env={**os.environ, **own, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._changed:
                self.lines.append(line.rstrip())
                self._changed.notify_all()

    def until_line(self, pattern: str, *, seconds: float = HANG_SECONDS, after: int = 0) -> str:
        """The first line after the given number of lines that matches; fails with all lines otherwise."""
        until = time.monotonic() + seconds
        with self._changed:
            while True:
                for line in self.lines[after:]:
                    if re.search(pattern, line):
                        return line
                left = until - time.monotonic()
                assert left > 0, f"no line matches {pattern!r}:\n" + "\n".join(self.lines)
                self._changed.wait(left)

    def until(self, holds: Callable[[], bool], *, seconds: float = HANG_SECONDS) -> None:
        """Returns once `holds()`; it is asked every 50 ms."""
        until = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < until, "it never came true:\n" + "\n".join(self.lines[-50:])
            time.sleep(0.05)

    def pids(self, part: str) -> list[int]:
        """The processes of this mesh whose command line holds `part`, without `ortmesh up` itself."""
        listed = subprocess.run(["ps", "-e", "-ww", "-o", "pid=,args="], capture_output=True, text=True, check=True)
        lines = [line.split(None, 1) for line in listed.stdout.splitlines()]
        mine = [(int(pid), args) for pid, args in lines if str(self.runtime) in args and int(pid) != self.process.pid]
        return [pid for pid, args in mine if part in args]

    def socket(self, replica: str) -> str:
        """Where a service's replica listens itself, e.g. of `vision` or `nlp-0`."""
        return f"unix:{self.runtime}/{replica}.sock"

    def until_all_serve(self, replicas: Mapping[str, int]) -> None:
        """Returns once so many replicas of each family have loaded all models, and Envoy knows that they are well."""
        for family, count in replicas.items():
            for number in range(count):
                address = self.socket(f"{family}-{number}" if count > 1 else family)
                asyncio.run(asyncio.wait_for(until_loaded(address), START_SECONDS))
            self._until_healthy(family, count)

    def _until_healthy(self, family: str, count: int) -> None:
        self.until(lambda: self.envoy(f"cluster.{family}.membership_healthy") == count)

    def envoy(self, statistic: str) -> int:
        """A number of Envoy's statistics; 0 while there is none, or no Envoy."""
        with closing(socket.socket(socket.AF_UNIX)) as connection, connection.makefile("rw") as talk:
            try:
                connection.connect(f"{self.runtime}/gateway/admin.sock")
            except OSError:
                return 0
            talk.write(f"GET /stats?filter=^{statistic}$ HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            talk.flush()
            found = re.search(rf"{re.escape(statistic)}: (\d+)", talk.read())
        return int(found[1]) if found else 0

    def stop(self) -> int:
        """Ends it as Ctrl-C would; its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        return self.wait()

    def wait(self) -> int:
        """Waits for its end; its exit code."""
        code = self.process.wait(HANG_SECONDS)
        self._reader.join()
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code


def link_store(source: Store, target: Path) -> Path:
    """A store of the same models that a test may add to; the files are linked where the disk allows."""

    def link(a: str, b: str) -> None:
        try:
            os.link(a, b)
        except OSError:
            shutil.copy2(a, b)

    shutil.copytree(source.root, target, copy_function=link, ignore=shutil.ignore_patterns(".*"))
    return target


@dataclass(frozen=True)
class Door:
    """One way to a family's methods: through the gateway, or to a service's own socket."""

    mesh: RunningMesh
    through_gateway: bool

    def address(self, family: str) -> str:
        if self.through_gateway:
            return self.mesh.address
        return self.mesh.socket({"nlp": "nlp-0"}.get(family, family))


@pytest.fixture(scope="session", params=["native", "grpcio"])
def mesh(
    request: pytest.FixtureRequest, store: Store, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningMesh]:
    """The whole mesh; the services' ports are served by one adapter, then by the other."""
    runtime = Path(f"/tmp/om-{os.getpid()}-{request.param}")
    models = link_store(store, tmp_path_factory.mktemp("mesh") / "models")
    running = RunningMesh(models, runtime, request.param, "--replicas", "nlp=2")
    try:
        running.until_line(r"^ready in", seconds=START_SECONDS)
        running.until_all_serve({"vision": 1, "speech": 1, "nlp": 2})  # a family is ready with its first model
        yield running
    finally:
        assert running.stop() == 0
        assert not running.pids(""), "something outlived the mesh"
        shutil.rmtree(runtime)


@pytest.fixture(params=["gateway", "direct"])
def door(request: pytest.FixtureRequest, mesh: RunningMesh) -> Door:
    """Both ways to the same services."""
    return Door(mesh, through_gateway=request.param == "gateway")


@pytest.fixture
def client(mesh: RunningMesh) -> Iterator[Client]:
    with Client(mesh.address) as made:
        yield made
