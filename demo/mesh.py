"""Mesh: `ortmesh up` in a process of its own, from its start to its end. Stage: mesh."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import grpc
from ortmesh.client import Client
from ortmesh.models.v1 import models_pb2
from ortmesh_gateway import launch

from demo.failure import DemoFailed

READY_SECONDS = 90.0
"""How long services may take to load and measure their models: 5 s where two CPUs are free."""
STOP_SECONDS = 40.0
"""How long the mesh may drain before it is killed; it takes 3 s without calls."""
LOOK_SECONDS = 0.1
LAST_LINES = 15


class Mesh:
    """A mesh on a free port of this machine, and its log. Use it in a `with`: no process is left behind."""

    def __init__(self, store: Path) -> None:
        self.address = f"127.0.0.1:{_free_port()}"
        """Where callers connect."""
        self._store = store
        self._log = tempfile.TemporaryFile(prefix="ortmesh-demo-")  # noqa: SIM115  # closed by __exit__
        self._process: subprocess.Popen[bytes]

    def __enter__(self) -> Self:
        """Starts the processes."""
        up = [sys.executable, "-m", "ortmesh.cli", "up", "--listen", self.address, "--models", str(self._store)]
        self._process = subprocess.Popen(
            # The launcher ends the mesh with us even if we are killed.
            [sys.executable, "-I", "-S", launch.__file__, str(os.getpid()), *up],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            # Ctrl-C in the terminal is ours: we then end the mesh in order.
            start_new_session=True,
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        self._log.close()

    def wait(self, names: Sequence[str], seconds: float = READY_SECONDS) -> None:
        """Returns once all these models are ready. DemoFailed, with the log's end, when they don't become so."""
        deadline = time.monotonic() + seconds
        with Client(self.address, timeout_seconds=2.0) as client:
            while waiting := self._not_ready(client, names):
                if self._process.poll() is not None:
                    raise DemoFailed(f"the mesh ended by itself{self._last_lines()}")
                if time.monotonic() > deadline:
                    raise DemoFailed(f"{', '.join(waiting)}: not ready after {seconds:g} s{self._last_lines()}")
                time.sleep(LOOK_SECONDS)

    def stop(self) -> None:
        """Has the mesh drain and end; kills it when it does not, or on a second Ctrl-C. Never fails twice."""
        if self._process.poll() is None:
            self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        finally:
            self._kill_rest()

    @property
    def pid(self) -> int:
        """Of the process that `ortmesh up` is; its processes share its session."""
        return self._process.pid

    def _not_ready(self, client: Client, names: Sequence[str]) -> list[str]:
        try:
            models = client.models.ListModels(models_pb2.ListModelsRequest(page_size=1000)).models
        except grpc.RpcError:  # not listening yet
            return list(names)
        states = {model.name: model for model in models if model.default_version}
        for name in names:
            if name in states and states[name].state == models_pb2.MODEL_STATE_FAILED:
                raise DemoFailed(f"the model {name} failed: {states[name].state_reason}{self._last_lines()}")
        return [name for name in names if name not in states or states[name].state != models_pb2.MODEL_STATE_READY]

    def _last_lines(self) -> str:
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").splitlines()[-LAST_LINES:]
        return "; its last lines:\n" + "\n".join(f"    {line}" for line in lines) if lines else ""

    def _kill_rest(self) -> None:
        """What is left of the process group after an orderly end is nothing."""
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return
        self._process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
