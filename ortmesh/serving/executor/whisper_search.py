"""Beam search over a decoder that offers the best next tokens of every beam: pure, no session. Stage: executor."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ortmesh.serving.types import Array


class Hypothesis(NamedTuple):
    """A text that was found."""

    tokens: tuple[int, ...]
    """Without the end of text."""
    mean_logprob: float
    """Mean natural log-probability of its tokens and the end of text: longer texts are not punished."""


class BeamSearch:
    """Follows the `beams` most probable beginnings of one text; one beam is greedy decoding.

    Every step offers the best tokens of every beam and their log-probabilities, best first: `scores`, `tokens`
    [beams, candidates]; more candidates than beams are needed. It always follows as many beams, so that the rows
    of a batch stay equal among items.
    """

    def __init__(self, beams: int, end_of_text: int) -> None:
        self.beams = beams
        self.last: list[int] = []
        """Each beam's newest token, which the next step appends."""
        self._end = end_of_text
        self._texts: list[tuple[int, ...]] = []
        self._totals: list[float] = []
        self._finished: list[Hypothesis] = []

    def begin(self, scores: Array, tokens: Array) -> None:
        """Starts a beam with each of the best first tokens; the prompt's step has one row."""
        self._follow([(int(token),) for token in tokens[0, : self.beams]], scores[0, : self.beams].tolist())

    def grow(self, scores: Array, tokens: Array) -> list[int] | None:
        """Keeps the best continuations of all beams: for each the beam that it continues.

        None when the search is over: as many texts as beams have ended. An end of text counts only while it ranks
        among the first `beams` candidates: taken from further down, texts lose their last sentence (word errors
        .08 → .19).
        """
        totals = scores + np.array(self._totals, np.float32)[:, None]
        order = np.argsort(-totals, axis=None, kind="stable")[: 2 * self.beams]
        parents: list[int] = []
        texts: list[tuple[int, ...]] = []
        kept: list[float] = []
        for rank, place in enumerate(order):
            beam, column = divmod(int(place), totals.shape[1])
            token, total = int(tokens[beam, column]), float(totals[beam, column])
            if token != self._end:
                parents.append(beam)
                texts.append((*self._texts[beam], token))
                kept.append(total)
            elif rank < self.beams:
                self._finish(self._texts[beam], total)
            if len(parents) == self.beams:
                break
        if len(self._finished) >= self.beams:
            return None
        self._follow(texts, kept)
        return parents

    def best(self) -> Hypothesis:
        """The best text that has ended; when none has, the best that has not."""
        open_ends = [Hypothesis(text, total / len(text)) for text, total in zip(self._texts, self._totals, strict=True)]
        return max(self._finished or open_ends, key=lambda hypothesis: hypothesis.mean_logprob)

    def _follow(self, texts: list[tuple[int, ...]], totals: list[float]) -> None:
        self._texts, self._totals = texts, totals
        self.last = [text[-1] for text in texts]

    def _finish(self, text: tuple[int, ...], total: float) -> None:
        self._finished.append(Hypothesis(text, total / (len(text) + 1)))
