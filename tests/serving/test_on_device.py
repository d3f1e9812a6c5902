"""Runs as on a GPU, on a CPU: the host's memory stands in for the device's, everything else is the product's code."""

from __future__ import annotations

import gc
import math
import weakref
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from onnx import helper

from bench.gpu.host import HostStream
from bench.gpu.models import bfloat16_graph
from ortmesh.serving.cards import Batching, Card, Runtime, TensorSpec
from ortmesh.serving.executor.binding import Runner
from ortmesh.serving.executor.buckets import Buckets
from ortmesh.serving.executor.interruptible import InterruptibleSession
from ortmesh.serving.executor.quiet import QUIET
from ortmesh.serving.executor.session import SessionExecutor
from ortmesh.serving.executor.sessions import Sessions
from ortmesh.serving.executor.stack import stack
from ortmesh.serving.loaded import load
from ortmesh.serving.signature import Signature, signature_of
from ortmesh.serving.types import Alike, Executor, Item, NoMeter, Tensors
from ortmesh.serving.warmup import Capture, Mode
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

    def items(self, feeds: Tensors) -> list[Item]:
        """As many items of a row each."""
        rows = len(next(iter(feeds.values())))
        return [item({name: array[at : at + 1] for name, array in feeds.items()}) for at in range(rows)]

    def stacked(self, feeds: Tensors) -> Tensors:
        """The outputs of the rows as items that are stacked."""
        places, _ = stack(self.items(feeds), self.signature, self.runner.places)
        return self.runner.run(places)

    def agrees(self, feeds: Tensors) -> bool:
        """True when both ways give the same, bit by bit."""
        found, wanted = self.runner.run(feeds), self.plain.run(feeds)
        return found.keys() == wanted.keys() and all(np.array_equal(found[name], wanted[name]) for name in wanted)


def item(tensors: Tensors) -> Item:
    answer = Capture()
    return Item(tensors, answer=answer, owner=answer, deadline=math.inf)


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


@pytest.mark.parametrize("record", [False, True], ids=["plain", "recorded"])
def test_what_is_stacked_in_its_place_gives_the_same_as_what_is_brought_there(tmp_path: Path, record: bool) -> None:
    """Rows and sizes of padding are filled anew, whatever lay there before."""
    placed = masked_sum(tmp_path, record=record)
    for rows, size in [(2, 8), (3, 5), (8, 16), (2, 3), (9, 16), (2, 8), (3, 5), (2, 30)] * 2:
        feeds = texts(rows, size)
        assert np.array_equal(placed.stacked(feeds)["y"], placed.plain.run(feeds)["y"])
    assert placed.runner.note == ""


def test_all_inputs_travel_together_and_a_run_waits_once(tmp_path: Path) -> None:
    placed = masked_sum(tmp_path, record=False)
    placed.runner.run(texts(4, 9))
    assert placed.stream.copies == 2, "one in, one out"
    assert placed.stream.waits == 1


def test_a_batch_is_stacked_right_where_the_device_reads_it(tmp_path: Path) -> None:
    placed = masked_sum(tmp_path, record=False)
    for feeds in (texts(4, 9), texts(4, 9)):
        places, _ = stack(placed.items(feeds), placed.signature, placed.runner.places)
        before = {name: array.ctypes.data for name, array in places.items()}
        placed.runner.run(places)
    again = placed.runner.places({name: array.shape for name, array in places.items()})
    assert {name: array.ctypes.data for name, array in again.items()} == before
    assert placed.stream.copies == 4, "one in, one out, twice"


def test_a_large_item_goes_to_the_device_from_where_it_lies(tmp_path: Path) -> None:
    """It is copied once: what a copy to pinned memory would take, CUDA's own copy takes."""
    placed = masked_sum(tmp_path, record=False)
    feeds = texts(8, 10_000)
    assert placed.agrees(feeds)
    assert placed.stream.direct == 2
    assert placed.stream.copies == 1, "the output"
    mixed = {"x": feeds["x"], "mask": feeds["mask"][:, ::-1]}
    assert placed.agrees(mixed)
    assert (placed.stream.direct, placed.stream.copies) == (3, 3), "one that is not contiguous by way of pinned memory"


def test_a_tensor_that_all_items_share_is_brought_too(tmp_path: Path) -> None:
    nodes = [helper.make_node("Mul", ["x", "by"], ["y"])]
    inputs = [graphs.tensor("x", ["n", 4]), graphs.tensor("by", [4])]
    path = graphs.write(tmp_path, nodes, inputs, [graphs.tensor("y", ["n", 4])], {})
    placed = Placed(path, card(by=TensorSpec(batch_axis=None, shared=True)))
    by = np.array([1, 2, 3, 4], np.float32)
    for factor in (1, 2):
        items = [item({"x": np.full((1, 4), number, np.float32), "by": factor * by}) for number in (5, 6)]
        feeds, _ = stack(items, placed.signature, placed.runner.places)
        np.testing.assert_array_equal(placed.runner.run(feeds)["y"], factor * np.array([5 * by, 6 * by]))


