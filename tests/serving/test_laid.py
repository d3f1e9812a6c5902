"""Executors that share one session, and the layout that a model gets: its card's, the kept one, or a measured one."""

from __future__ import annotations

import gc
import math
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from ortmesh.errors import Cancelled
from ortmesh.serving.batcher import Pile
from ortmesh.serving.cards import Card, Runtime, TensorSpec
from ortmesh.serving.executor.contest import Contest
from ortmesh.serving.executor.interruptible import InterruptibleSession
from ortmesh.serving.executor.layout import Layout, Measurement, candidates
from ortmesh.serving.executor.sessions import PROVIDERS, Sessions
from ortmesh.serving.kept import Kept, key_of
from ortmesh.serving.loaded import Loaded, load
from ortmesh.serving.resident import resident_bytes, trim
from ortmesh.serving.store import Store
from ortmesh.serving.types import Item, NoMeter, Tensors
from ortmesh.serving.warmup import Capture
from tests.serving import graphs
from tests.serving.breakable import Faults

MB = 1_000_000


def card(name: str = "double", instances: int | None = None) -> Card:
    return Card(name=name, family="nlp", runtime=Runtime(instances=instances))


class Answered(Capture):
    """An answer that can be waited for, of an owner who may leave."""

    def __init__(self) -> None:
        super().__init__()
        self.ended = threading.Event()

    def finish(self, outputs: Tensors) -> None:
        super().finish(outputs)
        self.ended.set()

    def fail(self, error: BaseException) -> None:
        super().fail(error)
        self.ended.set()


def item(tensors: Tensors) -> Item:
    answer = Answered()
    return Item(tensors, answer=answer, owner=answer, deadline=math.inf)


def answer_of(item: Item) -> Answered:
    assert isinstance(item.answer, Answered)
    assert item.answer.ended.wait(60)
    return item.answer


class Running:
    """The executors of a loaded model, each in its thread, on one pile."""

    def __init__(self, loaded: Loaded) -> None:
        self.pile = Pile()
        self._threads = [threading.Thread(target=executor.serve, args=[self.pile]) for executor in loaded.executors]

    def __enter__(self) -> Pile:
        for thread in self._threads:
            thread.start()
        return self.pile

    def __exit__(self, *_: object) -> None:
        self.pile.close()
        for thread in self._threads:
            thread.join(60)


# One session, several executors


def test_executors_that_share_a_session_give_everybody_the_right_answer(tmp_path: Path, faults: Faults) -> None:
    graphs.double(tmp_path)
    loaded = load(card(instances=4), tmp_path, 4, NoMeter())
    assert (len(loaded.executors), loaded.threads) == (4, 1)
    assert sum(faults.opened.values()) == 1
    items = [item({"x": np.full((1, 4), number, np.float32)}) for number in range(400)]
    with Running(loaded) as pile:
        for each in items:
            pile.submit(each)
        for number, each in enumerate(items):
            outputs = answer_of(each).outputs
            assert outputs is not None
            np.testing.assert_array_equal(outputs["y"], np.full((1, 4), 2 * number))


def test_to_interrupt_one_executor_does_not_end_what_the_other_computes(tmp_path: Path) -> None:
    """Of two runs that count down for long on one session the first is ended."""
    graphs.counts_down(tmp_path)
    sessions = Sessions(Runtime(), 1)
    first = sessions.open(tmp_path / "model.onnx")
    second = sessions.again(first)
    ended: dict[str, object] = {}

    def run(name: str, session: InterruptibleSession, count: float) -> None:
        try:
            ended[name] = session.run(["y"], {"x": np.full((1, 4), count, np.float32)})
        except Exception as error:
            ended[name] = error

    endless = threading.Thread(target=run, args=["first", first, -1.0])
    long = threading.Thread(target=run, args=["second", second, 300_000.0])
    endless.start()
    long.start()
    time.sleep(0.05)  # both compute, or one is not yet begun: either must do
    first.interrupt()
    endless.join(60)
    long.join(60)
    assert "terminate" in str(ended["first"])
    assert isinstance(ended["second"], list)
    np.testing.assert_array_equal(ended["second"][0], np.zeros((1, 4), np.float32))


