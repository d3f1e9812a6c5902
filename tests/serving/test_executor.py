"""Executors: batches that agree with single runs, and failures that stay with the culprit."""

from __future__ import annotations

import gc
import math
import threading
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import helper

from ortmesh.errors import BadInput
from ortmesh.serving import loaded
from ortmesh.serving.batcher import Pile
from ortmesh.serving.cards import Card, Runtime
from ortmesh.serving.executor import sessions
from ortmesh.serving.executor.failures import failure_of
from ortmesh.serving.executor.interruptible import InterruptibleSession
from ortmesh.serving.executor.session import SessionExecutor
from ortmesh.serving.executor.sessions import PROVIDERS, ProviderMissing, Sessions, choose_providers
from ortmesh.serving.executor.stack import stack, wanted
from ortmesh.serving.loaded import length_of, load, rows_of
from ortmesh.serving.signature import Signature, signature_of
from ortmesh.serving.types import Item, NoMeter, Tensors
from ortmesh.serving.warmup import Capture, Mode
from tests.serving import graphs


def card(**kwargs: object) -> Card:
    return Card.model_validate({"name": "test", "family": "nlp", **kwargs})


def executor_for(path: Path, made: Card) -> tuple[SessionExecutor, Signature]:
    session = Sessions(made.runtime, threads=1).open(path)
    signature = signature_of(session.get_inputs(), session.get_outputs(), made)
    return SessionExecutor(session, signature, limit=8, meter=NoMeter()), signature


def items_of(many: Sequence[Tensors], signature: Signature) -> list[Item]:
    captures = [Capture() for _ in many]
    return [
        Item(
            tensors,
            answer=capture,
            owner=capture,
            deadline=math.inf,
            rows=rows_of(tensors, signature),
            size=length_of(tensors, signature),
        )
        for tensors, capture in zip(many, captures, strict=True)
    ]


def outputs_of(item: Item) -> Tensors:
    assert isinstance(item.answer, Capture)
    assert item.answer.error is None
    assert item.answer.outputs is not None
    return item.answer.outputs


def test_each_item_gets_its_own_rows_of_a_batch(tmp_path: Path) -> None:
    executor, signature = executor_for(graphs.double(tmp_path), card())
    many = [{"x": np.full((rows, 4), rows, np.float32)} for rows in (1, 3, 2)]
    items = items_of(many, signature)
    executor.run(items)
    for item, tensors in zip(items, many, strict=True):
        np.testing.assert_array_equal(outputs_of(item)["y"], tensors["x"] * 2)


def test_each_item_gets_the_outputs_that_it_wants_and_the_batch_has_no_others(tmp_path: Path) -> None:
    executor, signature = executor_for(graphs.small_and_wide(tmp_path), card())
    many = [{"x": np.full((1, 4), number, np.float32)} for number in range(3)]
    for wants in ([("y",), ("y",)], [("y",), ("wide", "y")], [None, ("wide",)], [("y",)]):
        items = items_of(many[: len(wants)], signature)
        for item, outputs in zip(items, wants, strict=True):
            item.outputs = outputs
        executor.run(items)
        for number, (item, outputs) in enumerate(zip(items, wants, strict=True)):
            assert set(outputs_of(item)) == set(outputs or ("y", "wide"))
            assert all((array == number * (2 if name == "y" else 1)).all() for name, array in outputs_of(item).items())
    items = items_of(many, signature)
    for item in items:
        item.outputs = ["wide"]
    assert wanted(items, signature) == ("wide",)


def test_an_item_of_more_rows_than_a_batch_has_only_what_it_wants(tmp_path: Path) -> None:
    executor, signature = executor_for(graphs.small_and_wide(tmp_path), card())
    (item,) = items_of([{"x": np.arange(80, dtype=np.float32).reshape(20, 4)}], signature)
    item.outputs = ("y",)
    executor.run([item])
    np.testing.assert_array_equal(outputs_of(item)["y"], 2 * item.tensors["x"])
    assert list(outputs_of(item)) == ["y"]


def test_an_item_of_another_type_fails_alone(tmp_path: Path) -> None:
    """A batch of two types is none: numbers would be rounded, and nobody told."""
    executor, signature = executor_for(graphs.double(tmp_path), card())
    items = items_of([{"x": np.ones((1, 4), kind)} for kind in (np.float32, np.float64)], signature)
    executor.run(items)
    np.testing.assert_array_equal(outputs_of(items[0])["y"], np.full((1, 4), 2))
    assert isinstance(items[1].answer, Capture)
    assert isinstance(items[1].answer.error, BadInput)


PADDED = {"inputs": {"x": {"pad_axis": 1}, "mask": {"pad_axis": 1}}}


