"""Interim: what is said so far, heard again and again while somebody speaks. Stage: task."""

from __future__ import annotations

import math

import numpy as np

from ortmesh.front.call import Call
from ortmesh.serving.model import Model
from ortmesh.serving.needs import Needs, Settings, asset
from ortmesh.speech.v1.speech_pb2 import InterimResult
from ortmesh_speech.agreement import Agreement, Vocabulary
from ortmesh_speech.audio import SAMPLE_RATE, Samples
from ortmesh_speech.durations import duration
from ortmesh_speech.utterances import Open, Utterances

STEP_SECONDS = 0.5
"""Windows are multiples of it, filled with what came before: only equal ones are computed together, and a stream has
something new to tell no more often."""
LEAST_SECONDS = 0.6
"""Of speech: less of it is heard as anything ("See you soon.")."""
BEFORE_SECONDS = 0.3
"""Of what came before the first word that every window has."""
BEHIND_SECONDS = 0.2
"""Of silence put behind what was heard: a window that ends within a word sends the model in circles (2.0 wrong words a
window without, 0.65 with 0.05 s, 0.33 with 0.2 s)."""


class Writing(Settings):
    """How a model writes."""

    vocabulary: str = "tokenizer.bin"
    """The file with its tokens' texts."""


NEEDS = Needs(Writing, inputs={"samples": "FP32", "prefix": "INT64"}, outputs={"tokens": 2})


class Interim:
    """One stream's interim results; one is made at a time."""

    def __init__(self, model: Model) -> None:
        """It blocks, for the vocabulary. ModelFailed."""
        self._model = model
        self._vocabulary = vocabulary_of(model)
        self._begin = math.nan
        """Seconds at which the stretch begins that was heard last."""
        self._steps = 0
        """Of its last window."""
        self._agreement = Agreement(self._vocabulary)

    def next_window(self, utterances: Utterances, open_: Open) -> Samples | None:
        """What is to be heard of the stretch that is being said, float32 [samples]; None unless it has grown."""
        if open_.heard - open_.window.start < LEAST_SECONDS:
            return None
        begin = open_.window.offset
        if begin != self._begin:
            self._begin, self._steps, self._agreement = begin, 0, Agreement(self._vocabulary)
        seconds = BEFORE_SECONDS + open_.heard - open_.window.start + BEHIND_SECONDS
        steps = math.ceil(seconds / STEP_SECONDS)
        if steps <= self._steps:
            return None
        self._steps = steps
        behind = np.zeros(round(BEHIND_SECONDS * SAMPLE_RATE), np.float32)
        heard = utterances.latest(round(steps * STEP_SECONDS * SAMPLE_RATE) - len(behind))
        return np.concatenate([heard, behind])

    async def hear(self, samples: Samples, open_: Open, call: Call) -> InterimResult:
        """The text of a window. The model's errors."""
        agreement = self._agreement
        tensors = {"samples": samples[None]}
        if agreement.stable:
            tensors["prefix"] = np.array([agreement.stable], np.int64)
        outputs = await self._model(tensors, call)
        transcript, stable = agreement.push(outputs["tokens"][0].tolist())
        return InterimResult(
            transcript=transcript, stable=stable, start=duration(open_.window.start), heard=duration(open_.heard)
        )


def vocabulary_of(model: Model) -> Vocabulary:
    """A model's vocabulary, read once. ModelFailed for a model that lacks it or anything else that the task needs."""
    return asset(model, Vocabulary.read, NEEDS.of(model).vocabulary)