def test_an_interruption_of_all_reaches_every_executor_of_a_session(tmp_path: Path) -> None:
    graphs.double(tmp_path)
    sessions = Sessions(Runtime(), 1)
    both = [first := sessions.open(tmp_path / "model.onnx"), sessions.again(first)]
    sessions.interrupt()
    both.append(sessions.again(first))
    for session in both:
        with pytest.raises(Exception, match="terminate"):
            session.run(["y"], {"x": np.ones((1, 4), np.float32)})
    sessions.resume()
    for session in both:
        session.run(["y"], {"x": np.ones((1, 4), np.float32)})


def test_what_nobody_waits_for_ends_on_its_executor_while_the_other_answers(tmp_path: Path) -> None:
    graphs.counts_down(tmp_path)
    ends = {"x": TensorSpec(sample_range=(1, 5))}
    loaded = load(card("counts-down", instances=2).model_copy(update={"inputs": ends}), tmp_path, 2, NoMeter())
    endless, soon = item({"x": np.full((1, 4), -1, np.float32)}), item({"x": np.full((1, 4), 5, np.float32)})
    with Running(loaded) as pile:
        pile.submit(endless)
        while not endless.taken:
            time.sleep(0.001)
        pile.submit(soon)
        assert answer_of(soon).error is None
        answer_of_endless = endless.answer
        assert isinstance(answer_of_endless, Answered)
        answer_of_endless.cancelled = True  # its caller left
        while not answer_of_endless.ended.is_set():
            for executor in loaded.executors:
                executor.interrupt_unwanted()
            time.sleep(0.001)
        again = item({"x": np.full((1, 4), 5, np.float32)})
        pile.submit(again)
        assert answer_of(again).error is None
    assert isinstance(answer_of(endless).error, Cancelled)


def test_memory_is_given_back_while_the_other_executor_computes(tmp_path: Path) -> None:
    """In the very moments of its runs: its results stay right."""
    graphs.hungry(tmp_path)
    sessions = Sessions(Runtime(), 1)
    first = sessions.open(tmp_path / "model.onnx")
    second = sessions.again(first)
    x = np.arange(16, dtype=np.float32).reshape(4, 4)
    over = threading.Event()

    def give_back() -> None:
        while not over.is_set():
            first.shrink()

    other = threading.Thread(target=give_back)
    other.start()
    try:
        for _ in range(50):
            np.testing.assert_array_equal(second.run(["y"], {"x": x})[0], x)
    finally:
        over.set()
        other.join()


def test_the_weights_are_there_once_however_many_executors(tmp_path: Path) -> None:
    graphs.heavy(tmp_path, 100)
    trim()
    before = resident_bytes()
    loaded = load(card("heavy", instances=4), tmp_path, 4, NoMeter())
    items = [item({"x": np.ones((1, 4), np.float32)}) for _ in range(40)]
    with Running(loaded) as pile:
        for each in items:
            pile.submit(each)
        for each in items:
            assert answer_of(each).error is None
        trim()
        assert resident_bytes() - before < 250 * MB  # one copy and what loading left; four would be 400
    del loaded
    gc.collect()
    trim()  # for tests that measure memory after this one


# Which layout


