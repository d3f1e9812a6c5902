"""Service: the speech service in a process of its own over a copy of the store, with two threads for each model."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.attack.processes import CHECKOUT, read, reset_peaks
from bench.speech.contestants import cpu_seconds
from bench.speech.peers import THREADS
from ortmesh.cli.health import until_loaded
from ortmesh.client import Client
from ortmesh.serving import kept
from ortmesh.serving.store import Store

FAMILY = "speech"
START_SECONDS, STOP_SECONDS = 180.0, 60.0
QUIET_SECONDS, QUIET_SHARE = 2.0, 0.05
"""A service is idle when it used less than this share of a CPU for so long: it may still measure its models."""
TOLD_SECONDS = 0.5
"""After which the graphs' times of `served` are written for certain."""


@dataclass(frozen=True, slots=True)
class Service:
    """A running one."""

    client: Client
    pid: int
    graphs: Path
    """Where `served` writes what the graphs took."""

    def until_idle(self) -> None:
        """Returns when nothing is computed any more. TimeoutError when that takes three minutes."""
        until = time.monotonic() + START_SECONDS
        while time.monotonic() < until:
            before = cpu_seconds(self.pid)
            time.sleep(QUIET_SECONDS)
            if cpu_seconds(self.pid) - before < QUIET_SECONDS * QUIET_SHARE:
                return
        raise TimeoutError("the speech service does not come to rest")

    def resident_bytes(self) -> int:
        """Its memory now."""
        return read([self.pid])[self.pid].resident_bytes

    def peak_bytes(self) -> int:
        """The most memory since `forget_peak`."""
        return read([self.pid])[self.pid].peak_bytes

    def forget_peak(self) -> None:
        """The peak begins anew."""
        reset_peaks([self.pid])

    def graph_seconds(self) -> dict[str, tuple[int, float]]:
        """(runs, seconds in them) of each graph since the start."""
        time.sleep(TOLD_SECONDS)
        return {name: (runs, seconds) for name, (runs, seconds) in json.loads(self.graphs.read_text()).items()}


@contextlib.contextmanager
def running(models: Path) -> Iterator[Service]:
    """The service with the speech models of a store, ready and at rest. RuntimeError when it does not start."""
    with tempfile.TemporaryDirectory(prefix="om-", dir="/tmp") as name:  # short enough for a socket
        folder = Path(name)
        address, log, graphs = f"unix:{folder}/s", folder / "log", folder / "graphs.json"
        _copy(Store(models), folder / "models")
        command = [sys.executable, "-m", "bench.speech.served", str(graphs), "--listen", address]
        command += ["--models", str(folder / "models"), "--threads", str(THREADS)]
        with log.open("wb") as output:
            process = subprocess.Popen(command, stdout=output, stderr=output, env={**os.environ}, cwd=CHECKOUT)
        try:
            _until_ready(address, process, log)
            with Client(address) as client:
                service = Service(client, process.pid, graphs)
                service.until_idle()
                yield service
        finally:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(STOP_SECONDS)
            process.kill()
            process.wait()


def _copy(store: Store, place: Path) -> None:
    """What a service measures it keeps beside the model: not in the user's store, and measured anew."""
    for card, folder in store.cards():
        if card.family == FAMILY:
            target = place / folder.relative_to(store.root)
            shutil.copytree(folder, target, ignore=shutil.ignore_patterns(f"{kept.FILE}*"))


def _until_ready(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    try:
        asyncio.run(asyncio.wait_for(_ended_or_loaded(address, process), START_SECONDS))
    except TimeoutError:
        raise RuntimeError(f"the speech service does not start:\n{log.read_text()}") from None
    if process.poll() is not None:
        raise RuntimeError(f"the speech service has ended:\n{log.read_text()}")


async def _ended_or_loaded(address: str, process: subprocess.Popen[bytes]) -> None:
    loaded = asyncio.create_task(until_loaded(address))
    while not loaded.done() and process.poll() is None:
        await asyncio.wait([loaded], timeout=0.2)
    if not loaded.done():
        loaded.cancel()
    elif loaded.exception() is not None:
        loaded.result()
