"""Dictation: one stream on its way to text. Stage: task.

Three things go on side by side: the audio is listened to as it comes, what was said is recognized, and what is being
said is heard again and again.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from ortmesh.errors import Cancelled
from ortmesh.front.call import Call
from ortmesh.speech.v1.speech_pb2 import StreamingRecognizeResponse
from ortmesh_speech.audio import Samples
from ortmesh_speech.cutter import Block
from ortmesh_speech.durations import duration
from ortmesh_speech.interim import Interim
from ortmesh_speech.outgoing import Outgoing
from ortmesh_speech.recognizer import Recognizer
from ortmesh_speech.results import Results
from ortmesh_speech.stream_requests import Incoming
from ortmesh_speech.utterances import Begun, Event, Open, Utterances
from ortmesh_speech.voice_activity import VoiceActivity

Response = StreamingRecognizeResponse

SPECULATE_AT = 0.5
"""Of the silence that ends an utterance: from here on it is recognized as if it had ended."""


@dataclass(slots=True)
class _Showing:
    """The interim result that is being made."""

    call: Call
    task: asyncio.Task[None]


class Dictation:
    """What is found is put into `outgoing`."""

    def __init__(
        self,
        activity: VoiceActivity,
        recognizer: Recognizer,
        interim: Interim | None,
        end_silence: float,
        call: Call,
        *,
        with_words: bool,
    ) -> None:
        """Without `interim` there are results only; `end_silence` seconds end an utterance."""
        self.outgoing: Outgoing[StreamingRecognizeResponse] = Outgoing()
        self._activity = activity
        self._recognizer = recognizer
        self._interim = interim
        self._speculate_after = SPECULATE_AT * end_silence
        self._call = call
        self._with_words = with_words
        self._utterances = Utterances(activity.frame, end_silence)
        self._showing: _Showing | None = None

    async def listen(self, incoming: Incoming) -> None:
        """Listens to the end of the audio, and ends `outgoing` when all was told, or with the first error."""
        try:
            async with asyncio.TaskGroup() as group:
                results = Results(self._recognizer, self._call, self.outgoing, group, with_words=self._with_words)
                await self._hear_all(incoming, results, group)
                await results.finish()
            await self.outgoing.put(Response(duration=duration(incoming.seconds)))
        except ExceptionGroup as errors:
            self.outgoing.end(errors.exceptions[0])
        else:
            self.outgoing.end()

    async def _hear_all(self, incoming: Incoming, results: Results, group: asyncio.TaskGroup) -> None:
        async for samples in incoming:
            await self._hear(await self._activity.hear(samples), results, group)
        await self._hear(await self._activity.rest(), results, group)
        for event in self._utterances.rest(incoming.seconds):
            await self._tell(event, results)

    async def _hear(self, block: Block, results: Results, group: asyncio.TaskGroup) -> None:
        """Goes on with audio as it comes."""
        for event in self._utterances.push(block.samples, block.speech):
            await self._tell(event, results)
        open_ = self._utterances.open
        over = open_ is not None and open_.silence >= self._speculate_after
        await results.expect(open_.window if open_ is not None and over else None)
        if open_ is not None and not over and not results.untold:
            self._show(open_, group)

    async def _tell(self, event: Event, results: Results) -> None:
        if isinstance(event, Begun):
            await self.outgoing.put(Response(speech_started=duration(event.start)))
            return
        if self._showing is not None:
            self._showing.call.cancel()  # it would come behind the result
            self._showing = None
        await results.end(event)

    def _show(self, open_: Open, group: asyncio.TaskGroup) -> None:
        """Begins an interim result, unless one is being made or nothing new was heard."""
        if self._interim is None or (self._showing is not None and not self._showing.task.done()):
            return
        window = self._interim.next_window(self._utterances, open_)
        if window is not None:
            call = self._call.split(admitted=self._call.admitted)
            self._showing = _Showing(call, group.create_task(self._tell_interim(self._interim, window, open_, call)))

    async def _tell_interim(self, interim: Interim, window: Samples, open_: Open, call: Call) -> None:
        try:
            result = await interim.hear(window, open_, call)
        except Cancelled:
            if self._call.cancelled:
                raise
            return
        finally:
            dropped = call.cancelled
            call.cancel()  # whatever of it still waits is wanted no more
        if result.transcript and not dropped:
            await self.outgoing.put(Response(interim=result))
