"""Sessions' options, read back from ONNX Runtime: threads by the quota, which spin briefly, memory that comes back.

What GPUs are told is in `test_provider_options`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper

from ortmesh.config import ServiceSettings
from ortmesh.cpus import cpus
from ortmesh.serving.cards import Card, Runtime
from ortmesh.serving.executor.sessions import EXACT_SUMS, Sessions
from ortmesh.serving.loaded import load
from ortmesh.serving.types import NoMeter
from tests.serving import graphs

Opened = list[onnxruntime.InferenceSession]


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Opened:
    """Every session that is opened from now on."""
    seen: Opened = []

    class Noticed(onnxruntime.InferenceSession):  # type: ignore[misc]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            seen.append(self)

    monkeypatch.setattr(onnxruntime, "InferenceSession", Noticed)
    return seen


@pytest.fixture
def options(tmp_path: Path, opened: Opened) -> onnxruntime.SessionOptions:
    """Those of a model that was loaded as a service loads it."""
    graphs.double(tmp_path)
    load(Card(name="double", family="nlp"), tmp_path, 2, NoMeter())
    return opened[0].get_session_options()


def machine(folder: Path, quota: str) -> Path:
    """The root of a container whose processes get so much of each period."""
    for name, content in (("proc/self/cgroup", "0::/\n"), ("sys/fs/cgroup/cpu.max", quota)):
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_text(content)
    return folder


@pytest.mark.parametrize(("quota", "threads"), [("50000 100000", 1), ("150000 100000", 1), ("250000 100000", 2)])
def test_operators_have_as_many_threads_as_the_quota_has_cpus(
    tmp_path: Path, opened: Opened, monkeypatch: pytest.MonkeyPatch, quota: str, threads: int
) -> None:
    """On a machine of eight CPUs, of which the container may use so much."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    graphs.double(tmp_path)
    load(Card(name="double", family="nlp"), tmp_path, cpus(machine(tmp_path / "root", quota)), NoMeter())
    assert [each.get_session_options().intra_op_num_threads for each in opened] == [threads]


def test_a_service_has_the_threads_of_its_quota_unless_somebody_says_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert ServiceSettings(family="nlp").threads == cpus()
    monkeypatch.setenv("ORTMESH_SERVICE_THREADS", "3")
    assert ServiceSettings(family="nlp").threads == 3


def test_a_session_starts_the_threads_that_it_was_told_and_no_others(tmp_path: Path) -> None:
    """The executor's own thread computes too; where ONNX Runtime chose, there would be one for each core."""
    path = graphs.double(tmp_path)
    before = set(os.listdir("/proc/self/task"))
    session = Sessions(Runtime(), threads=4).open(path)
    assert len(set(os.listdir("/proc/self/task")) - before) == 3
    del session


def test_operators_run_one_after_the_other(options: onnxruntime.SessionOptions) -> None:
    assert options.execution_mode == onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    assert options.inter_op_num_threads == 1


def test_threads_spin_for_microseconds_and_only_while_a_graph_runs(options: onnxruntime.SessionOptions) -> None:
    read = options.get_session_config_entry
    assert read("session.intra_op.allow_spinning") == read("session.force_spinning_stop") == "1"
    assert read("session.inter_op.allow_spinning") == "0"
    assert int(read("session.intra_op.spin_duration_us")) <= 10


def test_no_memory_is_planned_for_shapes_that_never_come_again(options: onnxruntime.SessionOptions) -> None:
    assert options.enable_mem_pattern is False
    assert options.enable_mem_reuse is True


def test_activations_have_an_arena_which_can_shrink(options: onnxruntime.SessionOptions) -> None:
    assert options.enable_cpu_mem_arena is True


def test_weights_lie_outside_the_arena(options: onnxruntime.SessionOptions) -> None:
    """Else none of its regions was ever empty, and nothing came back."""
    assert options.get_session_config_entry("session.use_device_allocator_for_initializers") == "1"


def test_only_errors_are_logged(options: onnxruntime.SessionOptions) -> None:
    assert options.log_severity_level == 3
    assert options.enable_profiling is False


def test_the_providers_options_are_those_of_the_cpu(tmp_path: Path, opened: Opened) -> None:
    """Where there is nothing else; it knows none."""
    graphs.double(tmp_path)
    load(Card(name="double", family="nlp", runtime=Runtime(require="cpu")), tmp_path, 1, NoMeter())
    assert opened[0].get_provider_options() == {"CPUExecutionProvider": {}}


