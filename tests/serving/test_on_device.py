"""Runs as on a GPU, on a CPU: the host's memory stands in for the device's, everything else is the product's code."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from bench.gpu.host import HostStream
from bench.gpu.models import bfloat16_graph
from ortmesh.serving.cards import Card, TensorSpec
from ortmesh.serving.executor.binding import Runner
from ortmesh.serving.executor.buckets import Buckets
from ortmesh.serving.executor.interruptible import InterruptibleSession
from ortmesh.serving.signature import Signature, signature_of
from ortmesh.serving.types import Tensors
from tests.serving import graphs

PADDED = TensorSpec(pad_axis=1)
BUCKETS = Buckets([1, 4, 8], [8, 16])
RANDOM = np.random.default_rng(11)


class Placed:
    """A graph on a CPU whose session believes that its stream is a GPU's."""

    def __init__(self, path: Path, card: Card, *, record: bool = False) -> None:
        self.stream = HostStream()
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        plain = InterruptibleSession(session)
        self.signature: Signature = signature_of(plain.get_inputs(), plain.get_outputs(), card)
        self.plain = Runner(plain, self.signature)
        self.session = InterruptibleSession(session, self.stream, records=record)
        self.runner = Runner(self.session, self.signature, BUCKETS)

    def agrees(self, feeds: Tensors) -> bool:
        """True when both ways give the same, bit by bit."""
        found, wanted = self.runner.run(feeds), self.plain.run(feeds)
        return found.keys() == wanted.keys() and all(np.array_equal(found[name], wanted[name]) for name in wanted)


def card(outputs: dict[str, TensorSpec] | None = None, **inputs: TensorSpec) -> Card:
    return Card(name="m", family="nlp", inputs=inputs, outputs=outputs or {})


def masked_sum(tmp_path: Path, *, record: bool, honest: bool = True) -> Placed:
    path = graphs.masked_sum(tmp_path, honest=honest)
    return Placed(path, card(x=PADDED, mask=PADDED), record=record)


def texts(rows: int, size: int) -> Tensors:
    x = RANDOM.integers(0, 9, (rows, size)).astype(np.float32)
    return {"x": x, "mask": np.ones_like(x)}


@pytest.mark.parametrize("record", [False, True], ids=["plain", "recorded"])
def test_results_are_those_of_the_plain_session_whatever_shape_follows_which(tmp_path: Path, record: bool) -> None:
    placed = masked_sum(tmp_path, record=record)
    shapes = [(1, 8), (3, 5), (3, 7), (3, 5), (8, 16), (9, 16), (2, 30), (1, 1), (3, 5), (1, 8)]
    assert all(placed.agrees(texts(rows, size)) for rows, size in shapes * 2)
    assert placed.runner.note == ""


def test_each_tensor_is_copied_once_and_a_run_waits_once(tmp_path: Path) -> None:
    placed = masked_sum(tmp_path, record=False)
    placed.runner.run(texts(4, 9))
    assert placed.stream.copies == 3, "two inputs, one output"
    assert placed.stream.waits == 1


def test_memory_of_an_earlier_run_is_used_again(tmp_path: Path) -> None:
    placed = masked_sum(tmp_path, record=False)
    placed.runner.run(texts(8, 16))
    before = placed.stream.allocations
    for rows, size in ((1, 1), (8, 16), (4, 3)):
        assert placed.agrees(texts(rows, size))
    assert placed.stream.allocations == before


def test_memory_is_given_back_and_taken_anew(tmp_path: Path) -> None:
    placed = masked_sum(tmp_path, record=False)
    placed.runner.run(texts(8, 16))
    before = placed.stream.allocations
    placed.runner.shrink()
    assert placed.agrees(texts(8, 16))
    assert placed.stream.allocations > before


def test_outputs_stay_what_they_were_when_the_next_run_comes(tmp_path: Path) -> None:
    placed = masked_sum(tmp_path, record=True)
    first = placed.runner.run(texts(2, 8))["y"]
    kept = first.copy()
    for _ in range(3):
        placed.runner.run(texts(2, 8))
    np.testing.assert_array_equal(first, kept)


def test_an_input_that_is_no_contiguous_memory_is_read_as_it_is(tmp_path: Path) -> None:
    placed = Placed(graphs.double(tmp_path), card())
    assert placed.agrees({"x": np.arange(32, dtype=np.float32).reshape(4, 8).T.copy().T[:, ::2]})


def test_bfloat16_travels_as_its_bits(tmp_path: Path) -> None:
    made, path = bfloat16_graph(tmp_path / "bf16.onnx")
    placed = Placed(path, made)
    bits = (RANDOM.standard_normal((5, 64)).astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
    assert placed.agrees({"x": bits})
    np.testing.assert_array_equal(placed.runner.run({"x": bits})["y"], np.roll(bits, 1, axis=1))


def test_a_wrong_request_is_the_callers_and_recording_goes_on(tmp_path: Path) -> None:
    placed = Placed(graphs.lookup(tmp_path), card({"y": PADDED}, ids=PADDED), record=True)
    good = {"ids": np.array([[1, 2, 3]])}
    for _ in range(3):
        with pytest.raises(Exception, match="out of data bounds"):
            placed.runner.run({"ids": np.array([[1, 99, 3]])})
        assert placed.agrees(good)
    assert placed.runner.note == ""


def test_a_recording_that_fails_where_a_plain_run_works_is_given_up_with_a_note(tmp_path: Path) -> None:
    class Unrecordable(InterruptibleSession):
        def begin_with_iobinding(self, binding: object, recorded: int = -1) -> None:
            if recorded > 0:
                raise RuntimeError("operation not permitted when stream is capturing")
            super().begin_with_iobinding(binding, recorded)

    session = onnxruntime.InferenceSession(str(graphs.double(tmp_path)), providers=["CPUExecutionProvider"])
    placed = Unrecordable(session, HostStream(), records=True)
    runner = Runner(placed, signature_of(placed.get_inputs(), placed.get_outputs(), card()), BUCKETS)
    x = np.ones((2, 4), np.float32)
    for _ in range(4):
        np.testing.assert_array_equal(runner.run({"x": x})["y"], 2 * x)
    assert "not recorded" in runner.note
    assert "stream is capturing" in runner.note


def test_an_interrupted_session_runs_neither_way_until_it_may_again(tmp_path: Path) -> None:
    placed = masked_sum(tmp_path, record=True)
    placed.runner.run(texts(1, 8))
    placed.session.interrupt()
    for rows in (1, 3):  # of a shape that ran before, and of one that did not
        with pytest.raises(Exception, match="terminate flag"):
            placed.runner.run(texts(rows, 8))
    placed.session.resume()
    assert placed.agrees(texts(1, 8))
    assert placed.agrees(texts(3, 8))


def test_no_more_shapes_are_recorded_than_the_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ortmesh.serving.executor.on_device.MAX_RECORDED", 2)
    placed = masked_sum(tmp_path, record=True)
    for _ in range(3):
        assert all(placed.agrees(texts(rows, 8)) for rows in (1, 3, 7))
    assert placed.session.new_recording() == 3, "two have a name"
