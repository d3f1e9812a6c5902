"""Results: the utterances of one stream on their way to their texts, told in the order of time. Stage: task.

Half-way through the silence that ends an utterance its recognition begins, so that the text is there with its end; if
the speaker goes on, it is dropped.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from ortmesh.errors import Cancelled
from ortmesh.front.call import Call
from ortmesh.speech.v1.speech_pb2 import Segment, StreamingRecognizeResponse
from ortmesh_speech.durations import duration
from ortmesh_speech.outgoing import Outgoing
from ortmesh_speech.recognizer import Recognizer
from ortmesh_speech.transcript import Transcript
from ortmesh_speech.window import Window

AT_ONCE = 4
"""Utterances of one stream that are recognized or wait for it: a recording that is sent as a stream is listened to no
further than that ahead."""
CONTEXT_CHARACTERS = 300
CONTEXT_SECONDS = 30.0
CONTEXT_CONFIDENCE = 0.5
"""What was said shortly before, and was heard well, tells how the next utterance is spelt: of 256 words of clear speech
in a robot's voice 24 were wrong instead of 33; in noise at 10 dB 57 either way."""


@dataclass(frozen=True, slots=True)
class _Heard:
    """What became of an utterance."""

    transcript: Transcript | None
    """None where nobody says anything, or the speaker went on."""
    context: str
    """The end of all that was said, for the next one."""
    end: float
    """Seconds at which somebody spoke last."""


@dataclass(frozen=True, slots=True)
class _Attempt:
    """The recognition of an utterance. Of its samples it keeps none: it may wait for long to be told."""

    start: float
    """Seconds at which somebody speaks first."""
    end: float
    """Seconds at which somebody speaks last."""
    call: Call
    """Its own, so that it can be dropped."""
    heard: asyncio.Task[_Heard]


class Results:
    """What is found is put into `outgoing`. Lives on one event loop."""

    def __init__(
        self,
        recognizer: Recognizer,
        call: Call,
        outgoing: Outgoing[StreamingRecognizeResponse],
        group: asyncio.TaskGroup,
        *,
        with_words: bool,
    ) -> None:
        """Its tasks belong to the group."""
        self.untold = 0
        """Utterances that have ended and whose results are not told."""
        self._recognizer = recognizer
        self._call = call
        self._outgoing = outgoing
        self._group = group
        self._with_words = with_words
        self._room = asyncio.Semaphore(AT_ONCE)
        self._early: _Attempt | None = None
        """The recognition of an utterance that may go on."""
        self._ended: asyncio.Queue[_Attempt | None] = asyncio.Queue(AT_ONCE)
        self._last: asyncio.Task[_Heard] | None = None
        """The recognition of the utterance that ended last."""
        group.create_task(self._tell_in_order())

    async def expect(self, window: Window | None) -> None:
        """The utterance that is being said would be this one if nothing followed; None: it goes on."""
        if self._early is not None and (window is None or window.end != self._early.end):
            self._early.call.cancel()
            self._early = None
        if window is not None and self._early is None and not self._room.locked():
            self._early = await self._begin(window)

    async def end(self, window: Window) -> None:
        """An utterance has ended. Waits while too many are under way, or wait for the caller: what is cut off a speaker
        who never pauses has no beginning that would wait."""
        early, self._early = self._early, None
        if early is None or early.end != window.end:
            if early is not None:
                early.call.cancel()
            early = await self._begin(window)
        self.untold += 1
        self._last = early.heard
        await self._ended.put(early)

    async def finish(self) -> None:
        """No utterance follows."""
        await self._ended.put(None)

    async def _begin(self, window: Window) -> _Attempt:
        await self._room.acquire()
        call = self._call.split(admitted=self._call.admitted)
        heard = self._group.create_task(self._recognize(window, call, self._last))
        return _Attempt(window.start, window.end, call, heard)

    async def _recognize(self, window: Window, call: Call, last: asyncio.Task[_Heard] | None) -> _Heard:
        before = await _context(window, last)
        try:
            transcript = await self._recognizer(window, call, before)
        except Cancelled:
            if self._call.cancelled:
                raise
            transcript = None
        finally:
            call.cancel()  # whatever of it still waits is wanted no more
            self._room.release()
        told = transcript is not None and transcript.confidence >= CONTEXT_CONFIDENCE
        context = f"{before} {transcript.text}".strip() if transcript is not None and told else before
        return _Heard(transcript, context[-CONTEXT_CHARACTERS:], window.end)

    async def _tell_in_order(self) -> None:
        while (ended := await self._ended.get()) is not None:
            transcript = (await ended.heard).transcript
            nothing = Segment(start=duration(ended.start), end=duration(ended.end))
            segment = transcript.segment(with_words=self._with_words) if transcript is not None else nothing
            await self._outgoing.put(StreamingRecognizeResponse(result=segment))
            self.untold -= 1


async def _context(window: Window, last: asyncio.Task[_Heard] | None) -> str:
    """What was said before an utterance, once it is known; empty where that was long ago."""
    if last is None:
        return ""
    await asyncio.wait((last,))
    heard = last.result()
    return heard.context if window.start - heard.end <= CONTEXT_SECONDS else ""