@pytest.mark.parametrize("record", [False, True], ids=["plain", "recorded"])
def test_an_output_that_nobody_wants_is_not_read_back(tmp_path: Path, record: bool) -> None:
    placed = Placed(graphs.small_and_wide(tmp_path), card(), record=record)
    x = np.arange(16, dtype=np.float32).reshape(4, 4)
    for outputs in (("y",), ("wide",), ("y", "wide"), ("y",)) * 3:
        found = placed.runner.run({"x": x}, outputs)
        wanted = placed.plain.run({"x": x}, outputs)
        assert tuple(found) == outputs
        assert all(np.array_equal(found[name], wanted[name]) for name in outputs)
    placed.stream.read_bytes = 0
    placed.runner.run({"x": x}, ("y",))
    assert placed.stream.read_bytes == 256, "64 bytes, aligned"


def test_outputs_whose_shape_varies_from_run_to_run_come_as_they_are(tmp_path: Path) -> None:
    placed = Placed(graphs.compress(tmp_path), card())
    for first in (0, -20, 0, 5, -20, -20, 3):
        x = np.arange(16, dtype=np.float32).reshape(4, 4)
        x[:2, 0] = first
        assert placed.agrees({"x": x})
    assert placed.runner.note == ""


def test_an_answer_keeps_its_memory_and_gives_it_back_when_nobody_reads_it(tmp_path: Path) -> None:
    placed = Placed(graphs.small_and_wide(tmp_path), card())
    x = np.ones((4, 4), np.float32)
    held = [placed.runner.run({"x": number * x})["wide"][1:] for number in range(3)]
    assert all((array == number).all() for number, array in enumerate(held)), "no later run wrote there"
    before = placed.stream.allocations
    for number in range(5):
        held[number % 3] = placed.runner.run({"x": number * x})["wide"][1:]
    assert placed.stream.allocations - before == 1, "one is computed while the other three are held"


def test_answers_that_are_held_for_long_are_copied_out_of_pinned_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    placed = Placed(graphs.small_and_wide(tmp_path), card())
    x = np.ones((4, 4), np.float32)
    monkeypatch.setattr("ortmesh.serving.executor.lent.MOST_LENT_BYTES", 500_000)
    held = [placed.runner.run({"x": number * x})["wide"] for number in range(10)]
    assert all((array == number).all() for number, array in enumerate(held))
    assert placed.stream.allocations <= 6, "inputs and outputs of both sides, two answers, and one to copy from"


def test_an_answer_outlives_its_executor(tmp_path: Path) -> None:
    placed = Placed(graphs.small_and_wide(tmp_path), card())
    held = placed.runner.run({"x": np.ones((4, 4), np.float32)})["wide"]
    del placed
    gc.collect()
    assert (held == 1).all()


def test_a_session_that_shrank_records_anew(tmp_path: Path) -> None:
    """What was recorded computes where no memory is any more."""
    placed = masked_sum(tmp_path, record=True)
    for _ in range(3):
        assert placed.agrees(texts(1, 8))
    assert placed.session.new_recording() == 2
    placed.session.shrink()
    for _ in range(3):
        assert placed.agrees(texts(1, 8))
    assert placed.session.new_recording() == 4


def test_recorded_runs_stay_when_memory_is_given_back_unless_there_were_others(tmp_path: Path) -> None:
    """Others need more than the buckets do, and it lies in the same arena."""
    placed = masked_sum(tmp_path, record=True)
    for _ in range(3):
        assert placed.agrees(texts(1, 8))
    placed.runner.shrink()
    assert placed.session.shrunk == 0
    assert placed.agrees(texts(100, 8))
    placed.runner.shrink()
    assert placed.session.shrunk == 1
    for _ in range(3):
        assert placed.agrees(texts(1, 8))


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


class Disturbed(InterruptibleSession):
    """Its first `times` recordings are spoilt by somebody else's call."""

    times = 1
    recorded = 0

    def begin_with_iobinding(self, binding: object, recorded: int = -1) -> None:
        if recorded > 0 and self.times:
            self.times -= 1
            raise RuntimeError("Error in execution: CUDA failure 901: operation failed due to a previous error ; GPU=0")
        self.recorded += recorded > 0
        super().begin_with_iobinding(binding, recorded)