def test_items_of_unequal_lengths_are_padded_and_do_not_notice(tmp_path: Path) -> None:
    executor, signature = executor_for(graphs.masked_sum(tmp_path), card(**PADDED))
    many = [{"x": np.ones((1, n), np.float32), "mask": np.ones((1, n), np.float32)} for n in (3, 7, 1)]
    items = items_of(many, signature)
    executor.run(items)
    assert [float(outputs_of(item)["y"][0]) for item in items] == [3, 7, 1]


def test_the_share_of_padding_is_measured(tmp_path: Path) -> None:
    _, signature = executor_for(graphs.masked_sum(tmp_path), card(**PADDED))
    many = [{"x": np.ones((1, n), np.float32), "mask": np.ones((1, n), np.float32)} for n in (2, 8)]
    _, padded = stack(items_of(many, signature), signature)
    assert padded == pytest.approx(6 / 16)


def test_only_the_culprit_of_a_failed_batch_gets_an_error(tmp_path: Path) -> None:
    executor, signature = executor_for(graphs.lookup(tmp_path), card())
    items = items_of([{"ids": np.array([[n]], np.int64)} for n in (1, 99, 2)], signature)
    executor.run(items)
    assert outputs_of(items[0])["y"].tolist() == [[[2, 3]]]
    assert outputs_of(items[2])["y"].tolist() == [[[4, 5]]]
    culprit = items[1].answer
    assert isinstance(culprit, Capture)
    assert isinstance(culprit.error, BadInput)
    assert str(tmp_path) not in culprit.error.message


def test_a_bug_tells_the_caller_nothing_of_its_text() -> None:
    assert failure_of(KeyError("/secret/path"), on_device=False).message == "the model failed on this request"


def test_an_executor_ends_when_its_pile_closes(tmp_path: Path) -> None:
    executor, _ = executor_for(graphs.double(tmp_path), card())
    pile = Pile()
    thread = threading.Thread(target=executor.serve, args=[pile])
    thread.start()
    pile.close()
    thread.join(60)
    assert not thread.is_alive()


def test_a_card_that_demands_cuda_fails_where_it_is_missing() -> None:
    with pytest.raises(ProviderMissing, match="requires cuda"):
        choose_providers(Runtime(require="cuda"), ["CPUExecutionProvider"])


def test_what_a_machine_lacks_is_passed_over() -> None:
    assert choose_providers(Runtime(providers=["tensorrt", "cuda", "cpu"]), ["CPUExecutionProvider"]) == [
        "CPUExecutionProvider"
    ]


def test_cpu_is_always_the_last_resort() -> None:
    available = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]
    assert choose_providers(Runtime(), available) == ["CUDAExecutionProvider", "CPUExecutionProvider"]


@pytest.mark.parametrize(
    ("runtime", "notes"),
    [
        (Runtime(providers=["tensorrt", "cuda"]), ["without TensorRT: no engine"]),
        (Runtime(cuda_graph=True), ["its runs are not recorded (CUDA graphs): no engine"]),
        (
            Runtime(providers=["tensorrt", "cuda"], cuda_graph=True),
            [
                "without TensorRT: no engine",
                "without TensorRT: no engine; its runs are not recorded (CUDA graphs): no engine",
            ],
        ),
        (Runtime(require="tensorrt"), []),
        (Runtime(), []),
    ],
)
def test_what_a_graph_can_not_be_opened_with_is_done_without_unless_the_card_requires_it(
    runtime: Runtime, notes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: list(PROVIDERS.values()))
    monkeypatch.setattr(sessions, "why_no_gpu", lambda device_id: "")
    opened, told = Sessions(runtime, 1), []
    while opened.fall_back(RuntimeError("no engine")):
        told.append(opened.note)
    assert told == notes


