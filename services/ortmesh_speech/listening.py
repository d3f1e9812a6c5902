"""Listening: a recording's windows as they become known, by a model that detects speech. Stage: task."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from ortmesh.front.call import Call
from ortmesh.serving.models import Models
from ortmesh_speech.audio import Recording
from ortmesh_speech.cutter import Cutter
from ortmesh_speech.speech_only import detector_of
from ortmesh_speech.voice_activity import VoiceActivity
from ortmesh_speech.window import Window


class Listener:
    """Where somebody speaks in one recording. Where the mesh has no model for that, whatever is not silent counts."""

    def __init__(self, models: Models, call: Call) -> None:
        """Leases the default model until the call ends. NotReady and ModelFailed of it."""
        self._call = call
        self._model = detector_of(models, call)

    async def windows(self, recording: Recording) -> AsyncGenerator[Window]:
        """The recording's windows in the order of time. BadInput, OutOfRange, and the model's errors."""
        # A part's admission is its own: whether the recording is admitted, the recognizer's queue says, the long one.
        with self._call.part() as part:
            activity = VoiceActivity(self._model, part)
            cutter = Cutter(activity.frame, judged=self._model is not None)
            async with aclosing(activity.blocks(recording)) as blocks:
                async for block in blocks:
                    for window in await self._call.in_pool(cutter.push, block):
                        yield window
                    part.admitted = self._call.admitted
        for window in await self._call.in_pool(cutter.rest, recording.seconds):
            yield window
