"""Loading: how executors share the CPUs, and how much memory there is."""

from __future__ import annotations

import math
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from ortmesh.serving.cards import Card, Runtime
from ortmesh.serving.free_memory import bound_memory, bytes_of, free_bytes, total_bytes
from ortmesh.serving.loaded import load, share
from ortmesh.serving.types import NoMeter
from tests.serving import graphs
from tests.serving.breakable import Faults


@pytest.mark.parametrize(
    ("instances", "threads", "expected"),
    [
        (None, 8, (1, 8)),
        (1, 8, (1, 8)),
        (2, 8, (2, 4)),
        (3, 8, (3, 2)),
        (16, 8, (8, 1)),
        (16, 2, (2, 1)),
        (2, 1, (1, 1)),
    ],
)
def test_programs_on_a_cpu_share_its_threads(instances: int | None, threads: int, expected: tuple[int, int]) -> None:
    """More of them than threads would only wait for each other, with a copy of the weights each."""
    assert share(Runtime(instances=instances, program="whisper"), threads) == expected


def test_executors_on_a_device_are_as_many_as_the_card_says(monkeypatch: pytest.MonkeyPatch) -> None:
    available = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: available)
    monkeypatch.setattr("ortmesh.serving.executor.sessions.why_no_gpu", lambda device_id: "")
    assert share(Runtime(instances=4), threads=2) == (4, 2)
    assert share(Runtime(instances=4, providers=["cpu"]), threads=2) == (2, 1)


def test_a_device_has_two_executors_unless_that_takes_much_of_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """One stacks and hands out while the other computes."""
    available = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: available)
    monkeypatch.setattr("ortmesh.serving.executor.sessions.why_no_gpu", lambda device_id: "")
    assert share(Runtime(), threads=2, nbytes=500 << 20) == (2, 2)
    assert share(Runtime(), threads=2, nbytes=600 << 20) == (1, 2)
    assert share(Runtime(instances=2), threads=2, nbytes=600 << 20) == (2, 2)
    assert share(Runtime(program="whisper"), threads=2) == (1, 2)


def test_a_card_that_asks_for_more_executors_than_cpus_is_told(tmp_path: Path, faults: Faults) -> None:
    """They share one session: its weights are there once."""
    graphs.double(tmp_path)
    loaded = load(Card(name="double", family="nlp", runtime=Runtime(instances=16)), tmp_path, 2, NoMeter())
    assert (len(loaded.executors), loaded.threads) == (2, 1)
    assert sum(faults.opened.values()) == 1
    assert loaded.note == "2 of the 16 instances of its card: the service has 2 threads"
    loaded = load(Card(name="double", family="nlp", runtime=Runtime(instances=2)), tmp_path, 2, NoMeter())
    assert loaded.note == ""


def test_what_serving_made_of_a_model_is_no_part_of_it(tmp_path: Path) -> None:
    """Else a model whose engines lie beside it has one executor at its next load, where it had two."""
    (tmp_path / "parts").mkdir()
    (tmp_path / ".tensorrt").mkdir()
    for name, size in (("model.onnx", 10), ("parts/weights.data", 20), (".costs.json", 40), (".tensorrt/x.engine", 80)):
        (tmp_path / name).write_bytes(bytes(size))
    assert bytes_of(tmp_path) == 30


def machine(root: Path, **files: str) -> Path:
    """A machine whose /proc and /sys say this; `__` stands for `/`."""
    for name, content in files.items():
        path = root / name.replace("__", "/").replace("_DOT_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return root


MEMINFO = "MemTotal:  16000 kB\nMemFree:  1000 kB\nMemAvailable:  8000 kB\n"


def test_memory_is_the_machines_where_no_container_has_less(tmp_path: Path) -> None:
    assert free_bytes(machine(tmp_path, proc__meminfo=MEMINFO)) == 8_192_000


@pytest.mark.parametrize(("most", "expected"), [("5000000", 5_000_000 - 3_000_000 + 400_000), ("max", 8_192_000)])
def test_a_containers_limit_counts(tmp_path: Path, most: str, expected: int) -> None:
    """What only caches files can be had back."""
    group = "sys__fs__cgroup__pods__one__memory"
    root = machine(
        tmp_path,
        proc__meminfo=MEMINFO,
        proc__self__cgroup="0::/pods/one\n",
        **{f"{group}_DOT_max": f"{most}\n", f"{group}_DOT_current": "3000000\n"},
        **{f"{group}_DOT_stat": "anon 2500000\ninactive_file 400000\n"},
    )
    assert free_bytes(root) == expected


def test_the_limit_of_an_older_system_counts_too(tmp_path: Path) -> None:
    group = "sys__fs__cgroup__memory__memory_DOT_"
    root = machine(
        tmp_path,
        proc__meminfo=MEMINFO,
        proc__self__cgroup="4:memory:/docker/of-the-host\n",
        **{f"{group}limit_in_bytes": "4000000", f"{group}usage_in_bytes": "1000000", f"{group}stat": "cache 1\n"},
    )
    assert free_bytes(root) == 3_000_000


def test_a_system_that_tells_nothing_has_no_limit(tmp_path: Path) -> None:
    assert free_bytes(tmp_path) == math.inf
    assert total_bytes(tmp_path) == math.inf
    before = resource.getrlimit(resource.RLIMIT_DATA)
    bound_memory(tmp_path)
    assert resource.getrlimit(resource.RLIMIT_DATA) == before


BOUNDED = """
import sys
from pathlib import Path
import numpy as np
from ortmesh.serving.cards import Card
from ortmesh.serving.free_memory import bound_memory
from ortmesh.serving.loaded import load
from ortmesh.serving.types import Item, NoMeter
from ortmesh.serving.warmup import Capture

bound_memory(Path(sys.argv[1]))
loaded = load(Card(name="hungry", family="nlp"), Path(sys.argv[2]), 1, NoMeter())
for rows in (1, 2500, 1):  # 4 MiB a row, twice
    answer = Capture()
    item = Item({"x": np.ones((rows, 4), np.float32)}, answer=answer, owner=answer, deadline=float("inf"))
    loaded.executors[0].run([item])
    print(type(answer.error).__name__)
"""


def test_a_request_for_more_memory_than_there_is_fails_alone(tmp_path: Path) -> None:
    """As in a container of 100 MB: without the bound the process would take 20 GB, or be killed on the way."""
    root = machine(tmp_path / "root", proc__meminfo="MemTotal: 100000 kB\nMemAvailable: 90000000 kB\n")
    graphs.hungry(tmp_path / "hungry")
    done = subprocess.run(
        [sys.executable, "-c", BOUNDED, str(root), str(tmp_path / "hungry")],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.split() == ["NoneType", "ExecutorFailed", "NoneType"], done.stderr
