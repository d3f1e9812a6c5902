"""Containers of the manifests as processes of this machine, and probes as the kubelet makes them."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.deploy.manifests import Json, Objects

SECONDS = 100.0
"""How long a state may take to come, on a machine that is busy with other things."""
Request, Status = health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse


class Process:
    """One container: its module with its variables, but for those that say where on this machine."""

    def __init__(self, objects: Objects, container: Json, here: Mapping[str, str], log: Path) -> None:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("ORTMESH_")}
        told = objects.environment(container)
        assert told.keys() >= here.keys() - {"ORTMESH_MODELS", "ORTMESH_SERVICE_ONLY"}
        with log.open("wb") as written:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", *container["args"]],
                env={**environment, **told, **here},
                cwd=log.parent,
                stdout=written,
                stderr=subprocess.STDOUT,
            )
        self._log = log

    def terminate(self) -> None:
        """SIGTERM, as the kubelet sends it."""
        self._process.send_signal(signal.SIGTERM)

    def end(self) -> None:
        """Ends it without its drain."""
        self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")


def port() -> int:
    """A free one."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        number: int = probe.getsockname()[1]
        return number


def passes(probe: Json, number: int) -> bool:
    """Whether the kubelet would count the probe as passed, where the pod's port has this number."""
    seconds = probe.get("timeoutSeconds", 1)
    if "tcpSocket" in probe:
        try:
            socket.create_connection(("127.0.0.1", number), seconds).close()
        except OSError:
            return False
        return True
    with grpc.insecure_channel(f"127.0.0.1:{number}") as channel:
        try:
            request = Request(service=probe["grpc"].get("service", ""))
            answer = health_pb2_grpc.HealthStub(channel).Check(request, timeout=seconds)
        except grpc.RpcError:
            return False
        return bool(answer.status == Status.SERVING)


def until(probe: Json, number: int, expected: bool = True) -> None:
    """Returns once the probe says so."""
    end = time.monotonic() + SECONDS
    while passes(probe, number) is not expected:
        assert time.monotonic() < end, f"{probe} does not become {expected}"
        time.sleep(0.1)
