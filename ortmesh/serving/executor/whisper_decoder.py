"""Whisper's two graphs: the encoder, and the decoder as the steps of a search over a group of items. Stage: executor.

The graphs are written by `ortmesh.catalogue.recipes._whisper_files`, with the facts about them in `whisper.json`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import onnxruntime

from ortmesh.errors import ModelFailed
from ortmesh.serving.executor.sessions import Sessions
from ortmesh.serving.executor.whisper_facts import Facts
from ortmesh.serving.executor.whisper_search import Offer
from ortmesh.serving.types import Array

MASKED = -1e9
T = TypeVar("T")
CPU = "CPUExecutionProvider"
NO_PROBE = np.zeros(1, np.int64)
"""Stands for no probes where the graph wants one."""


class Cross(NamedTuple):
    """What the decoder attends to of one item's audio: keys [layers, 1, heads, head, audio], values transposed."""

    keys: Array
    values: Array


class Start(NamedTuple):
    """What the decoder says before a text begins."""

    no_speech: Array
    """Log-probability that nothing is said: float32 [items]."""
    languages: Array
    """Log-probabilities of the languages, in the model's order: float32 [items, languages]."""


class Graphs:
    """The sessions of one model, shared by all its decodings."""

    def __init__(self, folder: Path, sessions: Sessions, *, int8: bool = False) -> None:
        """With `int8` those whose weights have 8 bits, where the folder has them: quicker on a CPU."""
        self.facts = Facts.read(folder / "whisper.json")
        encoder, decoder = (_graph(folder, name, int8) for name in ("encoder", "decoder"))
        self._encoder = sessions.open(encoder)
        self.decoder = sessions.open(decoder)
        self.provider: str = self.decoder.get_providers()[0]
        self.device = "cpu" if self.provider == CPU else "cuda"
        self.device_id: int = self.decoder.stream.device_id if self.decoder.stream is not None else 0
        self.aligns = any(output.name == "attention" for output in self.decoder.get_outputs())
        end = self.facts.tokens["end_of_text"]
        every, spoken = np.zeros((1, self.facts.vocabulary), np.float32), slice(0, end + 1)
        later = np.full_like(every, MASKED)
        later[0, spoken] = 0
        later[0, list(self.facts.suppress)] = MASKED
        first = later.copy()
        first[0, list(self.facts.suppress_at_begin)] = MASKED
        self.every_token, self.first_tokens, self.later_tokens = map(self.on_device, (every, first, later))

    def encode(self, mel: Array) -> Cross:
        """Of one item's spectrogram [1, mels, frames]. One a run: on a CPU more at once gain nothing, and the
        dynamically quantized encoder would mix their scales.
        """
        return Cross(*self._encoder.run(["cross_k", "cross_v"], {"mel": mel}))

    def prefix(self, language: int) -> list[int]:
        """The tokens between the start of a text and the text itself."""
        tokens, languages = self.facts.tokens, list(self.facts.languages.values())
        return [*([languages[language], tokens["transcribe"]] if languages else []), tokens["no_timestamps"]]

    def on_device(self, array: Array) -> Any:
        """An OrtValue where the decoder computes."""
        return onnxruntime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array), self.device, self.device_id)

    def attention(self, cross: Cross, language: int, text: Sequence[int]) -> Array:
        """How a text of one item attends to its audio: probabilities [heads, tokens + 1, audio].

        ModelFailed for a decoder that does not tell, made before there were words' times.
        """
        if not self.aligns:
            raise ModelFailed("its decoder gives no attention, so that words have no times: pull the model again")
        prefix = self.prefix(language)
        ids = [self.facts.tokens["start_of_transcript"], *prefix, *text]
        return Decoding(self, [cross]).attention(ids)[:, len(prefix) :]


