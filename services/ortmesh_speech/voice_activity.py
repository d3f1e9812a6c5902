"""VoiceActivity: how probable it is that somebody speaks, while the audio comes. Stage: task."""

from __future__ import annotations

import numpy as np

from ortmesh.front.call import Call
from ortmesh.serving.model import Model
from ortmesh_speech.audio import SAMPLE_RATE, Samples
from ortmesh_speech.detect_speech import BLOCK_FRAMES, NEEDS
from ortmesh_speech.windows import Block


class VoiceActivity:
    """One stream through a model that detects speech: each block begins in the state in which the last one ended.

    A block is what has come, 4 s at most: what comes in small chunks is judged at once.
    """

    def __init__(self, model: Model, call: Call) -> None:
        """ModelFailed for a model whose card or graph is not what the task needs."""
        framing = NEEDS.of(model)
        self.frame = framing.frame
        """Samples that one probability is about."""
        self._model = model
        self._call = call
        self._context = framing.context
        self._held = np.zeros(framing.context, np.float32)
        self._state = np.zeros([max(size, 1) for size in model.inputs["state"].shape], np.float32)

    @property
    def frame_seconds(self) -> float:
        """Of one probability."""
        return self.frame / SAMPLE_RATE

    async def hear(self, samples: Samples) -> Block:
        """The frames that are whole now, with their probabilities; there may be none. The model's errors."""
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
        begin = first * self.frame
        samples = self._held[begin : begin + self._context + frames * self.frame]
        loudest = float(np.abs(samples).max())
        if loudest > 1:  # floats in the scale of integers
            samples = samples / np.float32(loudest)
        tensors = {"samples": samples[None], "state": self._state}
        outputs = await self._model(tensors, self._call, outputs=NEEDS.outputs)
        self._state = outputs["next_state"]
        speech: Samples = outputs["speech"][0]
        return speech