def eights(folder: Path, *, times: int = 1) -> Path:
    """A graph of [n, 64] unsigned numbers of 8 bits times so many matrices [64, 32] of -127, which are one."""
    products = [helper.make_node("MatMulInteger", ["x", "w", "", "zero"], [f"y{n}"], f"p{n}") for n in range(times)]
    weights: dict[str, object] = {"w": np.full((64, 32), -127, np.int8), "zero": np.int8(0)}
    outputs = [graphs.tensor(f"y{n}", ["n", 32], TensorProto.INT32) for n in range(times)]
    takes = [graphs.tensor("x", ["n", 64], TensorProto.UINT8)]
    return graphs.write(folder, list[object](products), takes, outputs, weights)


@pytest.mark.parametrize("rows", [1, 7, 64])
def test_sums_of_eight_bits_are_exact_on_every_processor(tmp_path: Path, rows: int) -> None:
    """Without VNNI two products are added in 16 bits, which these do not fit into."""
    session = Sessions(Runtime(), threads=1).open(eights(tmp_path))._session
    (sums,) = session.run(None, {"x": np.full((rows, 64), 255, np.uint8)})
    assert np.array_equal(sums, np.full((rows, 32), 64 * 255 * -127))


def test_a_graph_for_which_exact_sums_are_refused_is_opened_without_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ONNX Runtime refuses where operators share weights, and others, on processors without VNNI."""
    usual, given = onnxruntime.InferenceSession, list[bool]()

    def refusing(path: str, options: onnxruntime.SessionOptions, **kwargs: Any) -> onnxruntime.InferenceSession:
        given.append(has_exact_sums(options))
        if given[-1]:
            raise RuntimeError("Attempt to replace the existing tensor")
        return usual(path, options, **kwargs)

    monkeypatch.setattr(onnxruntime, "InferenceSession", refusing)
    sessions = Sessions(Runtime(), threads=1)
    session = sessions.open(eights(tmp_path, times=2))._session
    found = session.run(None, {"x": np.full((1, 64), 1, np.uint8)})
    assert [sums[0, 0] for sums in found] == [64 * -127] * 2
    assert sessions.note == "model.onnx: opened without exact sums of 8 bits: Attempt to replace the existing tensor"
    sessions.open(graphs.double(tmp_path))  # another graph of theirs
    assert given == [True, False, True, False]


def test_signed_activations_are_served_on_every_processor(tmp_path: Path) -> None:
    """A product of them that ONNX Runtime fuses has no kernel for weights that were made unsigned."""
    nodes = [
        helper.make_node("MatMulInteger", ["x", "w"], ["sums"]),
        helper.make_node("Cast", ["sums"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["floats", "scale"], ["y"]),
    ]
    weights: dict[str, object] = {"w": np.full((64, 32), -127, np.int8), "scale": np.float32(0.5)}
    takes = [graphs.tensor("x", ["n", 64], TensorProto.INT8)]
    path = graphs.write(tmp_path, list[object](nodes), takes, [graphs.tensor("y", ["n", 32])], weights)
    (found,) = Sessions(Runtime(), threads=1).open(path)._session.run(None, {"x": np.full((2, 64), 100, np.int8)})
    assert np.array_equal(found, np.full((2, 32), 64 * 100 * -127 * 0.5))


def has_exact_sums(options: onnxruntime.SessionOptions) -> bool:
    try:
        return bool(options.get_session_config_entry(EXACT_SUMS[0]) == EXACT_SUMS[1])
    except RuntimeError:  # it was not set
        return False


def test_sums_of_eight_bits_are_to_be_exact(options: onnxruntime.SessionOptions) -> None:
    assert has_exact_sums(options)


def test_all_sessions_of_a_model_are_opened_alike(tmp_path: Path) -> None:
    """A program has several, an executor for each instance its own."""
    sessions, path = Sessions(Runtime(), threads=2), graphs.double(tmp_path)
    one, other = (sessions.open(path)._session.get_session_options() for _ in range(2))
    reads: list[Callable[[Any], object]] = [
        lambda each: each.intra_op_num_threads,
        lambda each: each.enable_mem_pattern,
        lambda each: each.get_session_config_entry("session.intra_op.allow_spinning"),
    ]
    assert [read(one) for read in reads] == [read(other) for read in reads]
