"""Windows: they cover a text, and a token is judged once."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ortmesh_nlp.token_windows import joined, plan, seam

OUTSIDE = 0


def probabilities(tags: str) -> np.ndarray:
    """A row a tag: "." is outside, "x" an entity."""
    return np.array([[0.9, 0.1] if tag == "." else [0.1, 0.9] for tag in tags], np.float32)


@given(st.integers(0, 500), st.integers(2, 60), st.data())
def test_windows_cover_all_tokens_and_overlap(count: int, size: int, data: st.DataObject) -> None:
    overlap = data.draw(st.integers(0, size - 1))
    windows = plan(count, size, overlap)
    assert (windows[0][0], windows[-1][1]) == (0, count)
    assert all(end - start <= size for start, end in windows)
    assert all(one[1] - other[0] == overlap for one, other in pairwise(windows))
    assert all(start < end for start, end in windows) or count == 0


@given(st.text(".x", max_size=200), st.integers(2, 40), st.data())
def test_parts_of_a_whole_make_it_again(tags: str, size: int, data: st.DataObject) -> None:
    windows = plan(len(tags), size, data.draw(st.integers(0, size - 1)))
    whole = probabilities(tags).reshape(-1, 2)
    np.testing.assert_array_equal(joined([whole[start:end] for start, end in windows], windows, OUTSIDE), whole)


def test_a_seam_lies_in_the_middle_where_nothing_is_found() -> None:
    assert seam(probabilities("........"), probabilities("........"), OUTSIDE) == 4


def test_a_seam_cuts_nothing_that_either_window_found() -> None:
    assert seam(probabilities("..xxxx.."), probabilities("........"), OUTSIDE) == 6
    assert seam(probabilities("........"), probabilities("...xxxx."), OUTSIDE) == 2
    assert seam(probabilities("xxxxxxxx"), probabilities("........"), OUTSIDE) == 4


def test_the_window_with_more_around_a_token_judges_it() -> None:
    """The first did not see how the name goes on, the second not how it begins."""
    windows = [(0, 8), (4, 12)]
    left, right = probabilities(".....xx."), probabilities("....xx..")
    np.testing.assert_array_equal(joined([left, right], windows, OUTSIDE), probabilities(".....xx.xx.."))
