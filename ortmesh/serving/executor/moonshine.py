"""MoonshineProgram: from samples to tokens, greedily; rows of equal lengths are decoded side by side. Stage: executor.

The graphs are written by `ortmesh.catalogue.recipes.moonshine_tiny_en`.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from itertools import groupby, islice
from pathlib import Path
from typing import Any, Self

import numpy as np
import onnxruntime

from ortmesh.errors import BadInput
from ortmesh.serving.cards import Card
from ortmesh.serving.executor.loop import is_wanted
from ortmesh.serving.executor.sessions import Sessions
from ortmesh.serving.signature import Signature, TensorInfo
from ortmesh.serving.tensors import dtype_of
from ortmesh.serving.types import Array, Item, Tensors

SAMPLE_RATE = 16_000
MIN_SAMPLES = SAMPLE_RATE // 10
"""The convolutions need 895."""
MAX_SAMPLES = 30 * SAMPLE_RATE
"""The model was trained with at most 30 s, and attention grows with the square."""
TOKENS_A_SECOND = 6.5
"""More are an endless repetition (the authors' own bound)."""
SPARE_TOKENS = 5
START, END = 1, 2


class MoonshineProgram:
    """Items have `samples` [rows, samples] in [-1, 1] at 16 kHz, 0.1 to 30 s, and may have `prefix` [rows, n], tokens
    with which each row's text begins, -1 behind shorter ones; they give `tokens` [rows, n], the prefix included, ends
    of text behind shorter rows.

    Only rows of equal lengths are computed together, and at most `limit`: a padded row would come out differently.
    """

    def __init__(self, encoder: Any, decoder: Any, limit: int) -> None:
        self.signature = _signature()
        self.provider: str = decoder.get_providers()[0]
        self._graphs = _Graphs(encoder, decoder)
        self._limit = limit

    @classmethod
    def load(cls, card: Card, folder: Path, sessions: Sessions) -> Self:
        """Opens both graphs."""
        encoder, decoder = sessions.open(folder / "encoder.onnx"), sessions.open(folder / "decoder.onnx")
        return cls(encoder, decoder, card.batching.max_rows)

    def samples(self) -> list[Tensors]:
        """A second of three different hums: they give short texts."""
        time_ = np.arange(SAMPLE_RATE) / SAMPLE_RATE
        return [
            {"samples": (0.1 * np.sin(2 * np.pi * hertz * time_)).astype(np.float32)[None]} for hertz in (110, 220, 330)
        ]

    def run(self, items: Sequence[Item]) -> Generator[None, None, None]:
        """Decodes all items; each ends as soon as its rows have. Others have a turn between groups."""
        rows = [row for item in items for row in _rows(item)]
        for place, group in enumerate(_groups(rows, self._limit)):
            if live := [row for row in group if row.wanted]:
                if place:
                    yield
                self._decode(live)

    def _decode(self, rows: Sequence[_Row]) -> None:
        decoding = _Decoding(self._graphs, np.concatenate([row.samples for row in rows]))
        common = min(len(row.prefix) for row in rows)
        begun = np.array([[START, *row.prefix[:common]] for row in rows], np.int64)
        for row in rows:
            row.tokens.extend(row.prefix[:common])
        found = decoding.step(begun)
        while True:
            staying = [place for place, row in enumerate(rows) if row.take(int(found[place])) and row.wanted]
            if not staying:
                return
            if len(staying) < len(rows):
                rows = [rows[place] for place in staying]
                decoding.keep(staying)
            found = decoding.step(np.array([[row.tokens[-1]] for row in rows], np.int64))


class _Row:
    """One text to be found."""

    def __init__(self, item: Item, samples: Array, prefix: Sequence[int]) -> None:
        self.item = item
        self.samples = samples
        """[1, samples]."""
        self.prefix = prefix
        self.tokens: list[int] = []
        self.ended = False
        self.siblings = [self]
        """All rows of the item."""
        self._most = max(int(samples.shape[1] / SAMPLE_RATE * TOKENS_A_SECOND) + SPARE_TOKENS, len(prefix))

    @property
    def wanted(self) -> bool:
        """False when nobody waits for it any more; then its item has ended."""
        return is_wanted(self.item)

    def take(self, token: int) -> bool:
        """Appends the token that was found, or the prefix's; False at the end of the text, which may end the item."""
        if len(self.tokens) < len(self.prefix):
            token = self.prefix[len(self.tokens)]
        elif token == END or len(self.tokens) >= self._most:
            self.ended = True
            if all(row.ended for row in self.siblings):
                self.item.finish({"tokens": _stacked([row.tokens for row in self.siblings])})
            return False
        self.tokens.append(token)
        return True


class _Graphs:
    """The sessions, and where they compute."""

    def __init__(self, encoder: Any, decoder: Any) -> None:
        self.encoder = encoder
        self.decoder = decoder
        (past,) = (info for info in decoder.get_inputs() if info.name == "past_k")
        self.layers, _, self.heads, _, self.head = past.shape
        self.device = "cpu" if decoder.get_providers()[0] == "CPUExecutionProvider" else "cuda"
        self.device_id: int = decoder.stream.device_id if decoder.stream is not None else 0

    def on_device(self, array: Array) -> Any:
        """An OrtValue where the decoder computes."""
        return onnxruntime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array), self.device, self.device_id)


