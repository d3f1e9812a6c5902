"""A mesh of its own, as `ortmesh up` starts it."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import grpc

from bench.attack.targets import free_address
from bench.memory.processes import NAMES, parts
from ortmesh.client import Client
from ortmesh.config import StoreSettings
from ortmesh.models.v1 import models_pb2

START_SECONDS = 120.0
STOP_SECONDS = 60.0


@contextlib.contextmanager
def mesh() -> Iterator[tuple[str, dict[str, int]]]:
    """(the address, the processes by name) of a mesh that serves the installed models.

    Its store is a copy of links: what a service writes beside a model stays there.
    """
    folder = Path(tempfile.mkdtemp(prefix="om-", dir="/tmp"))
    try:
        shutil.copytree(StoreSettings().models, folder / "store", copy_function=_link)
        with (folder / "log").open("wb") as log, _running(folder, log.fileno()) as (address, process):
            _until_ready(address, process, folder / "log")
            found = parts(process.pid)
            if missing := set(NAMES.values()) - set(found):
                raise RuntimeError(f"no process was found of {', '.join(sorted(missing))}")
            yield address, found
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _link(source: str, target: str) -> None:
    """What is kept beside a model may be written anew: its own; and where the store lies on another disk, a copy."""
    try:
        if not Path(source).name.startswith("."):
            return os.link(source, target)
    except OSError:
        pass
    shutil.copy(source, target)


@contextlib.contextmanager
def _running(folder: Path, log: int) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    address = free_address()
    options = [
        "--port",
        address.rpartition(":")[2],
        "--runtime",
        str(folder / "run"),
        "--models",
        str(folder / "store"),
    ]
    command = [sys.executable, "-m", "ortmesh.cli", "up", *options]
    process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        yield address, process
    finally:
        process.terminate()
        process.wait(STOP_SECONDS)


def _until_ready(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + START_SECONDS
    while not _all_ready(address):
        if process.poll() is not None or time.monotonic() > until:
            raise RuntimeError(f"the mesh did not start:\n{log.read_text()}")
        time.sleep(0.2)


def _all_ready(address: str) -> bool:
    with Client(address, timeout_seconds=2) as client:
        try:
            models = client.models.ListModels(models_pb2.ListModelsRequest()).models
        except grpc.RpcError:
            return False
    return bool(models) and all(model.state == models_pb2.MODEL_STATE_READY for model in models)