@pytest.mark.parametrize(("times", "recorded"), [(1, True), (2, False)], ids=["once", "again"])
def test_a_recording_that_another_call_spoilt_is_tried_once_more(tmp_path: Path, times: int, recorded: bool) -> None:
    session = onnxruntime.InferenceSession(str(graphs.double(tmp_path)), providers=["CPUExecutionProvider"])
    placed = Disturbed(session, HostStream(), records=True)
    placed.times = times
    runner = Runner(placed, signature_of(placed.get_inputs(), placed.get_outputs(), card()), BUCKETS)
    x = np.ones((2, 4), np.float32)
    for _ in range(8):
        np.testing.assert_array_equal(runner.run({"x": x})["y"], 2 * x)
    assert (placed.recorded > 0) == recorded
    assert ("not recorded" in runner.note) != recorded


def on_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every session that is opened computes as on a GPU, and records."""

    def opened(sessions: Sessions, path: Path) -> InterruptibleSession:
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        return InterruptibleSession(session, HostStream(), records=True)

    monkeypatch.setattr(Sessions, "open", opened)
    monkeypatch.setattr("ortmesh.serving.loaded._on_cpu", lambda runtime: False)


def answer_of(executor: Executor, one: Item) -> Tensors:
    assert isinstance(executor, SessionExecutor)
    executor.run([one])
    assert isinstance(one.answer, Capture)
    assert one.answer.outputs is not None
    return one.answer.outputs


def test_rows_of_padding_never_join_a_batch_whose_rows_change_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_host(monkeypatch)
    graphs.batch_mean(tmp_path)
    made = card().model_copy(update={"runtime": Runtime(cuda_graph=True), "batching": Batching(max_rows=8)})
    loaded = load(made, tmp_path, 2, NoMeter())
    assert loaded.finding.mode is Mode.ALONE
    x = np.arange(12, dtype=np.float32).reshape(3, 4) ** 2
    for _ in range(3):
        found = answer_of(loaded.executors[0], item({"x": x}))
        np.testing.assert_allclose(found["y"], x - x.mean(axis=0))


def test_a_model_that_proves_to_depend_on_its_batch_is_recorded_no_more(tmp_path: Path) -> None:
    placed = Placed(graphs.batch_mean(tmp_path), card(), record=True)
    executor = SessionExecutor(placed.session, placed.signature, limit=8, meter=NoMeter(), buckets=BUCKETS)
    x = np.arange(12, dtype=np.float32).reshape(3, 4) ** 2
    for _ in range(3):
        answer_of(executor, item({"x": x}))
    executor.serve_alone()
    for _ in range(3):
        np.testing.assert_allclose(answer_of(executor, item({"x": x}))["y"], x - x.mean(axis=0))


def test_an_input_that_is_broadcast_along_the_padded_axis_stays_so(tmp_path: Path) -> None:
    placed = masked_sum(tmp_path, record=True)
    for length in (5, 8):
        feeds = {"x": np.ones((1, length), np.float32), "mask": np.ones((1, 1), np.float32)}
        for _ in range(3):
            assert placed.agrees(feeds)


def test_tensors_that_came_as_they_are_to_be_computed_are_not_padded_to_a_bucket(tmp_path: Path) -> None:
    """This graph's results change with padding; those of a group of equal shapes must not."""
    placed = masked_sum(tmp_path, record=True, honest=False)
    executor = SessionExecutor(placed.session, placed.signature, limit=8, meter=NoMeter(), buckets=BUCKETS)
    for size in (5, 8, 13):
        feeds = texts(3, size)
        for _ in range(3):
            one = item(feeds)
            one.size, one.rows, one.group = size, 3, Alike(None, size)
            np.testing.assert_array_equal(answer_of(executor, one)["y"], placed.plain.run(feeds)["y"])
    assert placed.session.new_recording() == 2, "that of 8, which is a bucket"


def test_a_session_frees_its_memory_when_nobody_records(tmp_path: Path) -> None:
    session = onnxruntime.InferenceSession(str(graphs.double(tmp_path)), providers=["CPUExecutionProvider"])
    held, placed = weakref.ref(session), InterruptibleSession(session, HostStream())
    del session
    with QUIET.alone(patience=10) as quiet:
        assert quiet
        del placed
        gc.collect()
        assert held() is not None
    assert held() is None


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


def test_what_was_given_back_is_recorded_anew_so_often_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX Runtime keeps each recording until the session ends."""
    monkeypatch.setattr("ortmesh.serving.executor.on_device.MOST_RECORDINGS", 2)
    placed, notes = masked_sum(tmp_path, record=True), list[str]()
    for _ in range(4):
        for _ in range(3):
            assert placed.agrees(texts(1, 8))
        notes.append(placed.runner.note)
        placed.session.shrink()
    assert placed.session.new_recording() == 3
    assert notes[:2] == ["", ""]
    assert all("2 were" in note for note in notes[2:])