class _Decoding:
    """Rows of equal lengths, side by side."""

    def __init__(self, graphs: _Graphs, samples: Array) -> None:
        self._graphs = graphs
        cross = graphs.encoder.run(["cross_k", "cross_v"], {"samples": samples})
        nothing = np.zeros((graphs.layers, len(samples), graphs.heads, 0, graphs.head), np.float32)
        self._held = dict(zip(("cross_k", "cross_v"), map(graphs.on_device, cross), strict=True))
        self._held |= {name: graphs.on_device(nothing) for name in ("past_k", "past_v")}

    def step(self, ids: Array) -> Array:
        """Appends tokens [rows, n] to the rows; the most probable next one of each, [rows]."""
        graphs = self._graphs
        binding = graphs.decoder.io_binding()
        for name, value in {"ids": graphs.on_device(ids), **self._held}.items():
            binding.bind_ortvalue_input(name, value)
        for name in ("new_k", "new_v"):
            binding.bind_output(name, graphs.device, graphs.device_id)
        binding.bind_output("token", "cpu")
        graphs.decoder.run_with_iobinding(binding)
        self._held["past_k"], self._held["past_v"], token = binding.get_outputs()
        found: Array = token.numpy()
        return found

    def keep(self, places: Sequence[int]) -> None:
        """Goes on with only these rows."""
        self._held = {name: self._graphs.on_device(value.numpy()[:, places]) for name, value in self._held.items()}


def _rows(item: Item) -> list[_Row]:
    """One for each row of an item. An item whose tensors are not what the program takes fails here."""
    try:
        samples, prefix = item.tensors["samples"], item.tensors.get("prefix")
        _check(samples, prefix)
    except BadInput as error:
        item.fail(error)
        return []
    prefixes = (
        [[]] * len(samples) if prefix is None else [[token for token in row if token >= 0] for row in prefix.tolist()]
    )
    rows = [_Row(item, samples[place : place + 1], prefixes[place]) for place in range(len(samples))]
    for row in rows:
        row.siblings = rows
    return rows


def _check(samples: Array, prefix: Array | None) -> None:
    """BadInput when they are not what the program takes."""
    if samples.ndim != 2 or not MIN_SAMPLES <= samples.shape[1] <= MAX_SAMPLES:
        expected = f"[rows, samples], {MIN_SAMPLES:,} to {MAX_SAMPLES:,} samples"
        raise BadInput("samples", f"has the shape {list(samples.shape)}: expected {expected}")
    if prefix is not None and (prefix.ndim != 2 or len(prefix) != len(samples)):
        raise BadInput("prefix", f"has the shape {list(prefix.shape)}: expected [{len(samples)}, tokens]")


def _groups(rows: Sequence[_Row], limit: int) -> Iterator[list[_Row]]:
    """Rows of equal lengths, at most `limit` together."""

    def length(row: _Row) -> int:
        return int(row.samples.shape[1])

    for _, group in groupby(sorted(rows, key=length), key=length):
        while some := list(islice(group, limit)):
            yield some


def _stacked(texts: Sequence[Sequence[int]]) -> Array:
    stacked = np.full((len(texts), max(map(len, texts))), END, np.int64)
    for row, text in enumerate(texts):
        stacked[row, : len(text)] = text
    return stacked


def _signature() -> Signature:
    samples = TensorInfo("samples", "FP32", dtype_of("FP32"), (-1, -1), batch_axis=0, pad_axis=1)
    prefix = TensorInfo("prefix", "INT64", dtype_of("INT64"), (-1, -1), batch_axis=0, optional=True)
    tokens = TensorInfo("tokens", "INT64", dtype_of("INT64"), (-1, -1), batch_axis=0)
    return Signature({"samples": samples, "prefix": prefix}, {"tokens": tokens})
