"""Listening: a recording's windows as they become known, by a model that detects speech. Stage: task."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing

import numpy as np

from ortmesh.front.call import Call
from ortmesh.serving.model import Model
from ortmesh.serving.models import Models
from ortmesh_speech import detect_speech
from ortmesh_speech.audio import Recording, Samples
from ortmesh_speech.detect_speech import Framing, blocks_of
from ortmesh_speech.levels import audible
from ortmesh_speech.spoken import detector_of
from ortmesh_speech.windows import Block, Cutter, Window


class Listener:
    """Where somebody speaks in one recording. Where the mesh has no model for that, whatever is not silent counts."""

    def __init__(self, models: Models, call: Call) -> None:
        """Leases the default model until the call ends. NotReady and ModelFailed of it."""
        self._call = call
        self._model = detector_of(models, call)
        self._framing = Framing() if self._model is None else detect_speech.NEEDS.of(self._model)

    async def windows(self, recording: Recording) -> AsyncGenerator[Window]:
        """The recording's windows in the order of time. BadInput, OutOfRange, and the model's errors."""
        cutter = Cutter(self._framing.frame, judged=self._model is not None)
        # A part's admission is its own: whether the recording is admitted, the recognizer's queue says, the long one.
        with self._call.part() as part:
            async with aclosing(self._blocks(recording, part)) as blocks:
                async for block in blocks:
                    for window in await self._call.in_pool(cutter.push, block):
                        yield window
        for window in cutter.rest(recording.seconds):
            yield window

    async def _blocks(self, recording: Recording, part: Call) -> AsyncGenerator[Block]:
        """Pieces of 4 s; each begins for the model in the state of the one before."""
        framing, state = self._framing, None
        blocks = blocks_of(recording, framing.frame, framing.context)
        while (piece := await self._call.in_pool(next_piece, blocks, framing)) is not None:
            samples, speech = piece
            if self._model is not None and speech.any():
                part.admitted = self._call.admitted
                speech, state = await judge(self._model, samples, state, part)
            yield Block(samples[0, framing.context :], speech)


async def judge(model: Model, samples: Samples, state: Samples | None, call: Call) -> tuple[Samples, Samples]:
    """(the probability of speech in each frame, the state in which the next block begins); None begins in silence."""
    if state is None:
        state = np.zeros([max(size, 1) for size in model.inputs["state"].shape], np.float32)
    loudest = float(np.abs(samples).max())
    heard = samples if loudest <= 1 else samples / np.float32(loudest)  # floats in the scale of integers
    outputs = await model({"samples": heard, "state": state}, call, outputs=detect_speech.NEEDS.outputs)
    return outputs["speech"][0], outputs["next_state"]


def next_piece(blocks: Iterator[Samples], framing: Framing) -> tuple[Samples, Samples] | None:
    """The recording's next block with its context, [1, context + n x frame], and where it is audible, [n]; None at
    its end. BadInput, OutOfRange."""
    samples = next(blocks, None)
    return None if samples is None else (samples, audible(samples[0, framing.context :], framing.frame))
