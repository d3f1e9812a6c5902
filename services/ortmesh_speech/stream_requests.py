"""What a caller of a stream sends: the configuration first, then audio until it has no more. Stage: task."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TypeAlias, TypeVar

from ortmesh.errors import BadInput
from ortmesh.front.call import Call
from ortmesh.front.requests import first_of
from ortmesh.speech.v1.speech_pb2 import (
    StreamFormat,
    StreamingDetectSpeechRequest,
    StreamingRecognizeRequest,
)
from ortmesh_speech.audio import Samples
from ortmesh_speech.stream_audio import StreamAudio

Request: TypeAlias = StreamingDetectSpeechRequest | StreamingRecognizeRequest
R = TypeVar("R", StreamingDetectSpeechRequest, StreamingRecognizeRequest)

CONFIG_SECONDS = 10.0
MAX_CHUNK_BYTES = 1 << 20
TOGETHER = 2
"""Blocks that are read in one turn of a thread: a short chunk has one, and 50 of them come a second."""


async def config_message(requests: AsyncIterator[R]) -> R:
    """The message with the configuration. BadInput when it is another or none, Expired when none comes for 10 s."""
    request: R | None = await first_of(requests, CONFIG_SECONDS)
    if request is None or request.WhichOneof("request") != "config":
        raise BadInput("config", "is missing: the first message must be the configuration")
    return request


async def chunks(requests: AsyncIterator[Request]) -> AsyncIterator[bytes]:
    """The messages behind the first: their audio. BadInput for one that is anything else, or too long."""
    async for request in requests:
        kind = request.WhichOneof("request")
        if kind == "config":
            raise BadInput("config", "was sent again: only the first message is the configuration")
        if kind is None:
            raise BadInput("audio", "is not set, as every message but the first must have it")
        if len(request.audio) > MAX_CHUNK_BYTES:
            raise BadInput("audio", f"has {len(request.audio):,} bytes: expected at most {MAX_CHUNK_BYTES:,} a message")
        yield request.audio


class Incoming:
    """The samples of a stream as they come, at 16 kHz."""

    def __init__(self, requests: AsyncIterator[Request], format: StreamFormat, call: Call) -> None:
        """What holds a thread is let go of when the call ends. BadInput for a format that can't be."""
        self._requests = requests
        self._call = call
        self._audio = StreamAudio(format)
        call.on_end(self._audio.close)

    @property
    def seconds(self) -> float:
        """How much audio was read so far."""
        return self._audio.seconds

    async def __aiter__(self) -> AsyncIterator[Samples]:
        """Blocks of some seconds at most, until the caller has sent all. BadInput, OutOfRange."""
        async for chunk in chunks(self._requests):
            async for block in self._call.each(self._audio.feed(chunk), together=TOGETHER):
                yield block
        async for block in self._call.each(self._audio.rest(), together=TOGETHER):
            yield block
