"""Results of a stream: in the order of time, begun early, dropped when the speaker goes on."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import AsyncIterator

import numpy as np
import pytest

from ortmesh.errors import Cancelled
from ortmesh.front.call import Call
from ortmesh.speech.v1.speech_pb2 import Segment, StreamingRecognizeResponse
from ortmesh_speech.outgoing import MOST, Outgoing
from ortmesh_speech.results import AT_ONCE, Results
from ortmesh_speech.transcript import Transcript
from ortmesh_speech.window import Window

pytestmark = pytest.mark.asyncio


def window(start: float, end: float) -> Window:
    return Window(samples=np.zeros(16, np.float32), offset=start, speech=((start, end),))


class Scribe:
    """A recognizer that writes when it is told to: the model's part, which a test can't time."""

    def __init__(self) -> None:
        self.texts: dict[float, asyncio.Future[str]] = {}
        """By the end of the window."""
        self.calls: list[Call] = []
        self.before: list[str] = []
        """What it was told of."""

    def will(self, end: float) -> asyncio.Future[str]:
        return self.texts.setdefault(end, asyncio.get_running_loop().create_future())

    async def __call__(self, window: Window, call: Call, before: str = "") -> Transcript | None:
        self.calls.append(call)
        self.before.append(before)
        text = await self.will(window.end)
        if call.cancelled:
            raise Cancelled("the speaker went on")
        return Transcript(text, 0.9, window.start, window.end, "en") if text else None


class Stream:
    """Results, and what they tell."""

    def __init__(self, call: Call, group: asyncio.TaskGroup) -> None:
        self.scribe = Scribe()
        self.outgoing: Outgoing[StreamingRecognizeResponse] = Outgoing()
        self.results = Results(self.scribe, call, self.outgoing, group, with_words=False)  # type: ignore[arg-type]
        self.told: AsyncIterator[StreamingRecognizeResponse] = aiter(self.outgoing)

    async def next(self) -> Segment:
        return (await anext(self.told)).result


async def test_results_are_told_in_the_order_of_time_and_each_is_told_of_the_one_before(call: Call) -> None:
    async with asyncio.TaskGroup() as group:
        stream = Stream(call, group)
        await stream.results.end(window(0, 1))
        await stream.results.end(window(2, 3))
        await stream.results.end(window(60, 61))
        stream.scribe.will(3).set_result("second")
        stream.scribe.will(61).set_result("much later")
        await asyncio.sleep(0)
        assert stream.results.untold == 3
        stream.scribe.will(1).set_result("first")
        assert [(await stream.next()).transcript for _ in range(3)] == ["first", "second", "much later"]
        await stream.results.finish()
    assert stream.results.untold == 0
    assert stream.scribe.before == ["", "first", ""]


async def test_what_was_begun_early_is_the_result_when_nothing_follows(call: Call) -> None:
    async with asyncio.TaskGroup() as group:
        stream = Stream(call, group)
        await stream.results.expect(window(0, 1))
        await stream.results.expect(window(0, 1))
        stream.scribe.will(1).set_result("said")
        await stream.results.end(window(0, 1))
        assert (await stream.next()).transcript == "said"
        await stream.results.finish()
    assert len(stream.scribe.calls) == 1


async def test_what_was_begun_early_is_dropped_when_the_speaker_goes_on(call: Call) -> None:
    async with asyncio.TaskGroup() as group:
        stream = Stream(call, group)
        await stream.results.expect(window(0, 1))
        await asyncio.sleep(0)
        await stream.results.expect(None)
        (early,) = stream.scribe.calls
        assert early.cancelled
        assert not call.cancelled
        stream.scribe.will(1).set_result("half of it")
        stream.scribe.will(2).set_result("all of it")
        await stream.results.end(window(0, 2))
        assert (await stream.next()).transcript == "all of it"
        await stream.results.finish()


async def test_an_utterance_in_which_nobody_spoke_ends_with_a_result_without_text(call: Call) -> None:
    """Its beginning was told, and maybe interim results: whoever shows them must know that it is over."""
    async with asyncio.TaskGroup() as group:
        stream = Stream(call, group)
        for end in (1.0, 3.0):
            stream.scribe.will(end).set_result("" if end == 1 else "said")
            await stream.results.end(window(end - 1, end))
        nothing, something = await stream.next(), await stream.next()
        await stream.results.finish()
    assert (nothing.transcript, nothing.start.seconds, nothing.end.seconds) == ("", 0, 1)
    assert (something.transcript, something.start.seconds, something.end.seconds) == ("said", 2, 3)


async def test_no_more_than_a_few_are_under_way(call: Call) -> None:
    async with asyncio.TaskGroup() as group:
        stream = Stream(call, group)
        for end in range(1, AT_ONCE + 1):
            await stream.results.end(window(end - 0.5, end))
        more = asyncio.create_task(stream.results.end(window(9, 10)))
        for _ in range(10):
            await asyncio.sleep(0)
        assert not more.done()
        stream.scribe.will(10).set_result("last")
        for end in range(1, AT_ONCE + 1):
            stream.scribe.will(end).set_result("one")
        await more
        assert [(await stream.next()).transcript for _ in range(AT_ONCE + 1)] == [*["one"] * AT_ONCE, "last"]
        await stream.results.finish()


async def test_a_caller_who_reads_nothing_holds_back_a_speaker_who_never_pauses(call: Call) -> None:
    """Cut off in the midst of speech, utterances have no beginning whose telling would wait."""
    ended = 0

    async def speak_on(results: Results) -> None:
        nonlocal ended
        for end in range(1, 2 * (MOST + AT_ONCE) + 2):
            stream.scribe.will(end).set_result("on and on")
            await results.end(window(end - 1, end))
            ended += 1

    async with asyncio.TaskGroup() as group:
        stream = Stream(call, group)
        speaking = group.create_task(speak_on(stream.results))
        for _ in range(2000):
            await asyncio.sleep(0)
        assert not speaking.done()
        assert ended <= MOST + 2 * AT_ONCE
        for _ in range(2 * (MOST + AT_ONCE) + 1):
            assert (await stream.next()).transcript == "on and on"
        await speaking
        await stream.results.finish()
    assert stream.results.untold == 0


async def test_what_waits_to_be_told_keeps_no_samples(call: Call) -> None:
    async with asyncio.TaskGroup() as group:
        stream = Stream(call, group)
        heard = window(0, 1)
        left = weakref.ref(heard.samples)
        await stream.results.end(heard)
        await stream.results.end(window(2, 3))
        stream.scribe.will(1).set_result("first")
        for _ in range(MOST):
            await stream.outgoing.put(StreamingRecognizeResponse())
        del heard
        for _ in range(10):
            await asyncio.sleep(0)
        assert stream.results.untold == 2
        assert left() is None
        stream.scribe.will(3).set_result("second")
        told = [(await stream.next()).transcript for _ in range(MOST + 2)]
        assert told[-2:] == ["first", "second"]
        await stream.results.finish()


async def test_when_the_caller_leaves_its_recognitions_end_too(call: Call) -> None:
    async def stream_until_left() -> None:
        async with asyncio.TaskGroup() as group:
            stream.append(Stream(call, group))
            await stream[0].results.end(window(0, 1))
            await asyncio.Event().wait()

    stream: list[Stream] = []
    listening = asyncio.create_task(stream_until_left())
    for _ in range(5):
        await asyncio.sleep(0)
    assert stream[0].scribe.calls
    listening.cancel()
    await asyncio.wait((listening,))
    assert all(part.cancelled for part in stream[0].scribe.calls)
