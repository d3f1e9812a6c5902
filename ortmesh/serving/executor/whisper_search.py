"""Searches for a text, over a decoder that offers the best next tokens of every row: pure, no session. Stage: executor.

`BeamSearch` follows the most probable beginnings; `Draws` draws texts at a temperature (Holtzman et al. 2020: from the
likeliest tokens only).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import starmap
from typing import NamedTuple, Protocol

import numpy as np

from ortmesh.serving.executor.whisper_phrases import ROOT, Phrases
from ortmesh.serving.types import Array


class Offer(NamedTuple):
    """What a decoder's step found for each row of a search."""

    scores: Array
    """Log-probabilities of the best tokens, best first: float32 [rows, candidates]; more than rows are needed."""
    tokens: Array
    """Those tokens: int64 [rows, candidates]."""
    probed: Array
    """Log-probabilities of the tokens that were asked for: float32 [rows, probes]."""
    probes: Array
    """Those tokens: int64 [probes]."""

    def of(self, rows: slice) -> Offer:
        """What it is for some of the rows."""
        return Offer(self.scores[rows], self.tokens[rows], self.probed[rows], self.probes)


class Hypothesis(NamedTuple):
    """A text that was found."""

    tokens: tuple[int, ...]
    """Without the end of text."""
    logprobs: tuple[float, ...]
    """Natural log-probabilities of its tokens and, where it ended, of the end of text."""
    score: float
    """What it is ranked by: `mean_logprob` and, for each of these, what phrases gave."""

    @property
    def mean_logprob(self) -> float:
        """Over its tokens and the end of text: longer texts are not punished."""
        return sum(self.logprobs) / len(self.logprobs)


class Beam(NamedTuple):
    """A beginning of a text."""

    tokens: tuple[int, ...] = ()
    logprobs: tuple[float, ...] = ()
    gained: float = 0.0
    """What phrases gave."""
    state: int = ROOT
    """Of the phrases."""

    @property
    def hypothesis(self) -> Hypothesis:
        """As a text that is over."""
        return Hypothesis(self.tokens, self.logprobs, (sum(self.logprobs) + self.gained) / max(len(self.logprobs), 1))


class Search(Protocol):
    """How the rows of one text are continued. There are always as many, so that those of a group stay equal."""

    beams: int

    @property
    def last(self) -> list[int]:
        """Each row's newest token, which the next step appends."""

    @property
    def probes(self) -> set[int]:
        """The tokens whose log-probabilities the next offer must have, whatever their rank."""

    def begin(self, offer: Offer) -> None:
        """Starts all rows from an offer's only one."""

    def grow(self, offer: Offer) -> list[int] | None:
        """Continues the rows: for each the one of the offer's that it continues; None when the search is over."""

    def found(self) -> list[Hypothesis]:
        """The texts that have ended, best first; when none has, those that have not."""


class _Rows:
    """Rows and the phrases that they spell."""

    def __init__(self, beams: int, end_of_text: int, phrases: Phrases | None = None) -> None:
        self.beams = beams
        self._end = end_of_text
        self._phrases = phrases
        self._rows: list[Beam] = []
        self._finished: list[Hypothesis] = []

    @property
    def last(self) -> list[int]:
        return [row.tokens[-1] for row in self._rows]

    @property
    def probes(self) -> set[int]:
        if self._phrases is None:
            return set()
        return self._phrases.tokens({row.state for row in self._rows})

    def found(self) -> list[Hypothesis]:
        texts = self._finished or [row.hypothesis for row in self._rows]
        return sorted(texts, key=lambda text: -text.score)

    def _options(self, offer: Offer, rows: Sequence[Beam]) -> tuple[Array, Array, Array]:
        """(log-probabilities, tokens, what each is ranked by as a continuation of its row), all [rows, options]."""
        totals = np.array([sum(row.logprobs) + row.gained for row in rows])[:, None]
        if self._phrases is None:
            return offer.scores, offer.tokens, totals + offer.scores
        twice = (offer.tokens[:, :, None] == offer.probes).any(1)
        scores = np.concatenate([offer.scores, np.where(twice, -np.inf, offer.probed)], axis=1)
        tokens = np.concatenate([offer.tokens, np.broadcast_to(offer.probes, offer.probed.shape)], axis=1)
        pairs = [[(row.state, token) for token in options] for row, options in zip(rows, tokens.tolist(), strict=True)]
        gains = np.array([[gain for _, gain in starmap(self._phrases.step, row)] for row in pairs])
        return scores, tokens, totals + scores + gains

    def _continued(self, row: Beam, token: int, logprob: float) -> Beam:
        state, gain = self._phrases.step(row.state, token) if self._phrases else (ROOT, 0.0)
        tokens = row.tokens if token == self._end else (*row.tokens, token)
        return Beam(tokens, (*row.logprobs, logprob), row.gained + gain, state)


