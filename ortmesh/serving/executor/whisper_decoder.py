"""Whisper's two graphs: the encoder, and the decoder as the steps of a search over a group of items. Stage: executor.

The graphs are written by `ortmesh.catalogue.recipes.whisper_tiny_en`, with the facts about them in `whisper.json`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnxruntime

from ortmesh.serving.executor.sessions import Sessions
from ortmesh.serving.types import Array

MASKED = -1e9


@dataclass(frozen=True, slots=True)
class Facts:
    """What `whisper.json` says of the graphs."""

    layers: int
    heads: int
    head_width: int
    mels: int
    max_frames: int
    vocabulary: int
    tokens: Mapping[str, int]
    """`end_of_text`, `start_of_transcript`, `no_timestamps`, `no_speech` …"""
    suppress: Sequence[int]
    """Tokens that no text contains: symbols that are not spoken."""
    suppress_at_begin: Sequence[int]
    """Tokens that no text begins with: a space, the end."""

    @classmethod
    def read(cls, path: Path) -> Facts:
        """Of the file at `path`; keys that only other programs need are passed over."""
        written = json.loads(path.read_text(encoding="utf-8"))
        return cls(**{name: written[name] for name in cls.__slots__})


class Cross(NamedTuple):
    """What the decoder attends to of one item's audio: keys [layers, 1, heads, head, audio], values transposed."""

    keys: Array
    values: Array


class Offer(NamedTuple):
    """What a step found for each row."""

    scores: Array
    """Log-probabilities of the best tokens, best first: float32 [rows, candidates]."""
    tokens: Array
    """Those tokens: int64 [rows, candidates]."""
    no_speech: Array
    """Log-probability that nothing is said, meaningful after the first step: float32 [rows]."""


class Graphs:
    """The sessions of one model, shared by all its decodings."""

    def __init__(self, folder: Path, sessions: Sessions) -> None:
        self.facts = Facts.read(folder / "whisper.json")
        self._encoder = sessions.open(folder / "encoder.onnx")
        self.decoder = sessions.open(folder / "decoder.onnx")
        self.provider: str = self.decoder.get_providers()[0]
        self.device = "cpu" if self.provider == "CPUExecutionProvider" else "cuda"
        self.device_id: int = self.decoder.stream.device_id if self.decoder.stream is not None else 0
        end = self.facts.tokens["end_of_text"]
        every, spoken = np.zeros((1, self.facts.vocabulary), np.float32), slice(0, end + 1)
        later = np.full_like(every, MASKED)
        later[0, spoken] = 0
        later[0, list(self.facts.suppress)] = MASKED
        first = later.copy()
        first[0, list(self.facts.suppress_at_begin)] = MASKED
        self.every_token, self.first_tokens, self.later_tokens = map(self.on_device, (every, first, later))
        self.no_speech = self.on_device(np.array([self.facts.tokens["no_speech"]]))

    def encode(self, mel: Array) -> Cross:
        """Of one item's spectrogram [1, mels, frames]. One a run: on a CPU more at once gain nothing, and a
        dynamically quantized encoder would mix their scales.
        """
        return Cross(*self._encoder.run(["cross_k", "cross_v"], {"mel": mel}))

    def on_device(self, array: Array) -> Any:
        """An OrtValue where the decoder computes."""
        return onnxruntime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array), self.device, self.device_id)


class Decoding:
    """A group of items of equal frames, decoded side by side. Hypotheses are rows; items have equally many."""

    def __init__(self, graphs: Graphs, group: Sequence[Cross]) -> None:
        self._graphs = graphs
        self._group = list(group)
        self._hold_cross()
        facts = graphs.facts
        nothing = np.zeros((facts.layers, len(group), facts.heads, 0, facts.head_width), np.float32)
        self._past = (graphs.on_device(nothing), graphs.on_device(nothing))

    def prompt(self) -> Offer:
        """The first text tokens of every item, one row each, and how probable it is that there are none."""
        rows, tokens = len(self._group), self._graphs.facts.tokens
        itself = list(range(rows))
        start = self._step([tokens["start_of_transcript"]] * rows, itself, self._graphs.every_token)
        offer = self._step([tokens["no_timestamps"]] * rows, itself, self._graphs.first_tokens)
        return offer._replace(no_speech=start.no_speech)

    def step(self, tokens: Sequence[int], parents: Sequence[int]) -> Offer:
        """Appends a token to each row, which continues the row `parents` names of the step before."""
        return self._step(tokens, parents, self._graphs.later_tokens)

    def keep(self, places: Sequence[int]) -> None:
        """Goes on with only these items of the group; the next step's parents still name the last step's rows."""
        self._group = [self._group[place] for place in places]
        self._hold_cross()

    def _hold_cross(self) -> None:
        parts = list(zip(*self._group, strict=True))
        joined = [part[0] if len(part) == 1 else np.concatenate(part, axis=1) for part in parts]
        self._cross = tuple(map(self._graphs.on_device, joined))

    def _step(self, tokens: Sequence[int], parents: Sequence[int], suppress: Any) -> Offer:
        graphs = self._graphs
        binding = graphs.decoder.io_binding()
        feeds = {
            "ids": graphs.on_device(np.array(tokens, np.int64)[:, None]),
            "beam": graphs.on_device(np.array(parents, np.int64)),
            "suppress": suppress,
            "probe": graphs.no_speech,
            "past_k": self._past[0],
            "past_v": self._past[1],
            "cross_k": self._cross[0],
            "cross_v": self._cross[1],
        }
        for name, value in feeds.items():
            binding.bind_ortvalue_input(name, value)
        for name in ("new_k", "new_v"):
            binding.bind_output(name, graphs.device, graphs.device_id)
        for name in ("scores", "tokens", "probe_scores"):
            binding.bind_output(name, "cpu")
        graphs.decoder.run_with_iobinding(binding)
        new_k, new_v, scores, best, probed = binding.get_outputs()
        self._past = (new_k, new_v)
        return Offer(scores.numpy(), best.numpy(), probed.numpy()[:, 0])
