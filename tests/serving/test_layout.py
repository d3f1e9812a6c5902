"""Layouts: which are worth measuring, which one is chosen, and how they are measured."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ortmesh.serving.executor import contest as contest_module
from ortmesh.serving.executor.contest import LONGEST_SECONDS, TRIES, Contest, Run, cores_free, take_turn
from ortmesh.serving.executor.layout import (
    MARGIN,
    Layout,
    Measurement,
    beside,
    candidates,
    choose,
    one_executor,
    price,
)
from ortmesh.serving.types import Tensors

# Candidates


def test_two_threads_serve_one_two_or_two_separate_callers() -> None:
    assert candidates(2) == (Layout(1, 2), Layout(2, 2), Layout(2, 1))


def test_one_thread_leaves_no_choice() -> None:
    assert candidates(1) == (Layout(1, 1),)


@given(st.integers(1, 256))
def test_layouts_are_few_and_use_all_threads(threads: int) -> None:
    """The executors and the session's own threads are at least as many as the service's, and hardly more."""
    layouts = candidates(threads)
    assert layouts[0] == one_executor(threads)
    assert len(set(layouts)) == len(layouts) <= 4
    for layout in layouts:
        assert threads <= layout.executors + layout.threads - 1 <= threads + 3
        assert layout.executors <= min(threads, 16)


@given(st.integers(1, 64), st.integers(1, 16))
def test_as_many_executors_as_are_asked_for_use_exactly_all_threads(threads: int, executors: int) -> None:
    layout = beside(executors, threads)
    assert layout.executors == min(executors, threads)
    assert layout.executors + layout.threads - 1 == threads


def test_a_layout_that_was_kept_is_read_only_where_it_can_be_used() -> None:
    for layout in candidates(4):
        assert Layout.from_json(layout.to_json(), 4) == layout
    for written in (None, [], [0, 4], [2, 2, 2], ["1", "4"], {"executors": 1}, [64, 64]):
        assert Layout.from_json(written, 4) is None


# The choice


def measured(layout: Layout, alone: float, single: float, best: float) -> Measurement:
    return Measurement(layout, alone, {1: single, 8: best})


ONE, SHARED, APART = candidates(2)


def choice(*figures: tuple[float, float, float]) -> Layout:
    """Of the three layouts' (seconds alone, items/s in ones, items/s in the best batch)."""
    layouts = zip((ONE, SHARED, APART), figures, strict=True)
    return choose([measured(layout, *each) for layout, each in layouts])


def test_ties_keep_one_executor_on_all_threads() -> None:
    assert choice((0.01, 100, 200), (0.01, 100, 200), (0.01, 100, 200)) == ONE


def test_what_executors_compute_more_by_sharing_threads_is_taken_as_nobody_pays_for_it() -> None:
    """MiniLM at 16 tokens."""
    assert choice((0.0031, 326, 976), (0.0027, 468, 1051), (0.0042, 486, 1111)) == SHARED


def test_one_item_alone_is_given_up_only_for_clearly_more() -> None:
    """30 ms in place of 17: 0.82 doublings, 16 %."""
    assert choice((0.017, 90, 90), (0.017, 90, 90), (0.030, 103, 103)) == ONE
    assert choice((0.017, 90, 90), (0.017, 90, 90), (0.030, 106, 106)) == APART


def test_a_small_model_whose_operators_gain_nothing_by_threads_has_executors_apart() -> None:
    """Silero."""
    assert choice((0.00028, 3560, 4273), (0.00028, 6597, 6960), (0.00026, 6876, 8797)) == APART


def test_batches_of_one_count_as_much_as_the_best_batch() -> None:
    """Mixed sizes make small batches."""
    assert choice((0.004, 100, 200), (0.004, 125, 200), (0.006, 130, 205)) == SHARED


def test_where_only_one_layout_could_be_measured_it_is_taken() -> None:
    assert choose([measured(ONE, 0.01, 100, 200)]) == ONE


figures = st.floats(1e-5, 1e5)
found = st.lists(st.tuples(figures, figures, figures), min_size=3, max_size=3)


powers = st.integers(-12, 12).map(lambda power: 2.0**power)


@given(st.lists(st.tuples(powers, powers, powers), min_size=3, max_size=3), powers)
def test_the_choice_does_not_depend_on_how_fast_the_machine_is(
    figures: list[tuple[float, float, float]], by: float
) -> None:
    """Powers of two, so that nothing is rounded."""
    slower = [(alone * by, single / by, best / by) for alone, single, best in figures]
    assert choice(*figures) == choice(*slower)


