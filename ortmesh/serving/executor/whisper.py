"""WhisperProgram: from spectrograms to tokens, with beams; what came out badly is decoded again. Stage: executor."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np

from ortmesh.errors import BadInput
from ortmesh.serving.cards import Card
from ortmesh.serving.executor.sessions import PROVIDERS, Sessions, providers_of
from ortmesh.serving.executor.whisper_answer import outputs_of, signature_of
from ortmesh.serving.executor.whisper_decoder import Graphs
from ortmesh.serving.executor.whisper_group import Group
from ortmesh.serving.executor.whisper_limits import TEMPERATURES
from ortmesh.serving.executor.whisper_request import wishes_of
from ortmesh.serving.executor.whisper_window import SILENT_CELL, Window, groups, must_be_mel, windows_of
from ortmesh.serving.types import Array, Item, Tensors

if TYPE_CHECKING:
    from tokenizers import Tokenizer


class WhisperProgram:
    """Items have `mel` [rows, mels, frames] (log-mel, frames even) and `beam_width` [rows] (1 is greedy, at most 8),
    and may have more; `ortmesh.serving.executor.whisper_answer` lists all and what they give.

    Only rows of equal frames, beams and lengths of earlier text are decoded side by side, and at most `limit` of them,
    however many an item has: at 30 s, its length at a second attempt, each holds 18 MB of keys and values.

    A window that came out badly (improbable, or repeating itself) is decoded again with silence up to the 30 s that
    Whisper was trained with, then drawn at rising temperatures (Radford et al. 2022, section 4.5). The draws are for
    what is hardly to be heard: at 0 dB of white noise they take word errors from .664 to .660, and 80 % more time.
    """

    def __init__(self, graphs: Graphs, tokenizer: Tokenizer, limit: int) -> None:
        self.signature = signature_of(graphs.facts)
        self.provider = graphs.provider
        self._graphs = graphs
        self._tokenizer = tokenizer
        self._limit = limit

    @classmethod
    def load(cls, card: Card, folder: Path, sessions: Sessions) -> Self:
        """Opens both graphs and the tokenizer (whose library a service of another family need not have).

        ValueError for a card whose languages are not the model's: items name them by their places.
        """
        from ortmesh.serving.tokenizing import load_tokenizer

        on_cpu = providers_of(card.runtime)[0] == PROVIDERS["cpu"]
        graphs = Graphs(folder, sessions, int8=on_cpu)
        known = list(graphs.facts.languages)
        if known and card.languages != known:
            raise ValueError(f"the card's languages are not the model's, in its order: {', '.join(known)}")
        return cls(graphs, load_tokenizer(folder / "tokenizer.json"), card.batching.max_rows)

    def samples(self) -> list[Tensors]:
        """Three seconds of silence with a different hum in each: short texts, so that warm-up is quick."""
        made: list[Tensors] = []
        for band in (4, 12, 20):
            mel = np.full((1, self._graphs.facts.mels, 300), SILENT_CELL, np.float32)
            mel[0, band, 50:150] = 0.5
            made.append({"mel": mel, "beam_width": np.array([2], np.int64)})
        return made

    def run(self, items: Sequence[Item]) -> Generator[None, None, None]:
        """Decodes all items; each ends as soon as its windows came out well or nothing else is left to be tried.

        Others have a turn between the groups that are decoded side by side, and before each further attempt: all six
        of a noisy window take seconds.
        """
        windows = [window for item in items for window in self._windows(item)]
        yield from self._decode(windows)
        again = [window for window in windows if not window.settled and window.wanted]
        if again:
            yield
            yield from self._decode_again(again)

    @cached_property
    def _continues(self) -> Array:
        """Which tokens go on with the word before them: bool [vocabulary]. Of letters beyond ASCII it can't be told:
        a token may begin within one, and not all scripts have spaces."""
        texts = (self._tokenizer.id_to_token(token) or "" for token in range(self._graphs.facts.vocabulary))
        return np.array([text[:1].isascii() and text[:1].isalnum() for text in texts])

    def _windows(self, item: Item) -> list[Window]:
        try:
            must_be_mel(item.tensors["mel"], self._graphs.facts)
            rows = len(item.tensors["mel"])
            wishes = wishes_of(item.tensors, rows, self._graphs.facts, lambda: self._continues)
        except BadInput as error:
            item.fail(error)
            return []
        return windows_of(item, wishes)

    def _decode(self, windows: Sequence[Window]) -> Generator[None, None, None]:
        for number, some in enumerate(groups(windows, self._limit)):
            if number:
                yield
            self._group(some).search()

    def _decode_again(self, windows: Sequence[Window]) -> Generator[None, None, None]:
        """With the whole window, where it had less; then by draws."""
        whole = self._graphs.facts.max_frames
        shorter = [window for window in windows if window.frames < whole]
        for window in windows:
            window.frames = whole
        for number, some in enumerate(groups(windows, self._limit)):
            if number:
                yield
            yield from _attempts(self._group(some), shorter)

    def _group(self, windows: Sequence[Window]) -> Group:
        """Those that are wanted still, heard by the encoder."""
        return Group(self._graphs, self._tokenizer, windows, self._settled)

    def _settled(self, window: Window) -> None:
        """Ends an item all of whose windows are settled."""
        if all(sibling.settled for sibling in window.siblings):
            window.item.finish(outputs_of(window.siblings, self._graphs.facts))


def _attempts(group: Group, shorter: Sequence[Window]) -> Generator[None, None, None]:
    """The search in the whole window, for those that had a shorter one; then draws. Others have a turn before each."""
    group.search(shorter)
    for temperature in TEMPERATURES:
        if group.over:
            break
        yield
        group.draw(temperature)
    group.give_up()
