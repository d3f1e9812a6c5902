"""SpeechService.Recognize: what is said in a recording, in the order of time. Stage: task."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

from ortmesh.common.v1.common_pb2 import ModelVersion
from ortmesh.front.call import Call
from ortmesh.serving.models import Models
from ortmesh.speech.v1.speech_pb2 import RecognizeRequest, RecognizeResponse
from ortmesh_speech.audio import Recording
from ortmesh_speech.durations import duration
from ortmesh_speech.listening import Listener
from ortmesh_speech.options import options_of
from ortmesh_speech.recognizer import Recognizer, check_beams, tokenizer_of
from ortmesh_speech.speakers import Voices
from ortmesh_speech.transcript import Transcript
from ortmesh_speech.window import Window

AT_ONCE = 8
"""Windows of one recording that the model has or that wait for it: twice as many as it decodes side by side, so that
the next ones lie ready, and few enough that an hour floods neither memory nor queue."""


class Recognize:
    """Recordings to text, window by window: while the model hears some, the next ones are read."""

    def __init__(self, models: Models) -> None:
        self.models = models
        models.require("recognize", tokenizer_of)

    async def __call__(self, request: RecognizeRequest, call: Call) -> RecognizeResponse:
        """Segments in the order of time. BadInput for what is not audio and for options out of range; OutOfRange."""
        check_beams(request.beam_width)
        options = options_of(request.options)
        model = self.models.choose("recognize", request.model, call)
        recognizer = await call.in_pool(Recognizer, model, options, request.beam_width)
        recording = await call.in_pool(Recording, request.audio)
        voices = Voices(self.models, call) if options.speakers else None
        heard = await self._listen(recognizer, recording, voices, call)
        if voices is not None and options.speakers is not None:
            heard = await call.in_pool(voices.tell_apart, heard, options.speakers)
        segments = [each.segment(with_words=options.words) for each in heard]
        return RecognizeResponse(
            model=ModelVersion(name=model.name, version=model.version),
            transcript=" ".join(segment.transcript for segment in segments),
            segments=segments,
            duration=duration(recording.seconds),
        )

    async def _listen(
        self, recognizer: Recognizer, recording: Recording, voices: Voices | None, call: Call
    ) -> list[Transcript]:
        """What is said in the recording's windows, in their order. The first error ends all of it."""
        room, listener = asyncio.Semaphore(AT_ONCE), Listener(self.models, call)

        async def hear(window: Window) -> Transcript | None:
            try:
                heard = await recognizer(window, call)
                if heard is not None and voices is not None:
                    await voices.listen(window)
                return heard
            finally:
                room.release()

        hearing: list[asyncio.Task[Transcript | None]] = []
        try:
            async with asyncio.TaskGroup() as group, aclosing(listener.windows(recording)) as windows:
                async for window in windows:
                    await room.acquire()
                    hearing.append(group.create_task(hear(window)))
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None
        return [heard for task in hearing if (heard := task.result()) is not None]
