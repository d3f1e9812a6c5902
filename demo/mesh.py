"""Mesh: `ortmesh up` in a process of its own, from its start to its end. Stage: mesh."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import grpc

from demo.failure import DemoFailed
from ortmesh import descriptors
from ortmesh.cli.runtime import claim_port
from ortmesh.cli.supervisor import LAUNCH
from ortmesh.client import Client
from ortmesh.models.v1 import models_pb2

READY_SECONDS = 90.0
"""How long services may take to load and measure their models: 5 s where two CPUs are free."""
STOP_SECONDS = 60.0
"""How long the mesh may drain before it is killed; it takes 3 s without calls."""
DEATH_SECONDS = 5.0
LOOK_SECONDS = 0.1
LOOK_TIMEOUT_SECONDS = 2.0
LAST_LINES = 15


class Mesh:
    """A mesh on a free port of this machine, and its log. Use it in a `with`: no process is left behind."""

    def __init__(self, store: Path) -> None:
        self._port = claim_port("127.0.0.1", 0)
        self.address = f"127.0.0.1:{self._port}"
        """Where callers connect."""
        self._store = store
        self._folder = Path(tempfile.mkdtemp(prefix="om-demo-"))
        self._log = self._folder / "log"
        self._process: subprocess.Popen[bytes]

    def __enter__(self) -> Self:
        """Starts the processes."""
        options = ["--port", str(self._port), "--models", str(self._store), "--runtime", str(self._folder / "run")]
        up = [sys.executable, "-P", "-m", "ortmesh.cli", "up", *options]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                # The launcher ends the mesh with us even if we are killed.
                [sys.executable, "-I", "-S", str(LAUNCH), str(os.getpid()), *up],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # Ctrl-C in the terminal is ours: we then end the mesh in order.
                start_new_session=True,
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.stop()
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)

    def wait(self, names: Sequence[str], seconds: float = READY_SECONDS) -> None:
        """Returns once all these models answer. DemoFailed, with the log's end, when they don't come to it."""
        deadline = time.monotonic() + seconds
        waiting = list(names)
        with Client(self.address, timeout_seconds=LOOK_TIMEOUT_SECONDS) as client:
            while waiting := [name for name in waiting if not _answers(client, name)]:
                if failed := _failed(client, waiting):
                    raise DemoFailed(f"the model {failed.name} failed: {failed.state_reason}{self._last_lines()}")
                if self._process.poll() is not None:
                    raise DemoFailed(f"the mesh ended by itself{self._last_lines()}")
                if time.monotonic() > deadline:
                    raise DemoFailed(f"{', '.join(waiting)}: not ready after {seconds:g} s{self._last_lines()}")
                time.sleep(LOOK_SECONDS)

    def stop(self) -> None:
        """Has the mesh drain and end; it is killed when it takes too long, or on a second Ctrl-C. May be repeated."""
        if self._process.poll() is None:
            self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            raise DemoFailed(f"the mesh did not stop within {STOP_SECONDS:g} s{self._last_lines()}") from None
        finally:
            self._kill_rest()

    def processes(self) -> list[int]:
        """The ids of all processes of the mesh that live: they share a session."""
        return [pid for pid in _all_processes() if _session_of(pid) == self._process.pid]

    def _last_lines(self) -> str:
        lines = self._log.read_text(encoding="utf-8", errors="replace").splitlines()[-LAST_LINES:]
        return "; its last lines:\n" + "\n".join(f"    {line}" for line in lines) if lines else ""

    def _kill_rest(self) -> None:
        """Nothing is left after an orderly end. Whoever is killed lives on for a moment, and is waited for."""
        until = time.monotonic() + DEATH_SECONDS
        while left := self.processes():
            for pid in left:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self._process.wait()
            if time.monotonic() > until:
                break
            time.sleep(LOOK_SECONDS)
        self._process.wait()


def _answers(client: Client, name: str) -> bool:
    """True when a model is ready at the end of the whole way: ModelMetadata is answered by its own service alone."""
    describe = client.channel.unary_unary(
        f"/{descriptors.OIP_SERVICE}/ModelMetadata",
        request_serializer=descriptors.oip("ModelMetadataRequest").SerializeToString,
        response_deserializer=descriptors.oip("ModelMetadataResponse").FromString,
    )
    try:
        describe(descriptors.oip("ModelMetadataRequest")(name=name), timeout=LOOK_TIMEOUT_SECONDS)
    except grpc.RpcError:
        return False
    return True


def _failed(client: Client, names: Sequence[str]) -> models_pb2.Model | None:
    """One of these models that has failed, if any."""
    try:
        models = client.models.ListModels(models_pb2.ListModelsRequest(page_size=1000)).models
    except grpc.RpcError:  # nobody listens yet
        return None
    failed = (each for each in models if each.name in names and each.state == models_pb2.MODEL_STATE_FAILED)
    return next(failed, None)


def _all_processes() -> list[int]:
    return [int(path.name) for path in Path("/proc").glob("[0-9]*")]


def _session_of(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return None