class BeamSearch(_Rows):
    """Follows the `beams` most probable beginnings of one text; one beam is greedy decoding."""

    def begin(self, offer: Offer) -> None:
        """A beam with each of the best first tokens."""
        scores, tokens, totals = self._options(offer, [Beam()])
        best = np.argsort(-totals[0], kind="stable")[: self.beams]
        self._rows = [self._continued(Beam(), int(tokens[0, i]), float(scores[0, i])) for i in best]

    def grow(self, offer: Offer) -> list[int] | None:
        """Keeps the best continuations of all beams. The search is over when as many texts as beams have ended.

        An end of text counts only while it ranks among the first `beams` candidates: taken from further down, texts
        lose their last sentence (word errors .08 → .19).
        """
        scores, tokens, totals = self._options(offer, self._rows)
        parents: list[int] = []
        rows: list[Beam] = []
        for rank, place in enumerate(np.argsort(-totals, axis=None, kind="stable")[: 2 * self.beams].tolist()):
            parent, column = divmod(place, totals.shape[1])
            grown = self._continued(self._rows[parent], int(tokens[parent, column]), float(scores[parent, column]))
            if tokens[parent, column] != self._end:
                parents.append(parent)
                rows.append(grown)
            elif rank < self.beams:
                self._finished.append(grown.hypothesis)
            if len(rows) == self.beams:
                break
        if len(self._finished) >= self.beams:
            return None
        self._rows = rows
        return parents


class Draws(_Rows):
    """Draws `beams` texts, each by itself, of which the likeliest counts (Radford et al. 2022, 4.5: best of five).

    The same seed and offers give the same texts, whatever else the batch holds.
    """

    def __init__(
        self, beams: int, end_of_text: int, phrases: Phrases | None = None, *, temperature: float, seed: int = 0
    ) -> None:
        super().__init__(beams, end_of_text, phrases)
        self._temperature = temperature
        self._random = np.random.default_rng(seed)
        self._open: list[bool] = []

    def begin(self, offer: Offer) -> None:
        """Draws each text's first token."""
        self._rows = [Beam()] * self.beams
        self._open = [True] * self.beams
        scores, tokens, probed = (np.repeat(part, self.beams, axis=0) for part in offer[:3])
        self.grow(Offer(scores, tokens, probed, offer.probes))

    def grow(self, offer: Offer) -> list[int] | None:
        """Draws the next token of each text that has not ended."""
        scores, tokens, totals = self._options(offer, self._rows)
        # Gumbel's trick: the largest of so disturbed numbers is drawn with the softmax's probabilities
        disturbed = totals / self._temperature + self._random.gumbel(size=totals.shape)
        for row, column in enumerate(disturbed.argmax(1).tolist()):
            if self._open[row]:
                self._draw(row, int(tokens[row, column]), float(scores[row, column]))
        return list(range(self.beams)) if any(self._open) else None

    def _draw(self, row: int, token: int, logprob: float) -> None:
        grown = self._continued(self._rows[row], token, logprob)
        if token == self._end:
            self._finished.append(grown.hypothesis)
            self._open[row] = False
        else:
            self._rows[row] = grown