class Referee:
    """Contests whose outcome is known, counted."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, winner: Layout | None) -> None:
        self.held = 0
        self._winner = winner
        self.layouts: Sequence[Layout] = ()
        referee = self

        def hold(contest: Contest) -> list[Measurement]:
            referee.held += 1
            referee.layouts = contest._layouts
            if referee._winner is None:
                return []
            for layout in contest._layouts:
                contest._run_of(layout.threads)(contest._batch(2))
            return [
                Measurement(layout, 0.01, {1: 200.0 if layout == referee._winner else 100.0})
                for layout in contest._layouts
            ]

        monkeypatch.setattr(Contest, "hold", hold)


def layout_of(loaded: Loaded) -> Layout:
    return Layout(len(loaded.executors), loaded.threads)


@pytest.mark.parametrize("winner", candidates(2))
def test_the_chosen_layout_is_kept_and_the_next_start_measures_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, faults: Faults, winner: Layout
) -> None:
    graphs.double(tmp_path)
    referee = Referee(monkeypatch, winner)
    assert layout_of(load(card(), tmp_path, 2, NoMeter())) == winner
    assert referee.held == 1
    opened = sum(faults.opened.values())
    assert layout_of(load(card(), tmp_path, 2, NoMeter())) == winner
    assert referee.held == 1
    assert sum(faults.opened.values()) == opened + 1


def test_what_was_chosen_for_other_threads_is_measured_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graphs.double(tmp_path)
    referee = Referee(monkeypatch, Layout(2, 2))
    load(card(), tmp_path, 2, NoMeter())
    load(card(), tmp_path, 4, NoMeter())
    assert referee.held == 2


def test_the_cards_number_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over what was kept, too."""
    graphs.double(tmp_path)
    referee = Referee(monkeypatch, Layout(2, 2))
    load(card(), tmp_path, 2, NoMeter())
    assert layout_of(load(card(instances=1), tmp_path, 2, NoMeter())) == Layout(1, 2)
    assert layout_of(load(card(instances=2), tmp_path, 2, NoMeter())) == Layout(2, 1)
    assert referee.held == 1


def test_where_nothing_can_be_told_all_threads_serve_one_executor_and_the_next_start_tries_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graphs.double(tmp_path)
    referee = Referee(monkeypatch, None)
    for start in (1, 2):
        assert layout_of(load(card(), tmp_path, 2, NoMeter())) == Layout(1, 2)
        assert referee.held == start


def test_nonsense_that_is_kept_is_measured_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graphs.double(tmp_path)
    referee = Referee(monkeypatch, Layout(2, 1))
    Kept(tmp_path, key_of(card(), tmp_path, PROVIDERS["cpu"], 2)).update({"layout": [64, 64]})
    assert layout_of(load(card(), tmp_path, 2, NoMeter())) == Layout(2, 1)
    assert referee.held == 1


def test_a_contest_that_fails_is_no_reason_not_to_serve(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Two batches at once may need more memory than there is."""
    graphs.double(tmp_path)

    def fail(contest: Contest) -> list[Measurement]:
        raise MemoryError("no room")

    monkeypatch.setattr(Contest, "hold", fail)
    assert layout_of(load(card(), tmp_path, 2, NoMeter())) == Layout(1, 2)
    assert "no room" in caplog.text


def test_one_thread_is_not_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graphs.double(tmp_path)
    referee = Referee(monkeypatch, None)
    assert layout_of(load(card(), tmp_path, 1, NoMeter())) == Layout(1, 1)
    assert referee.held == 0


def test_where_callers_send_other_shapes_than_the_sample_one_item_alone_keeps_all_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Faces: 96 × 128 pixels are measured, 480 × 640 come."""
    graphs.masked_sum(tmp_path)
    referee = Referee(monkeypatch, None)
    load(card("masked-sum"), tmp_path, 2, NoMeter())
    assert referee.layouts == (Layout(1, 2), Layout(2, 2))


def test_a_real_model_gets_a_layout_that_was_measured(tmp_path: Path, store: Store) -> None:
    """Whichever: that depends on the machine, and on how busy it is."""
    written, folder = next((written, folder) for written, folder in store.cards() if written.name == "all-minilm-l6-v2")
    for path in folder.iterdir():
        if path.is_file() and not path.name.startswith("."):
            (tmp_path / path.name).symlink_to(path)
    loaded = load(written, tmp_path, 2, NoMeter())
    assert layout_of(loaded) in candidates(2)
    sample = loaded.finding.proof
    assert sample is not None
    items = [item(sample) for _ in range(8)]
    with Running(loaded) as pile:
        for each in items:
            pile.submit(each)
        outputs = [answer_of(each).outputs for each in items]
    for found in outputs:
        assert found is not None
        assert outputs[0] is not None
        np.testing.assert_allclose(found["embedding"], outputs[0]["embedding"], atol=1e-5)