@given(st.lists(st.floats(0.96, 1.04), min_size=9, max_size=9))
def test_noise_changes_nothing(noise: list[float]) -> None:
    """Three layouts that are equal, each figure 4 % off at most."""
    each = iter(noise)
    assert choice(*[(0.01 * next(each), 100 * next(each), 200 * next(each)) for _ in range(3)]) == ONE


@given(found)
def test_what_is_chosen_computes_clearly_more_than_one_executor(figures: list[tuple[float, float, float]]) -> None:
    layouts = [measured(layout, *each) for layout, each in zip((ONE, SHARED, APART), figures, strict=True)]
    chosen = next(each for each in layouts if each.layout == choose(layouts))
    assert chosen is layouts[0] or chosen.under_load >= (1 + MARGIN) * layouts[0].under_load


@given(st.floats(0.1, 64), st.floats(0.1, 64))
def test_the_slower_an_item_alone_the_higher_the_price(one: float, other: float) -> None:
    low, high = sorted((one, other))
    assert 0 <= price(low) <= price(high)


def test_a_layout_that_nobody_pays_for_and_is_nearly_as_good_bars_one_that_somebody_pays_for() -> None:
    """MiniLM at 32 tokens: 15 % for 1.58 times the time, where 9 % cost nothing."""
    assert choice((0.0037, 270, 546), (0.0037, 325, 545), (0.0058, 343, 566)) == ONE


# The contest


def contest(runs: Mapping[int, Run], max_rows: int = 8) -> Contest:
    return Contest(runs.__getitem__, candidates(2), lambda rows: {"x": np.zeros((rows, 1))}, max_rows)


def waits(seconds: float) -> Run:
    """A model whose rows take so long, and nobody needs a core meanwhile."""
    return lambda feeds: threading.Event().wait(seconds * len(feeds["x"]))


@pytest.fixture
def calm(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every round counts, however busy this machine is."""
    monkeypatch.setattr(contest_module, "CALM", 0.0)


@pytest.mark.usefixtures("calm")
def test_every_layout_is_measured_alone_and_under_load_with_small_and_larger_batches() -> None:
    held = contest({2: waits(0.001), 1: waits(0.001)})
    measurements = held.hold()
    assert [each.layout for each in measurements] == list(candidates(2))
    for each in measurements:
        assert list(each.by_rows) == [1, 8]
        assert each.alone > 0
    assert measurements[0].alone == measurements[1].alone  # one session


@pytest.mark.usefixtures("calm")
def test_layouts_take_turns_so_that_a_busy_moment_hits_all() -> None:
    order: list[int] = []

    def runs(threads: int) -> Run:
        def run(feeds: Tensors) -> None:
            order.append(threads)
            threading.Event().wait(0.001)

        return run

    contest({2: runs(2), 1: runs(1)}, max_rows=1).hold()
    changes = [threads for threads, _ in itertools.groupby(order)]
    assert changes.count(1) > 3


def test_a_model_of_long_runs_is_not_measured() -> None:
    runs = 0

    def slow(feeds: Tensors) -> None:
        nonlocal runs
        runs += 1
        threading.Event().wait(1.2 * LONGEST_SECONDS)

    assert contest({2: slow}).hold() == []  # nor is another session opened
    assert runs == TRIES


def test_a_model_whose_runs_are_hardly_more_than_a_call_is_not_measured() -> None:
    assert contest({2: lambda feeds: None}).hold() == []


def test_models_that_load_at_once_are_measured_one_after_the_other() -> None:
    running, most = 0, 0
    lock = threading.Lock()

    def watched(feeds: Tensors) -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        threading.Event().wait(0.001)
        with lock:
            running -= 1

    contests = [contest({2: watched, 1: watched}, max_rows=1) for _ in range(3)]
    threads = [threading.Thread(target=each.hold) for each in contests]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 2  # the executors of one layout


def test_what_a_run_raises_leaves_the_contest() -> None:
    def fail(feeds: Tensors) -> None:
        raise ValueError("no such size")

    with pytest.raises(ValueError, match="no such size"):
        take_turn(fail, {}, callers=2, repeats=3)


def test_a_machine_on_which_callers_get_no_core_tells_nothing() -> None:
    """They wait instead of computing, as if others had the machine."""
    assert contest({2: waits(0.002), 1: waits(0.002)}, max_rows=1).hold() == []


def test_other_programs_that_hold_the_cores_are_noticed_by_threads_that_only_compute() -> None:
    assert 0 < cores_free(2) <= 1.1


@pytest.mark.usefixtures("calm")
def test_rounds_while_others_hold_the_cores_count_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where no session has one thread."""
    monkeypatch.setattr(contest_module, "cores_free", lambda threads: -1.0)
    assert contest({2: waits(0.002), 1: waits(0.002)}, max_rows=1).hold() == []
