"""VoiceActivity: how probable it is that somebody speaks, in a recording or while the audio comes. Stage: task."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Iterator

import numpy as np
from pydantic import Field

from ortmesh.front.call import Call
from ortmesh.serving.model import Model
from ortmesh.serving.needs import Needs, Settings
from ortmesh_speech.audio import SAMPLE_RATE, Samples
from ortmesh_speech.cutter import Block
from ortmesh_speech.levels import audible

BLOCK_FRAMES = 128
"""Of one model call, 4 s of audio: long enough that the way to the model does not count, short enough that an hour
never lies in memory and a short recording does not wait for long ones."""


class Framing(Settings):
    """How a model takes audio, in samples of 16 kHz."""

    frame: int = Field(default=512, ge=1)
    """What one of its probabilities is about."""
    context: int = Field(default=64, ge=0)
    """What it hears again of the block before."""


NEEDS = Needs(
    Framing,
    inputs={"samples": "FP32", "state": "FP32"},
    outputs={"speech": 2, "next_state": 3},
)


class VoiceActivity:
    """One recording or stream through a model that detects speech: each block begins in the state in which the last one
    ended, so that nobody hears where they are cut.

    Without a model whatever is not silent counts as speech.
    """

    def __init__(self, model: Model | None, call: Call) -> None:
        """ModelFailed for a model whose card or graph is not what the task needs."""
        framing = Framing(context=0) if model is None else NEEDS.of(model)
        self.frame = framing.frame
        """Samples that one probability is about."""
        self._model = model
        self._call = call
        self._context = framing.context
        self._held = np.zeros(framing.context, np.float32)
        """The context of the next frame, and what there is of it."""
        state = () if model is None else model.inputs["state"].shape
        self._state = np.zeros([max(size, 1) for size in state], np.float32)

    @property
    def frame_seconds(self) -> float:
        """Of one probability."""
        return self.frame / SAMPLE_RATE

    async def blocks(self, recording: Iterable[Samples]) -> AsyncGenerator[Block]:
        """A recording, read in the pool and judged 4 s at a time. BadInput, OutOfRange of it; the model's errors."""
        async for samples in self._call.each(pieces(recording, BLOCK_FRAMES * self.frame)):
            yield await self.hear(samples)
        yield await self.rest()

    async def hear(self, samples: Samples) -> Block:
        """The frames that are whole now, judged at once; there may be none. The model's errors."""
        held = self._held = np.concatenate([self._held, samples])
        frames = (len(held) - self._context) // self.frame
        found = [await self._judge(at, min(BLOCK_FRAMES, frames - at)) for at in range(0, frames, BLOCK_FRAMES)]
        end = frames * self.frame
        self._held = held[end:].copy()  # a view would keep a whole block
        speech = np.concatenate(found) if found else np.empty(0, np.float32)
        return Block(held[self._context : self._context + end], speech)

    async def rest(self) -> Block:
        """The last frame, when it is not whole, filled up with silence."""
        missing = -(len(self._held) - self._context) % self.frame
        return await self.hear(np.zeros(missing, np.float32))

    async def _judge(self, first: int, frames: int) -> Samples:
        """The probabilities of so many frames, [frames]."""
        begin = first * self.frame
        samples = self._held[begin : begin + self._context + frames * self.frame]
        if self._model is None:
            return audible(samples, self.frame)
        tensors = {"samples": samples[None], "state": self._state}
        outputs = await self._model(tensors, self._call, outputs=NEEDS.outputs)
        self._state = outputs["next_state"]
        speech: Samples = outputs["speech"][0]
        return speech


def pieces(recording: Iterable[Samples], length: int) -> Iterator[Samples]:
    """A recording's samples, so many at a time, the last ones as many as there are."""
    held = np.empty(0, np.float32)
    for samples in recording:
        held = np.concatenate([held, samples])
        while len(held) >= length:
            yield held[:length]
            held = held[length:]
    if len(held):
        yield held
