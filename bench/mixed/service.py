"""Service: the language service in a process of its own, with what it tells of itself and what Linux tells of it."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ortmesh.client import Client
from ortmesh.models.v1 import models_pb2
from ortmesh.serving.kept import FILE

CHECKOUT = Path(__file__).parents[2]
START_SECONDS = 60.0
STOP_SECONDS = 60.0
PAUSE_SECONDS = 0.1
QUIET_SECONDS, QUIET_SHARE = 3.0, 0.03
"""A service is idle when it used less than this share of a CPU for so long: it may still be measuring its model."""
NANOSECONDS = 1e9

EXECUTOR = "executor"
ROOMS = (
    (EXECUTOR, "executor"),
    ("loader", "operators"),
    ("ortmesh-pool", "tokenizing"),
    ("ortmesh-receive", "gRPC server"),
    ("grpc-native", "gRPC server"),
    ("python", "event loop"),
)
"""How the names of the kernel's threads begin, and what those do. ONNX Runtime's own threads and the tokenizer's keep
the name of the thread that started them."""
OTHER = "other"


@dataclass(frozen=True, slots=True)
class Batch:
    """One run of the executor."""

    began: float
    """`time.monotonic()`, which is the machine's."""
    seconds: float
    """From its being taken until the executor asked for the next one."""
    sizes: list[int]
    """Its items' lengths."""


@dataclass(frozen=True, slots=True)
class Totals:
    """Sums of a service's metrics since it started."""

    compute_seconds: float
    queue_seconds: float
    items: float
    batches: float
    rows: float
    padding: float
    """Sum of the batches' padded shares."""

    def since(self, earlier: Totals) -> Totals:
        """What came after."""
        return Totals(
            self.compute_seconds - earlier.compute_seconds,
            self.queue_seconds - earlier.queue_seconds,
            self.items - earlier.items,
            self.batches - earlier.batches,
            self.rows - earlier.rows,
            self.padding - earlier.padding,
        )


@dataclass(frozen=True, slots=True)
class Service:
    """A running one."""

    policy: str
    address: str
    process: subprocess.Popen[bytes]
    record: Path
    metrics: str
    model: str
    executors: int
    """Side by side; what a load found to be best."""

    def batches(self, began: float, ended: float) -> list[Batch]:
        """Those that began in a span of `time.monotonic()`."""
        lines = self.record.read_text().splitlines()
        made = (Batch(**json.loads(line)) for line in lines)
        return [batch for batch in made if began <= batch.began <= ended]

    def totals(self) -> Totals:
        """What its metrics say now of the model."""
        with urllib.request.urlopen(self.metrics, timeout=10) as answer:
            return totals(answer.read().decode(), self.model)

    def cpu_seconds(self) -> Counter[str]:
        """CPU time by room, and under `waiting` that for which the executor could have run and had no CPU."""
        taken: Counter[str] = Counter()
        for task in Path(f"/proc/{self.process.pid}/task").iterdir():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                name = (task / "comm").read_text().strip()
                ran, waited, _ = (task / "schedstat").read_text().split()
                room = next((room for begins, room in ROOMS if name.startswith(begins)), OTHER)
                taken[room] += int(ran) / NANOSECONDS  # type: ignore[assignment]
                if room == EXECUTOR:
                    taken["waiting"] += int(waited) / NANOSECONDS  # type: ignore[assignment]
        return taken

    def until_idle(self) -> None:
        """Returns when nothing is measured any more. TimeoutError when that takes a minute."""
        until = time.monotonic() + START_SECONDS
        while time.monotonic() < until:
            before = sum(self.cpu_seconds().values())
            time.sleep(QUIET_SECONDS)
            if sum(self.cpu_seconds().values()) - before < QUIET_SECONDS * QUIET_SHARE:
                return
        raise TimeoutError(f"the service ({self.policy}) does not come to rest")


def totals(exposition: str, model: str) -> Totals:
    """Of the text of a Prometheus endpoint. KeyError when the model has no series."""
    label = f'model="{model}"'
    found: dict[str, float] = {}
    for name, labels, value in re.findall(r"^(ortmesh_\w+_(?:sum|count))\{([^}]*)\} (\S+)$", exposition, re.MULTILINE):
        if label in labels:
            found[name] = found.get(name, 0.0) + float(value)
    return Totals(
        compute_seconds=found["ortmesh_compute_duration_seconds_sum"],
        queue_seconds=found["ortmesh_queue_duration_seconds_sum"],
        items=found["ortmesh_queue_duration_seconds_count"],
        batches=found["ortmesh_batch_size_count"],
        rows=found["ortmesh_batch_size_sum"],
        padding=found["ortmesh_batch_padding_ratio_sum"],
    )


@contextlib.contextmanager
def copied(folder: Path) -> Iterator[Path]:
    """A store of one model's copy: a service keeps what it measured beside the model."""
    made = Path(tempfile.mkdtemp(prefix="om-", dir="/tmp"))  # short enough for sockets
    try:
        place = made / "store" / folder.parent.name / folder.name
        shutil.copytree(folder, place, ignore=shutil.ignore_patterns(f"{FILE}*"))  # measured anew
        yield made / "store"
    finally:
        shutil.rmtree(made)


@contextlib.contextmanager
def running(policy: str, store: Path, model: str, threads: int) -> Iterator[Service]:
    """The service under a policy of `served`, ready. RuntimeError when it ends before."""
    base = store.parent / policy
    address, record, log = f"unix:{base}.sock", Path(f"{base}.jsonl"), Path(f"{base}.log")
    port = _free_port()
    command = [sys.executable, "-m", "bench.mixed.served", policy, str(record), "--listen", address]
    command += ["--models", str(store), "--only", model, "--threads", str(threads), "--metrics-port", str(port)]
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, cwd=CHECKOUT)
    try:
        ready = _until_ready(address, model, process, log)
        metrics = f"http://127.0.0.1:{port}/metrics"
        yield Service(policy, address, process, record, metrics, model, ready.batching.executors)
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_SECONDS)
        process.kill()
        process.wait()


def _until_ready(address: str, model: str, process: subprocess.Popen[bytes], log: Path) -> models_pb2.Model:
    until, ready = time.monotonic() + START_SECONDS, models_pb2.MODEL_STATE_READY
    with Client(address) as client:
        while time.monotonic() < until:
            if process.poll() is not None:
                break
            with contextlib.suppress(Exception):  # it does not listen yet
                found = client.models.GetModel(models_pb2.GetModelRequest(model=model), timeout=5)
                if found.state == ready:
                    return found
            time.sleep(PAUSE_SECONDS)
    raise RuntimeError(f"the service does not serve {model}:\n{log.read_text()}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
