"""The language service in a process of its own, what it counts and how much memory it has."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from bench.attack.processes import CHECKOUT, read, reset_peaks
from bench.attack.targets import free_address
from ortmesh.cli.health import until_loaded

START_SECONDS = 120.0
STOP_SECONDS = 60.0
PAUSE_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Counted:
    """What the service has counted of one model."""

    taken: int
    """Items that an executor has taken."""
    rows: int
    """Rows of the batches that were computed."""
    runs: int
    """Batches that were computed."""
    expired: int
    """Items dropped since their deadline had passed, or would while they were computed."""
    cancelled: int
    """Items dropped since their caller had left; the native server tells of a passed deadline in this way."""
    overloaded: int
    """Items refused by the model's queue."""

    def __sub__(self, earlier: Counted) -> Counted:
        return Counted(
            self.taken - earlier.taken,
            self.rows - earlier.rows,
            self.runs - earlier.runs,
            self.expired - earlier.expired,
            self.cancelled - earlier.cancelled,
            self.overloaded - earlier.overloaded,
        )


class Service:
    """A running service."""

    def __init__(self, address: str, pid: int, metrics: str) -> None:
        self.address = address
        self.pid = pid
        self._metrics = metrics

    def counted(self, model: str) -> Counted:
        """The counters of a model now."""
        samples = self._samples()

        def total(name: str, **labels: str) -> int:
            wanted = {"model": model, **labels}.items()
            return int(sum(value for found, has, value in samples if found == name and wanted <= has.items()))

        dropped = "ortmesh_items_dropped_total"
        return Counted(
            taken=total("ortmesh_queue_duration_seconds_count"),
            rows=total("ortmesh_batch_size_sum"),
            runs=total("ortmesh_batch_size_count"),
            expired=total(dropped, reason="expired"),
            cancelled=total(dropped, reason="cancelled"),
            overloaded=total(dropped, reason="overloaded"),
        )

    def in_flight(self) -> int:
        """Calls that it has admitted and that have not ended."""
        return int(sum(value for name, _, value in self._samples() if name == "ortmesh_calls_in_flight"))

    def until_idle(self, seconds: float = 30.0) -> None:
        """Returns once no call is in flight. TimeoutError when one does not end."""
        until = time.monotonic() + seconds
        while self.in_flight():
            if time.monotonic() > until:
                raise TimeoutError(f"{self.in_flight()} calls are still in flight")
            time.sleep(PAUSE_SECONDS)

    def resident_bytes(self) -> int:
        """Its memory now."""
        return read([self.pid])[self.pid].resident_bytes

    def peak_bytes(self) -> int:
        """The most memory since `forget_peak`."""
        return read([self.pid])[self.pid].peak_bytes

    def forget_peak(self) -> None:
        """The peak begins anew."""
        reset_peaks([self.pid])

    def _samples(self) -> list[tuple[str, Mapping[str, str], float]]:
        with urllib.request.urlopen(self._metrics, timeout=30) as answer:
            text = answer.read().decode()
        families = text_string_to_metric_families(text)
        return [(each.name, each.labels, each.value) for family in families for each in family.samples]


@contextlib.contextmanager
def serving(models: Path, adapter: str, *, threads: int = 1, **environment: str) -> Iterator[Service]:
    """The service with all models of the folder loaded: natively on a Unix socket, by grpcio on a port."""
    with tempfile.TemporaryDirectory(prefix="om-", dir="/tmp") as folder:
        address = f"unix:{folder}/nlp.sock" if adapter == "native" else free_address()
        command = [sys.executable, "-m", "ortmesh_nlp", "--listen", address, "--adapter", adapter]
        command += ["--models", str(models), "--threads", str(threads), "--metrics-port", "0"]
        log = Path(folder) / "log"
        with log.open("wb") as out:
            environment = {**os.environ, "PYTHONUNBUFFERED": "1", **environment}
            process = subprocess.Popen(command, stdout=out, stderr=out, env=environment, cwd=CHECKOUT)
        try:
            metrics = _until(lambda: _found(log), process, log)
            asyncio.run(asyncio.wait_for(until_loaded(address), START_SECONDS))
            yield Service(address, process.pid, metrics)
        finally:
            process.terminate()
            process.wait(STOP_SECONDS)


def _found(log: Path) -> str:
    """The address of the metrics, once it is told."""
    found = re.search(r"metrics on (http\S+?/metrics)", log.read_text())
    return found[1] if found else ""


def _until(told: Callable[[], str], process: subprocess.Popen[bytes], log: Path) -> str:
    until = time.monotonic() + START_SECONDS
    while not (what := told()):
        if process.poll() is not None or time.monotonic() > until:
            raise RuntimeError(f"the service did not start:\n{log.read_text()}")
        time.sleep(PAUSE_SECONDS)
    return what
