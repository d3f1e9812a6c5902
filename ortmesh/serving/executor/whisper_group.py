"""Group: windows that are decoded side by side, by one search after the other. Stage: executor."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ortmesh.serving.executor.whisper_align import frames_of, heard_frames
from ortmesh.serving.executor.whisper_decoder import Cross, Decoding, Graphs
from ortmesh.serving.executor.whisper_limits import DRAWS, HIGHEST_COMPRESSION, compression
from ortmesh.serving.executor.whisper_search import BeamSearch, Draws, Hypothesis, Offer, Search
from ortmesh.serving.executor.whisper_window import Result, Window

if TYPE_CHECKING:
    from tokenizers import Tokenizer

MAX_TOKENS = 220
"""Of a text: the other half of the decoder's positions is for earlier text."""
HALF_A_LETTER = "\N{REPLACEMENT CHARACTER}"
"""As which a tokenizer writes bytes that are no text by themselves."""
ROUND = 32
"""Tokens after which it is looked whether a text repeats itself: at its end it would be dropped in any case."""


class Group:
    """Windows of equal frames, beams and lengths of earlier text. What the encoder hears of them is kept for all
    attempts, until it is settled."""

    def __init__(
        self, graphs: Graphs, tokenizer: Tokenizer, windows: Sequence[Window], ended: Callable[[Window], None]
    ) -> None:
        """`ended` is told each window that is settled, at once."""
        self._graphs = graphs
        self._tokenizer = tokenizer
        self._heard = [(window, graphs.encode(window.padded())) for window in windows if window.wanted]
        self._ended = ended

    @property
    def over(self) -> bool:
        """True when no window is left to be decoded."""
        return not any(window.wanted for window, _ in self._heard)

    def search(self, windows: Sequence[Window] | None = None) -> None:
        """With beams; only these windows, where they are named."""
        end = self._graphs.facts.tokens["end_of_text"]
        self._attempt(lambda window: BeamSearch(window.wish.beams, end, window.wish.phrases), windows)

    def draw(self, temperature: float) -> None:
        """By chance, in the same way for the same window."""
        end = self._graphs.facts.tokens["end_of_text"]
        self._attempt(lambda window: Draws(DRAWS, end, window.wish.phrases, temperature=temperature))

    def give_up(self) -> None:
        """Settles all windows with the best that was found."""
        for window, cross in list(self._heard):
            if window.wanted:
                self._settle(window, cross)

    def _attempt(self, search: Callable[[Window], Search], windows: Sequence[Window] | None = None) -> None:
        hunts = [
            _Hunt(window, cross, search(window))
            for window, cross in self._heard
            if window.wanted and (windows is None or window in windows)
        ]
        if hunts:
            self._decode(hunts)

    def _decode(self, hunts: Sequence[_Hunt]) -> None:
        """Searches side by side; one leaves when it is over."""
        decoding = Decoding(self._graphs, [hunt.cross for hunt in hunts])
        self._start(decoding, hunts)
        if not hunts[0].window.wish.text:
            return
        offer = decoding.prompt([hunt.window.language for hunt in hunts], _probes(hunts))
        parents = _begin(hunts, offer)
        for number in range(1, MAX_TOKENS):
            offer = decoding.step([token for hunt in hunts for token in hunt.search.last], parents, _probes(hunts))
            staying, parents = self._grow(hunts, offer, look=number % ROUND == 0)
            if not staying:
                return
            if len(staying) < len(hunts):
                hunts = [hunts[place] for place in staying]
                decoding.keep(staying)
        for hunt in hunts:
            self._judge(hunt)

    def _start(self, decoding: Decoding, hunts: Sequence[_Hunt]) -> None:
        """Finds out whether anything is said, and in which language."""
        start = decoding.start([hunt.window.wish.prompt for hunt in hunts])
        for place, hunt in enumerate(hunts):
            hunt.no_speech = math.exp(start.no_speech[place])
            hunt.window.hear(start.languages[place])
            if not hunt.window.wish.text:
                hunt.window.offer(Result(Hypothesis((), (0.0,), 0.0), hunt.no_speech, 0.0))
                self._settle(hunt.window, hunt.cross)

    def _grow(self, hunts: Sequence[_Hunt], offer: Offer, *, look: bool) -> tuple[list[int], list[int]]:
        """(the places of the searches that go on, the row that each of their beams continues)."""
        staying: list[int] = []
        parents: list[int] = []
        first = 0
        for place, hunt in enumerate(hunts):
            mine = slice(first, first + hunt.search.beams)
            first = mine.stop
            if not hunt.window.wanted:
                continue
            grown = hunt.search.grow(offer.of(mine))
            if grown is None or (look and self._goes_round(hunt)):
                self._judge(hunt)
                continue
            staying.append(place)
            parents.extend(mine.start + beam for beam in grown)
        return staying, parents

    def _goes_round(self, hunt: _Hunt) -> bool:
        return compression(self._text(hunt.search.found()[0])) > HIGHEST_COMPRESSION

    def _judge(self, hunt: _Hunt) -> None:
        """Offers the window what was found; settles it when that was good."""
        best, *others = hunt.search.found()
        hunt.window.offer(Result(best, hunt.no_speech, compression(self._text(best)), others))
        if hunt.window.settled:
            self._settle(hunt.window, hunt.cross)

    def _settle(self, window: Window, cross: Cross) -> None:
        window.settled = True
        self._heard = [(other, its) for other, its in self._heard if other is not window]  # some MB of keys and values
        if window.wish.words and window.result is not None and window.result.hypothesis.tokens:
            tokens = window.result.hypothesis.tokens
            attention, heard = self._graphs.attention(cross, window.language, tokens), heard_frames(window.mel[0])
            spoken = [self._is_spoken(token) for token in tokens]
            window.token_frames = frames_of(attention[:, :, : len(heard)], spoken, heard)
        self._ended(window)

    def _is_spoken(self, token: int) -> bool:
        """False for punctuation; part of a character is taken for a letter's."""
        return any(letter.isalnum() or letter == HALF_A_LETTER for letter in self._tokenizer.decode([token]))

    def _text(self, hypothesis: Hypothesis) -> str:
        text: str = self._tokenizer.decode(list(hypothesis.tokens))
        return text


class _Hunt:
    """The search for a window's text."""

    def __init__(self, window: Window, cross: Cross, search: Search) -> None:
        self.window = window
        self.cross = cross
        self.search = search
        self.no_speech = 0.0


def _probes(hunts: Sequence[_Hunt]) -> list[int]:
    """The tokens that any of the searches wants to know about."""
    return sorted(set().union(*(hunt.search.probes for hunt in hunts)))


def _begin(hunts: Sequence[_Hunt], offer: Offer) -> list[int]:
    """Starts all searches from the prompt; the row that each of their beams continues: their window's only one."""
    for place, hunt in enumerate(hunts):
        hunt.search.begin(offer.of(slice(place, place + 1)))
    return [place for place, hunt in enumerate(hunts) for _ in range(hunt.search.beams)]
