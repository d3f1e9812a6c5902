"""The book of costs: empty at first, begun with little, corrected by runs, kept for the next start."""

from __future__ import annotations

import pytest

from ortmesh.serving.batcher.book import RUNS_TO_DOUBT, RUNS_TO_STALE, CostBook

SIZES = (8, 32, 128)


def cells(rows: tuple[int, ...] = (1, 2, 4), sizes: tuple[int, ...] = SIZES) -> dict[tuple[int, int], float]:
    return {(count, size): 0.001 + 1e-5 * count * size for count in rows for size in sizes}


def known(*, whole: bool = True) -> CostBook:
    book = CostBook(SIZES, 1000)
    book.measured(cells(), whole=whole)
    return book


def test_nothing_is_known_at_first() -> None:
    book = CostBook(SIZES)
    assert book.costs is None
    assert book.stale
    assert (book.at_least(1, 8), book.speed, book.table(), book.choices(), book.to_json()) == (0, 0, [], [], {})
    book.learn(1, 8, 0.5)  # of what nobody has measured nothing is learnt
    assert book.costs is None


def test_a_measurement_without_a_single_row_tells_nothing() -> None:
    book = CostBook(SIZES)
    book.measured({(2, 8): 0.1})
    book.measured({})
    assert book.costs is None


def test_what_was_measured_for_the_time_being_is_measured_again_and_not_kept() -> None:
    book = known(whole=False)
    assert book.costs is not None
    assert book.stale
    assert book.to_json() == {}
    book.measured(cells())
    assert not book.stale


def test_after_many_runs_it_is_worth_measuring_again() -> None:
    book = known()
    for _ in range(RUNS_TO_STALE + 1):
        book.learn(1, 8, 0.001)
    assert book.stale


def test_a_table_that_runs_contradict_is_measured_again() -> None:
    """It was made while the machine was busy, some cells more than others."""
    wrong, right = known(), known()
    for number in range(RUNS_TO_DOUBT + 2):
        cell = (1, 8) if number % 2 else (2, 128)
        wrong.learn(*cell, cells()[cell] * (2.5 if number % 2 else 0.4))
        right.learn(*cell, cells()[cell] * (1.05 if number % 2 else 0.95))
    assert wrong.stale
    assert not right.stale


def test_the_first_run_of_a_shape_teaches_nothing() -> None:
    """It finds memory and chooses kernels: a batch would look dear that is not, and not be tried again."""
    book = known()
    before = book.table()
    for size in range(1, 129):
        for rows in (1, 2, 4):
            book.learn(rows, size, 0.5)
    assert book.table() == before


def test_the_next_start_begins_with_what_live_runs_have_shown() -> None:
    """A machine that has become three times as slow."""
    book = known()
    for _ in range(400):
        book.learn(2, 32, 3 * cells()[2, 32])
    again = CostBook(SIZES, 1000)
    assert again.read(book.to_json())
    assert not again.stale
    assert again.at_least(2, 32) == pytest.approx(book.at_least(2, 32), rel=0.01)
    assert again.at_least(2, 32) == pytest.approx(3 * cells()[2, 32], rel=0.2)


@pytest.mark.parametrize(
    "written",
    [
        {},
        {"grid": {"rows": [], "sizes": list(SIZES), "seconds": [[1, 8, 0.1]]}, "measured": [[1, 8]]},
        {"grid": {"rows": [1, float("inf")], "sizes": list(SIZES), "seconds": [[1, 8, 0.1]]}, "measured": [[1, 8]]},
        {"grid": {"rows": [1], "sizes": list(SIZES), "seconds": [[1, 8, 0.1]]}, "measured": [[float("inf"), 8]]},
        {"grid": {"rows": [1], "sizes": list(SIZES), "seconds": [[1, 8, 0.1]]}, "measured": []},
        {"grid": None, "measured": [[1, 8]]},
        {"grid": {"rows": [1], "sizes": [8], "seconds": [[1, 8, 0.1]]}, "measured": [[1, 8]]},
        {"grid": {"rows": [1], "sizes": list(SIZES), "seconds": [[1, 8, "x"]]}, "measured": [[1, 8]]},
        {"grid": {"rows": [1], "sizes": list(SIZES), "seconds": [[1, 8, 0.1]]}, "measured": [[1, 9]]},
        {"grid": {"rows": [1], "sizes": list(SIZES), "seconds": [[5, 8, 0.1], [1, 8, 0.1]]}, "measured": [[1, 8]]},
        {"grid": {"rows": [1], "sizes": list(SIZES), "seconds": [[1, 8, float("nan")]]}, "measured": [[1, 8]]},
    ],
)
def test_what_is_not_its_own_is_not_taken_over(written: dict[str, object]) -> None:
    book = CostBook(SIZES)
    assert not book.read(written)
    assert book.costs is None


def test_beyond_what_was_measured_no_guess_is_held_against_an_item() -> None:
    """Whoever has little time is refused for what is certain only."""
    book = CostBook(SIZES, 1000)
    book.measured(cells(sizes=(8, 32)))
    assert book.at_least(1, 128) == book.at_least(1, 32) == pytest.approx(cells()[1, 32], rel=0.01)


def test_the_table_has_the_sizes_that_were_measured() -> None:
    book = CostBook(SIZES)
    book.measured(cells(sizes=(8, 32)))
    assert {(size, rows) for size, rows, _ in book.table()} == {(s, r) for s in (8, 32) for r in (1, 2, 4)}
    assert [(size, rows) for size, rows, _ in book.choices()] == [(8, 4), (32, 4)]


def test_items_of_one_cost_have_the_size_0() -> None:
    book = CostBook((1,))
    book.measured({(1, 1): 0.1, (2, 1): 0.15})
    assert [(size, rows) for size, rows, _ in book.table()] == [(0, 1), (0, 2)]
    ((size, rows, rate),) = book.choices()
    assert (size, rows) == (0, 2)
    assert rate == pytest.approx(2 / 0.15)
