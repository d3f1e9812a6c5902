"""WhisperProgram: from spectrograms to tokens, with beams; what came out badly is decoded again. Stage: executor."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np

from ortmesh.errors import BadInput
from ortmesh.serving.cards import Card
from ortmesh.serving.executor.sessions import Sessions
from ortmesh.serving.executor.whisper_decoder import Cross, Decoding, Graphs, Offer
from ortmesh.serving.executor.whisper_limits import compression
from ortmesh.serving.executor.whisper_search import BeamSearch
from ortmesh.serving.executor.whisper_window import SILENT_CELL, Result, Window, groups, windows_of
from ortmesh.serving.signature import Signature, TensorInfo
from ortmesh.serving.tensors import dtype_of
from ortmesh.serving.types import Item, Tensors

if TYPE_CHECKING:
    from tokenizers import Tokenizer

MAX_TOKENS = 220
"""Of a text: the other half of the decoder's positions is meant for earlier text."""


class WhisperProgram:
    """Items have `mel` [rows, mels, frames] (log-mel, frames even) and `beam_width` [rows] (1 is greedy, at most 8);
    they give `tokens` [rows, n] without special tokens (shorter rows end in ends of text), `mean_logprob` and
    `no_speech` [rows]. Only rows of equal frames and beams are decoded side by side, and at most `limit` of them,
    however many an item has: at 30 s, its length at a second attempt, each holds 18 MB of keys and values.

    A window that came out badly (improbable, or repeating itself) is decoded again with silence up to the 30 s that
    Whisper was trained with. Its other remedy, drawing texts at rising temperatures, was tried and left out: at
    -6 dB it added 120 % to the time and took no word error away (.77 before and after).
    """

    def __init__(self, graphs: Graphs, tokenizer: Tokenizer, limit: int) -> None:
        self.signature = _signature(graphs.facts.mels)
        self.provider = graphs.provider
        self._graphs = graphs
        self._tokenizer = tokenizer
        self._limit = limit
        self._end_of_text = graphs.facts.tokens["end_of_text"]

    @classmethod
    def load(cls, card: Card, folder: Path, sessions: Sessions) -> Self:
        """Opens both graphs and the tokenizer (whose library a service of another family need not have)."""
        from ortmesh.serving.tokenizing import load_tokenizer

        return cls(Graphs(folder, sessions), load_tokenizer(folder / "tokenizer.json"), card.batching.max_rows)

    def samples(self) -> list[Tensors]:
        """Three seconds of silence with a different hum in each: short texts, so that warm-up is quick."""
        made: list[Tensors] = []
        for band in (4, 12, 20):
            mel = np.full((1, self._graphs.facts.mels, 300), SILENT_CELL, np.float32)
            mel[0, band, 50:150] = 0.5
            made.append({"mel": mel, "beam_width": np.array([2], np.int64)})
        return made

    def run(self, items: Sequence[Item]) -> None:
        """Decodes all items; each ends as soon as its windows came out well or were decoded twice."""
        windows = [window for item in items for window in self._windows(item)]
        self._decode_all(windows)
        bad = [window for window in windows if not window.settled and window.wanted]
        for window in bad:
            window.widen(self._graphs.facts.max_frames)
        self._decode_all([window for window in bad if not window.settled])
        for window in bad:
            window.settled = True
            self._end(window)

    def _windows(self, item: Item) -> list[Window]:
        try:
            return windows_of(item, self._graphs.facts)
        except BadInput as error:
            item.fail(error)
            return []

    def _decode_all(self, windows: Sequence[Window]) -> None:
        for group in groups(windows, self._limit):
            live = [self._listen(window) for window in group if window.wanted]
            if live:
                self._decode(live)

    def _listen(self, window: Window) -> _Hunt:
        return _Hunt(window, self._graphs.encode(window.padded()), BeamSearch(window.beams, self._end_of_text))

    def _decode(self, hunts: Sequence[_Hunt]) -> None:
        """Searches side by side; one leaves when it is over."""
        decoding = Decoding(self._graphs, [hunt.cross for hunt in hunts])
        offer = decoding.prompt()
        parents = _begin(hunts, offer)
        for _ in range(MAX_TOKENS - 1):
            offer = decoding.step([token for hunt in hunts for token in hunt.search.last], parents)
            staying, parents = self._grow(hunts, offer)
            if not staying:
                return
            if len(staying) < len(hunts):
                hunts = [hunts[place] for place in staying]
                decoding.keep(staying)
        for hunt in hunts:
            self._judge(hunt)

    def _grow(self, hunts: Sequence[_Hunt], offer: Offer) -> tuple[list[int], list[int]]:
        """(the places of the searches that go on, the row that each of their beams continues)."""
        staying: list[int] = []
        parents: list[int] = []
        for place, hunt in enumerate(hunts):
            if not hunt.window.wanted:
                continue
            first = place * hunt.search.beams
            mine = slice(first, first + hunt.search.beams)
            grown = hunt.search.grow(offer.scores[mine], offer.tokens[mine])
            if grown is None:
                self._judge(hunt)
                continue
            staying.append(place)
            parents.extend(first + beam for beam in grown)
        return staying, parents

    def _judge(self, hunt: _Hunt) -> None:
        """Offers the window what was found; ends its item when that was good and the last."""
        best = hunt.search.best()
        text = self._tokenizer.decode(list(best.tokens))
        hunt.window.offer(Result(best, hunt.no_speech, compression(text)))
        self._end(hunt.window)

    def _end(self, window: Window) -> None:
        results = [sibling.result for sibling in window.siblings if sibling.settled and sibling.result is not None]
        if len(results) == len(window.siblings):
            window.item.finish(_outputs(results, self._end_of_text))


class _Hunt:
    """The search for a window's text."""

    def __init__(self, window: Window, cross: Cross, search: BeamSearch) -> None:
        self.window = window
        self.cross = cross
        self.search = search
        self.no_speech = 0.0


def _begin(hunts: Sequence[_Hunt], offer: Offer) -> list[int]:
    """Starts all searches from the prompt; the row that each of their beams continues: their window's only one."""
    for place, hunt in enumerate(hunts):
        hunt.no_speech = math.exp(offer.no_speech[place])
        hunt.search.begin(offer.scores[place : place + 1], offer.tokens[place : place + 1])
    return [place for place, hunt in enumerate(hunts) for _ in range(hunt.search.beams)]


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
    inputs = [_info("mel", "FP32", -1, mels, -1, pad_axis=2), _info("beam_width", "INT64", -1)]
    outputs = [_info("tokens", "INT64", -1, -1), _info("mean_logprob", "FP32", -1), _info("no_speech", "FP32", -1)]
    return Signature({info.name: info for info in inputs}, {info.name: info for info in outputs})


def _info(name: str, datatype: str, *shape: int, pad_axis: int | None = None) -> TensorInfo:
    return TensorInfo(name, datatype, dtype_of(datatype), shape, batch_axis=0, pad_axis=pad_axis)
