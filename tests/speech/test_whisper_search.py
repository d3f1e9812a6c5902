"""Beam search over toy decoders, whose best texts are known."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ortmesh.serving.executor.whisper_search import BeamSearch, Hypothesis, Offer

END = 9
CANDIDATES = 12
Next = Callable[[tuple[int, ...]], Mapping[int, float]]
"""The probabilities of the tokens that follow a text."""


def search(following: Next, beams: int, limit: int = 20) -> Hypothesis:
    """Does what the program does, with a table in the decoder's place."""
    found = BeamSearch(beams, END)
    texts: list[tuple[int, ...]] = [()]
    found.begin(_offer([following(())]))
    parents: list[int] | None = [0] * beams
    for _ in range(limit):
        assert parents is not None
        texts = [(*texts[parent], token) for parent, token in zip(parents, found.last, strict=True)]
        parents = found.grow(_offer([following(text) for text in texts]))
        if parents is None:
            break
    return found.found()[0]


def _offer(rows: Sequence[Mapping[int, float]]) -> Offer:
    """Log-probabilities and tokens, best first; what is not in the table is next to impossible."""
    ranked = [sorted((dict.fromkeys(range(20, 20 + CANDIDATES), 1e-09) | dict(row)).items(), key=_by) for row in rows]
    scores = np.log([[probability for _, probability in row[:CANDIDATES]] for row in ranked])
    tokens = np.array([[token for token, _ in row[:CANDIDATES]] for row in ranked], np.int64)
    return Offer(scores.astype(np.float32), tokens, np.zeros((len(rows), 0), np.float32), np.zeros(0, np.int64))


def _by(pair: tuple[int, float]) -> float:
    return -pair[1]


def garden_path(text: tuple[int, ...]) -> Mapping[int, float]:
    """The likelier first word leads to unlikely ones."""
    table: dict[tuple[int, ...], dict[int, float]] = {
        (): {1: 0.6, 2: 0.4},
        (1,): {3: 0.3, 4: 0.3, 5: 0.3},
        (2,): {6: 0.98},
        (2, 6): {END: 0.98},
    }
    return table.get(text, {END: 0.9})


def test_one_beam_takes_the_likeliest_token_each_time() -> None:
    assert search(garden_path, 1).tokens == (1, 3)


@pytest.mark.parametrize("beams", [2, 5, 8])
def test_more_beams_find_what_greed_misses(beams: int) -> None:
    found = search(garden_path, beams)
    assert found.tokens == (2, 6)
    assert found.mean_logprob == pytest.approx(np.log([0.4, 0.98, 0.98]).mean(), abs=1e-5)


def test_an_end_from_further_down_does_not_cut_the_text() -> None:
    """Two beams: an end that ranks third is passed over, however good its mean."""

    def following(text: tuple[int, ...]) -> Mapping[int, float]:
        if len(text) < 4:
            return {1: 0.45, 2: 0.35, END: 0.2}
        return {END: 0.9, 1: 0.05}

    assert len(search(following, 2).tokens) == 4


def test_longer_texts_are_not_punished() -> None:
    """Both end; the longer one has the better mean."""

    def following(text: tuple[int, ...]) -> Mapping[int, float]:
        if text[:1] == (1,):
            return {END: 0.5}
        return {END: 0.95} if len(text) == 8 else {2: 0.95}

    def start(text: tuple[int, ...]) -> Mapping[int, float]:
        return following(text) if text else {1: 0.5, 2: 0.5}

    assert search(start, 2).tokens == (2,) * 8


def test_a_text_that_never_ends_is_given_as_far_as_it_went() -> None:
    found = search(lambda text: {1: 0.9, 2: 0.1}, 3, limit=20)
    assert found.tokens == (1,) * 21


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), beams=st.integers(1, 8))
def test_the_score_is_that_of_the_text(seed: int, beams: int) -> None:
    """Whatever the decoder says: the mean over the tokens and the end, along the text that is returned."""

    def following(text: tuple[int, ...]) -> Mapping[int, float]:
        random = np.random.default_rng([seed, *text])
        probabilities = random.dirichlet(np.full(6, 0.5))
        if len(text) >= 6:
            return {END: 1.0}
        return dict(zip([1, 2, 3, 4, 5, END] if text else [1, 2, 3, 4, 5, 6], probabilities.tolist(), strict=True))

    found = search(following, beams)
    path = [following(found.tokens[:place])[token] for place, token in enumerate((*found.tokens, END))]
    assert found.mean_logprob == pytest.approx(float(np.log(path).mean()), abs=1e-4)