class Decoding:
    """A group of items of equal frames, decoded side by side. Hypotheses are rows; items have equally many.

    Each item gets an even number of rows, the last one twice where they are odd: ONNX Runtime multiplies with weights
    of 8 bits by pairs of rows, and a row without another by other instructions, whose results differ in the last bit.
    So an item's numbers are the same alone and among others, bit by bit.
    """

    def __init__(self, graphs: Graphs, group: Sequence[Cross]) -> None:
        self._graphs = graphs
        self._group = list(group)
        self._hold_cross()
        facts = graphs.facts
        nothing = np.zeros((facts.layers, len(group), facts.heads, 0, facts.head_width), np.float32)
        self._past = (graphs.on_device(nothing), graphs.on_device(nothing))
        self._rows = (1, 1)
        """Each item's in the step before: those that count, and all."""

    def start(self, earlier: Sequence[Sequence[int]]) -> Start:
        """Reads each item's earlier text, equally long for all, up to where its own text starts."""
        facts = self._graphs.facts
        previous, start = facts.tokens["start_of_previous"], facts.tokens["start_of_transcript"]
        ids = [[*([previous, *text] if text else []), start] for text in earlier]
        probes = [facts.tokens["no_speech"], *facts.languages.values()]
        probed = self._step(ids, range(len(ids)), self._graphs.every_token, probes).probed
        return Start(probed[:, 0], _normalized(probed[:, 1:]))

    def prompt(self, languages: Sequence[int], probes: Iterable[int] = ()) -> Offer:
        """The first text tokens of every item, one row each, in the language of that index."""
        ids = [self._graphs.prefix(language) for language in languages]
        return self._step(ids, range(len(ids)), self._graphs.first_tokens, probes)

    def step(self, tokens: Sequence[int], parents: Sequence[int], probes: Iterable[int] = ()) -> Offer:
        """Appends a token to each row, which continues the row `parents` names of the step before."""
        return self._step([[token] for token in tokens], parents, self._graphs.later_tokens, probes)

    def keep(self, places: Sequence[int]) -> None:
        """Goes on with only these items of the group; the next step's parents still name the last step's rows."""
        self._group = [self._group[place] for place in places]
        self._hold_cross()

    def attention(self, ids: Sequence[int]) -> Array:
        """How the only item's tokens attend to its audio, read at once: [heads, tokens, audio]."""
        binding = self._bind([ids], [0], self._graphs.every_token, NO_PROBE)
        binding.bind_output("attention", "cpu")
        self._graphs.decoder.run_with_iobinding(binding)
        attended: Array = binding.get_outputs()[0].numpy()[0]
        return attended

    def _hold_cross(self) -> None:
        self._cross: dict[str, Any] = {}
        for name, parts in zip(("cross_k", "cross_v"), zip(*self._group, strict=True), strict=True):
            for layer in range(self._graphs.facts.layers):
                joined = parts[0][layer] if len(parts) == 1 else np.concatenate([part[layer] for part in parts])
                self._cross[f"{name}_{layer}"] = self._graphs.on_device(joined)

    def _step(
        self, ids: Sequence[Sequence[int]], parents: Sequence[int], suppress: Any, probes: Iterable[int]
    ) -> Offer:
        graphs = self._graphs
        asked = np.array(list(probes), np.int64)
        counted, held = self._rows
        continued = [parent // counted * held + parent % counted for parent in parents]
        counted = len(ids) // len(self._group)
        self._rows = counted, held = counted, counted + counted % 2
        binding = self._bind(
            self._even(ids, counted), self._even(continued, counted), suppress, asked if len(asked) else NO_PROBE
        )
        for name in ("new_k", "new_v"):
            binding.bind_output(name, graphs.device, graphs.device_id)
        for name in ("scores", "tokens", "probe_scores"):
            binding.bind_output(name, "cpu")
        graphs.decoder.run_with_iobinding(binding)
        new_k, new_v, scores, tokens, probed = binding.get_outputs()
        self._past = (new_k, new_v)
        count = [item * held + row for item in range(len(self._group)) for row in range(counted)]
        return Offer(scores.numpy()[count], tokens.numpy()[count], probed.numpy()[count, : len(asked)], asked)

    def _even(self, rows: Sequence[T], each: int) -> list[T]:
        """The rows of all items, `each` of one; where that is odd the last one of each twice."""
        items = [rows[first : first + each] for first in range(0, len(rows), each)]
        return [row for item in items for row in (*item, *item[each - each % 2 :])]

    def _bind(self, ids: Sequence[Sequence[int]], parents: Sequence[int], suppress: Any, probes: Array) -> Any:
        graphs = self._graphs
        binding = graphs.decoder.io_binding()
        feeds = {
            "ids": graphs.on_device(np.array(ids, np.int64)),
            "beam": graphs.on_device(np.array(parents, np.int64)),
            "suppress": suppress,
            "probe": graphs.on_device(probes),
            "past_k": self._past[0],
            "past_v": self._past[1],
            **self._cross,
        }
        for name, value in feeds.items():
            binding.bind_ortvalue_input(name, value)
        return binding


def _graph(folder: Path, name: str, int8: bool) -> Path:
    small = folder / f"{name}.int8.onnx"
    return small if int8 and small.is_file() else folder / f"{name}.onnx"


def _normalized(scores: Array) -> Array:
    """Log-probabilities among some tokens alone."""
    normalized: Array = scores - np.logaddexp.reduce(scores, axis=1, keepdims=True) if scores.shape[1] else scores
    return normalized
