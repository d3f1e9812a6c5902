"""Finding out what batches cost: a little at the load, the rest while nothing waits, nothing twice."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from ortmesh.serving.batcher import CostAware, Pile
from ortmesh.serving.cards import Batching, Card
from ortmesh.serving.executor import idle, study
from ortmesh.serving.executor.measure import Measuring
from ortmesh.serving.kept import FILE
from ortmesh.serving.loaded import Loaded, load
from ortmesh.serving.types import Item, NoMeter
from ortmesh.serving.warmup import Capture
from tests.serving import graphs

CARD = Card(name="double", family="nlp", batching=Batching(max_rows=8))


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idle, "QUIET_SECONDS", 0.01)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    graphs.double(tmp_path)
    return tmp_path


def of(folder: Path, threads: int = 1) -> Loaded:
    return load(CARD, folder, threads, NoMeter())


def measured(loaded: Loaded) -> bool:
    return loaded.costs is not None and not loaded.costs.stale


@contextmanager
def served(loaded: Loaded) -> Iterator[Pile]:
    assert loaded.costs is not None
    pile = Pile(policy=CostAware(loaded.costs, sized=loaded.sizing.sized))
    executor = threading.Thread(target=loaded.executors[0].serve, args=(pile,))
    executor.start()
    try:
        yield pile
    finally:
        pile.close()
        executor.join()


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 100
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_a_model_that_was_never_loaded_here_is_measured_a_little_at_once(folder: Path) -> None:
    loaded = of(folder)
    assert loaded.costs is not None
    assert loaded.costs.at_least(1, 0) > 0
    assert loaded.costs.stale


def test_the_rest_is_measured_while_nothing_waits_told_and_kept(folder: Path) -> None:
    loaded, told = of(folder), threading.Event()
    assert loaded.study is not None
    assert loaded.costs is not None
    loaded.study.told = told.set
    with served(loaded):
        assert told.wait(100)
    assert not loaded.costs.stale
    assert (folder / FILE).exists()


def test_the_next_start_measures_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = of(folder)
    assert first.costs is not None
    with served(first):
        until(lambda: measured(first))

    def never(measuring: Measuring) -> None:
        raise AssertionError("measured again")

    monkeypatch.setattr(Measuring, "step", never)
    again = of(folder)
    assert again.costs is not None
    assert not again.costs.stale
    assert {row[:2] for row in again.costs.table()} == {row[:2] for row in first.costs.table()}
    with served(again):
        time.sleep(0.1)


def test_what_live_runs_have_shown_is_kept_at_the_end(folder: Path) -> None:
    first = of(folder)
    assert first.costs is not None
    with served(first):
        until(lambda: measured(first))
        for _ in range(1500):
            first.costs.learn(1, 0, 0.5)
    again = of(folder)
    assert again.costs is not None
    assert again.costs.at_least(1, 0) == pytest.approx(0.5, rel=0.1)


def test_another_number_of_threads_is_measured_by_itself(folder: Path) -> None:
    first = of(folder)
    assert first.costs is not None
    with served(first):
        until(lambda: measured(first))
    other = of(folder, threads=2)
    assert other.costs is not None
    assert other.costs.stale


def test_requests_are_answered_between_two_cells(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A measurement that never ends, here: each of its steps gives way to what waits."""
    loaded, steps = of(folder), []
    assert loaded.costs is not None
    monkeypatch.setattr(Measuring, "done", property(lambda self: False))
    monkeypatch.setattr(Measuring, "step", lambda self: steps.append(time.monotonic()))
    with served(loaded) as pile:
        for _ in range(20):
            until(lambda: bool(steps))
            capture = Capture()
            pile.submit(Item({"x": np.ones((1, 4), np.float32)}, answer=capture, owner=capture, deadline=np.inf))
            until(lambda capture=capture: capture.outputs is not None)  # type: ignore[misc]


def test_a_model_that_refuses_its_own_sample_later_is_left_in_peace(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(study, "FIRST_SECONDS", 0.0)
    monkeypatch.setattr(idle, "BETWEEN_SECONDS", 0.0)
    loaded, begun = of(folder), []
    assert loaded.study is not None
    begin = loaded.study.begin

    def failing() -> Measuring:
        begun.append(1)
        measuring = begin()
        monkeypatch.setattr(measuring, "_run", lambda feeds: 1 / 0)
        return measuring

    loaded.study.begin = failing
    with served(loaded):
        until(lambda: bool(begun))
        time.sleep(0.2)
    assert len(begun) == 1


def test_a_folder_that_is_gone_keeps_nobody_from_serving(folder: Path) -> None:
    loaded = of(folder)
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    with served(loaded):
        until(lambda: measured(loaded))