def test_a_session_that_failed_in_its_first_runs_is_let_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else its weights are in memory beside those of the one that takes its place."""
    graphs.double(tmp_path)
    opened, made, there = Sessions.open, list[weakref.ref[InterruptibleSession]](), list[int]()

    def counted(self: Sessions, path: Path) -> InterruptibleSession:
        gc.collect()
        there.append(sum(session() is not None for session in made))
        made.append(weakref.ref(session := opened(self, path)))
        return session

    def fails_once(*given: Any) -> Any:
        if len(made) == 1:
            raise RuntimeError("no engine")
        return probe(*given)

    probe = loaded._probe_session
    monkeypatch.setattr(Sessions, "open", counted)
    monkeypatch.setattr(Sessions, "fall_back", lambda self, error: True)
    monkeypatch.setattr(loaded, "_probe_session", fails_once)
    load(card(), tmp_path, 1, NoMeter())
    assert there == [0, 0]


def found(folder: Path, made: Card) -> tuple[Mode, str]:
    finding = load(made, folder, 1, NoMeter()).finding
    return finding.mode, finding.reason


def test_independent_rows_are_batched(tmp_path: Path) -> None:
    graphs.double(tmp_path)
    assert found(tmp_path, card()) == (Mode.TOGETHER, "")


def test_a_graph_that_subtracts_the_batch_mean_is_served_one_at_a_time(tmp_path: Path) -> None:
    graphs.batch_mean(tmp_path)
    mode, reason = found(tmp_path, card())
    assert mode is Mode.ALONE
    assert "depended on the rest of the batch" in reason


@pytest.mark.parametrize(
    "graph", [graphs.only_the_first, graphs.one_scale, graphs.tiny_difference, graphs.not_a_number]
)
def test_graphs_that_look_at_the_whole_batch_are_served_one_at_a_time(
    tmp_path: Path, graph: Callable[[Path], Path]
) -> None:
    graph(tmp_path)
    assert found(tmp_path, card())[0] is Mode.ALONE


@pytest.mark.parametrize("graph", [graphs.compress, graphs.first_four_rows])
def test_no_caller_gets_anothers_rows_of_a_graph_that_drops_some(tmp_path: Path, graph: Callable[[Path], Path]) -> None:
    """Warm-up may not see it; the first batch that has not its rows is run again one by one, and is the last one."""
    executor, signature = executor_for(graph(tmp_path), card())
    reasons: list[str] = []
    executor.on_alone = reasons.append
    many = [{"x": np.full((1, 4), n if n % 2 else -20, np.float32)} for n in range(8)]
    items = items_of(many, signature)
    executor.run(items)
    for number, item in enumerate(items):
        alone = items_of([many[number]], signature)
        executor.run(alone)
        np.testing.assert_array_equal(outputs_of(item)["y"], outputs_of(alone[0])["y"])
    assert len(reasons) == 1
    assert "depended on the rest of the batch" in reasons[0]


def test_names_in_a_graph_do_not_break_the_executor(tmp_path: Path) -> None:
    """A node called to_cuda refuses a caller's shape: that is the caller's mistake."""
    nodes = [helper.make_node("Reshape", ["x", "shape"], ["y"], name="to_cuda_layout")]
    inputs, outputs = [graphs.tensor("x", ["n", "m"])], [graphs.tensor("y", ["k", 4])]
    path = graphs.write(tmp_path, nodes, inputs, outputs, {"shape": np.array([-1, 4], np.int64)})
    executor, signature = executor_for(path, card())
    items = items_of([{"x": np.zeros((1, 3), np.float32)}], signature)
    executor.run(items)
    assert isinstance(items[0].answer.error, BadInput)  # type: ignore[attr-defined]


def test_an_honest_mask_allows_padding(tmp_path: Path) -> None:
    graphs.masked_sum(tmp_path)
    assert found(tmp_path, card(**PADDED)) == (Mode.TOGETHER, "")


def test_a_graph_that_sees_its_padding_is_batched_by_equal_sizes_only(tmp_path: Path) -> None:
    graphs.masked_sum(tmp_path, honest=False)
    assert found(tmp_path, card(**PADDED)) == (Mode.EQUAL_SIZES, "results depended on padding")


def test_a_range_on_the_card_keeps_samples_inside_a_vocabulary(tmp_path: Path) -> None:
    graphs.lookup(tmp_path)
    made = card(inputs={"ids": {"sample_range": [0, 10], "sample_shape": [1, 4]}})
    assert found(tmp_path, made) == (Mode.TOGETHER, "")


def test_a_model_that_no_sample_satisfies_is_served_unbatched(tmp_path: Path) -> None:
    graphs.lookup(tmp_path)
    made = card(inputs={"ids": {"sample_range": [50, 60]}})
    assert found(tmp_path, made)[0] is Mode.ALONE


def test_no_sample_is_larger_than_what_a_service_can_spare(tmp_path: Path) -> None:
    """A picture of 40,000 pixels squared would be 13 GB while it is drawn."""
    nodes, shape = [helper.make_node("Neg", ["x"], ["y"])], ["n", 40_000, 40_000]
    graphs.write(tmp_path, nodes, [graphs.tensor("x", shape)], [graphs.tensor("y", shape)], {})
    mode, reason = found(tmp_path, card())
    assert mode is Mode.ALONE
    assert "could not be tried" in reason


def test_a_corrupt_file_says_why_it_cannot_be_loaded(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"no graph")
    with pytest.raises(Exception, match=r"(?i)protobuf"):
        load(card(), tmp_path, 1, NoMeter())


def test_a_card_that_names_a_missing_tensor_is_refused(tmp_path: Path) -> None:
    graphs.double(tmp_path)
    with pytest.raises(ValueError, match="the graph does not have"):
        load(card(inputs={"pixels": {}}), tmp_path, 1, NoMeter())
