"""WhisperProgram: from spectrograms to tokens. Encode, search with beams, decode again what came out badly. Stage: executor."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
import numpy.typing as npt

from ortmesh.errors import BadInput
from ortmesh.serving.cards import Card
from ortmesh.serving.executor.sessions import Sessions
from ortmesh.serving.executor.whisper_decoder import Decoding, Graphs, Offer
from ortmesh.serving.executor.whisper_search import Search
from ortmesh.serving.executor.whisper_window import SILENT_CELL, Attempt, Result, Window, groups, windows_of
from ortmesh.serving.signature import Signature, TensorInfo
from ortmesh.serving.types import Item, Tensors

if TYPE_CHECKING:
    from tokenizers import Tokenizer

MAX_TOKENS = 220
"""Of a text: the other half of the decoder's positions is meant for earlier text."""
ATTEMPTS = (Attempt(False, 0.0), Attempt(True, 0.0), Attempt(True, 0.4), Attempt(True, 0.8))
"""Whisper's own remedies, shortened: what is still bad after them is no speech that it understands."""


class WhisperProgram:
    """Items have `mel` [rows, mels, frames] (log-mel, frames even) and `beam_width` [rows] (1 is greedy, at most 8);
    they give `tokens` [rows, n] without special tokens (shorter rows end in ends of text), `mean_logprob` and
    `no_speech` [rows]. Only items of equal frames and beams are decoded side by side.
    """

    def __init__(self, graphs: Graphs, tokenizer: Tokenizer) -> None:
        self.signature = _signature(graphs.facts.mels)
        self.provider = graphs.provider
        self._graphs = graphs
        self._tokenizer = tokenizer
        self._end_of_text = graphs.facts.tokens["end_of_text"]

    @classmethod
    def load(cls, card: Card, folder: Path, sessions: Sessions) -> Self:
        """Opens both graphs and the tokenizer (whose library a service of another family need not have)."""
        from tokenizers import Tokenizer

        return cls(Graphs(folder, sessions), Tokenizer.from_file(str(folder / "tokenizer.json")))

    def samples(self) -> list[Tensors]:
        """Three seconds of silence with a different hum in each: short texts, so that warm-up is quick."""
        made: list[Tensors] = []
        for band in (4, 12, 20):
            mel = np.full((1, self._graphs.facts.mels, 300), SILENT_CELL, np.float32)
            mel[0, band, 50:150] = 0.5
            made.append({"mel": mel, "beam_width": np.array([2], np.int64)})
        return made

    def run(self, items: Sequence[Item]) -> None:
        """Decodes all items; each ends when its windows came out well or no remedy is left."""
        windows = [window for item in items for window in self._windows(item)]
        for attempt in ATTEMPTS:
            for group in groups(windows, attempt, self._graphs.facts):
                self._decode([window for window in group if window.wanted], attempt)
            windows = [window for window in windows if not window.settled and not window.item.done]
        for window in windows:
            window.settle()
            self._end(window)

    def _windows(self, item: Item) -> list[Window]:
        try:
            return windows_of(item, self._graphs.facts)
        except BadInput as error:
            item.fail(error)
            return []

    def _decode(self, windows: Sequence[Window], attempt: Attempt) -> None:
        """One attempt at windows that belong side by side; a window leaves when its search is over."""
        crosses = [window.listen(attempt, self._graphs) for window in windows if window.wanted]
        windows = [window for window in windows if not window.item.done]
        if not windows:
            return
        decoding = Decoding(self._graphs, crosses)
        offer = decoding.prompt()
        live = [_Search(window, window.search(attempt, self._end_of_text)) for window in windows]
        parents = _begin(live, offer)
        for _ in range(MAX_TOKENS - 1):
            offer = decoding.step([token for one in live for token in one.search.last], parents)
            staying, parents = self._grow(live, offer)
            if len(staying) < len(live):
                live = [live[place] for place in staying]
                if not live:
                    return
                decoding.keep(staying)
        for one in live:
            self._judge(one)

    def _grow(self, live: Sequence[_Search], offer: Offer) -> tuple[list[int], list[int]]:
        """(the places of the searches that go on, the row that each of their rows continues)."""
        staying: list[int] = []
        parents: list[int] = []
        for place, one in enumerate(live):
            if not one.window.wanted:
                continue
            first = place * one.search.rows
            mine = slice(first, first + one.search.rows)
            grown = one.search.grow(offer.scores[mine], offer.tokens[mine])
            if grown is None:
                self._judge(one)
                continue
            staying.append(place)
            parents.extend(first + row for row in grown)
        return staying, parents

    def _judge(self, one: _Search) -> None:
        """Ends the window's item if its text is good and it was the last one."""
        hypothesis = one.search.best()
        text = self._tokenizer.decode(list(hypothesis.tokens)).encode()
        one.window.offer(Result(hypothesis, one.no_speech, len(text) / len(zlib.compress(text))))
        self._end(one.window)

    def _end(self, window: Window) -> None:
        results = [sibling.result for sibling in window.siblings if sibling.settled and sibling.result is not None]
        if len(results) == len(window.siblings):
            window.item.finish(_outputs(results, self._end_of_text))


class _Search:
    """A window and the search that grows its text."""

    def __init__(self, window: Window, search: Search) -> None:
        self.window = window
        self.search = search
        self.no_speech = 0.0


def _begin(live: Sequence[_Search], offer: Offer) -> list[int]:
    """Starts all searches from the prompt; the row that each of their rows continues: their item's only one."""
    for place, one in enumerate(live):
        one.no_speech = math.exp(offer.no_speech[place])
        one.search.begin(offer.scores[place : place + 1], offer.tokens[place : place + 1])
    return [place for place, one in enumerate(live) for _ in range(one.search.rows)]


def _outputs(results: Sequence[Result], end_of_text: int) -> Tensors:
    longest = max(len(result.hypothesis.tokens) for result in results)
    tokens = np.full((len(results), longest), end_of_text, np.int64)
    for row, result in enumerate(results):
        tokens[row, : len(result.hypothesis.tokens)] = result.hypothesis.tokens
    return {
        "tokens": tokens,
        "mean_logprob": np.array([result.hypothesis.mean_logprob for result in results], np.float32),
        "no_speech": np.array([result.no_speech for result in results], np.float32),
    }


def _signature(mels: int) -> Signature:
    def info(name: str, datatype: str, dtype: npt.DTypeLike, *shape: int, pad_axis: int | None = None) -> TensorInfo:
        return TensorInfo(name, datatype, np.dtype(dtype), shape, batch_axis=0, pad_axis=pad_axis)

    inputs = [info("mel", "FP32", np.float32, -1, mels, -1, pad_axis=2), info("beam_width", "INT64", np.int64, -1)]
    outputs = [
        info("tokens", "INT64", np.int64, -1, -1),
        info("mean_logprob", "FP32", np.float32, -1),
        info("no_speech", "FP32", np.float32, -1),
    ]
    return Signature({one.name: one for one in inputs}, {one.name: one for one in outputs})
