"""How many results a request may ask for, and how sure of them it may ask to be."""

from __future__ import annotations

import pytest

from ortmesh.errors import BadInput
from ortmesh_vision.bounds import min_score_of, results_of


@pytest.mark.parametrize("asked", [-1, 1001])
def test_a_number_of_results_out_of_range_is_refused(asked: int) -> None:
    with pytest.raises(BadInput, match=rf"^max_results: is {asked}; 1 to 1,000 is allowed, 0 means 5"):
        results_of(asked, 5)


@pytest.mark.parametrize("asked", [-0.1, 1.1, float("nan"), float("inf")])
def test_a_least_score_out_of_range_is_refused(asked: float) -> None:
    with pytest.raises(BadInput, match=r"^min_score: .*0 means 0\.25"):
        min_score_of(asked, 0.25)


def test_zero_means_the_default() -> None:
    assert (results_of(0, 5), results_of(1000, 5)) == (5, 1000)
    assert (min_score_of(0, 0.25), min_score_of(1, 0.25)) == (0.25, 1)
