"""Streams through the real front, on both adapters: right codes with details, and nothing left behind by anybody."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import numpy as np
import pytest
import pytest_asyncio

from ortmesh.client import AsyncClient, violations
from ortmesh.front.health import Health
from ortmesh.front.limits import FrontLimits
from ortmesh.front.methods import bind, generated
from ortmesh.front.server import Front
from ortmesh.serving.models import Models
from ortmesh.serving.store import Store
from ortmesh.serving.types import NoMeter
from ortmesh.speech.v1 import speech_pb2
from ortmesh.speech.v1.speech_pb2 import (
    StreamFormat,
    StreamingDetectSpeechConfig,
    StreamingDetectSpeechRequest,
)
from ortmesh_speech import stream_requests
from ortmesh_speech.decoder import THREAD
from ortmesh_speech.service import SERVICE
from ortmesh_speech.streaming_detect_speech import StreamingDetectSpeech
from tests.front.conftest import Recorder
from tests.speech.streams import S16_16K, all_of, cut, s16, sent, until_left
from tests.speech.voices import SENTENCES, encode, say, silence

pytestmark = pytest.mark.asyncio(loop_scope="module")

Request = StreamingDetectSpeechRequest
CONFIG = Request(config=StreamingDetectSpeechConfig(format=S16_16K))
FILE = Request(config=StreamingDetectSpeechConfig(format=StreamFormat(container=True)))
INVALID = grpc.StatusCode.INVALID_ARGUMENT


class Door:
    """A running service."""

    def __init__(self, front: Front, models: Models) -> None:
        self.front = front
        self.models = models
        self.client = AsyncClient(front.address)

    def detect(self, requests: AsyncIterator[Request]) -> Any:
        """The call, whose answers are read by `async for`."""
        return self.client.speech.StreamingDetectSpeech(requests)

    async def refusal(self, requests: AsyncIterator[Request]) -> grpc.aio.AioRpcError:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await all_of(self.detect(requests))
        return caught.value

    async def is_at_rest(self) -> None:
        """Waits until nothing is in flight, in no room."""
        admission, until = self.front._dispatcher.admission, time.monotonic() + 20

        def left() -> tuple[int, int, int, int, int]:
            waiting = sum(len(model._pile) for model in self.models.list() if model._pile is not None)
            decoders = sum(thread.name == THREAD for thread in threading.enumerate())
            return admission.streams, admission.bytes, self.front.pool.bytes, waiting, decoders

        while any(left()):
            assert time.monotonic() < until, left()
            await asyncio.sleep(0.01)


@pytest.fixture(scope="module")
def sockets() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="om-", dir="/tmp"))
    yield folder
    shutil.rmtree(folder)


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["native", "grpcio"])
async def door(request: pytest.FixtureRequest, store: Store, sockets: Path) -> AsyncIterator[Door]:
    async with Models(store, "speech", threads=1, meter=lambda *_: NoMeter(), only=["silero-vad"]) as models:
        rows = bind(SERVICE, {"StreamingDetectSpeech": StreamingDetectSpeech(models)}, messages=generated(speech_pb2))
        await models.until_loaded()
        front = Front(
            rows,
            target=f"unix:{sockets}/{request.param}" if request.param == "native" else "127.0.0.1:0",
            adapter=request.param,
            health=Health(),
            telemetry=Recorder(),
            limits=FrontLimits(drain_seconds=0.0, pool_threads=2),
        )
        await front.start()
        made = Door(front, models)
        yield made
        await made.is_at_rest()
        await made.client.close()
        await front.drain(1.0)


async def test_speech_is_told_while_the_caller_goes_on(door: Door) -> None:
    samples = np.concatenate([silence(0.5), say(SENTENCES[4]), silence(1)])
    call = door.detect(until_left([CONFIG, *(Request(audio=chunk) for chunk in cut(s16(samples)))]))
    kinds = [(await anext(aiter(call))).WhichOneof("response") for _ in range(3)]
    assert kinds == ["model", "started", "interval"]
    call.cancel()
    await door.is_at_rest()


@pytest.mark.parametrize(
    ("requests", "field"),
    [
        ([], "config"),
        ([Request(audio=bytes(10))], "config"),
        ([CONFIG, CONFIG], "config"),
        ([CONFIG, Request(audio=bytes((1 << 20) + 1))], "audio"),
        ([Request(config=StreamingDetectSpeechConfig())], "config.format"),
        ([FILE, Request(audio=b"this is no sound at all")], "audio"),
        ([FILE, Request(audio=b"fLaC" + bytes(5000))], "audio"),
    ],
)
async def test_wrong_streams_are_refused_by_their_fields(door: Door, requests: list[Request], field: str) -> None:
    error = await door.refusal(sent(requests))
    assert error.code() is INVALID
    assert [name for name, _ in violations(error)] == [field]
    await door.is_at_rest()


async def test_a_message_beyond_every_limit_is_too_large(door: Door) -> None:
    error = await door.refusal(sent([CONFIG, Request(audio=bytes(2 << 20))]))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    await door.is_at_rest()


async def test_who_never_begins_is_sent_away(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_requests, "CONFIG_SECONDS", 0.1)
    error = await door.refusal(until_left([]))
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await door.is_at_rest()


async def test_streams_that_are_left_at_any_moment_leave_nothing(door: Door) -> None:
    """Samples and files, whose decoders have threads; some are cancelled, some only stop to send."""
    random = np.random.default_rng(4)
    samples = np.concatenate([say(SENTENCES[0]), silence(2)])
    kinds: list[tuple[Request, bytes]] = [
        (CONFIG, s16(samples)),
        (FILE, encode(samples, container="FLAC")),
        (FILE, encode(samples, container="OGG", coding="OPUS")),
    ]

    async def leave(place: int) -> None:
        first, content = kinds[place % 3]
        chunks = cut(content[: int(random.integers(1, len(content)))], int(random.integers(100, 20_000)))
        call = door.detect(until_left([first, *(Request(audio=chunk) for chunk in chunks)]))
        reader = asyncio.create_task(all_of(call))
        await asyncio.wait((reader,), timeout=float(random.random()) * 0.3)
        call.cancel()
        await asyncio.wait((reader,))

    await asyncio.gather(*(leave(place) for place in range(24)))
    await door.is_at_rest()


async def test_many_streams_of_a_file_at_once(door: Door) -> None:
    """Their decoders wait for bytes side by side, and none takes the threads of the others."""
    content = encode(np.concatenate([silence(0.5), say(SENTENCES[4]), silence(1)]), container="FLAC")

    async def hear() -> list[str | None]:
        requests = [FILE, *(Request(audio=chunk) for chunk in cut(content, 3000))]
        return [answer.WhichOneof("response") for answer in await all_of(door.detect(sent(requests)))]

    found = await asyncio.gather(*(hear() for _ in range(20)))
    assert found == [["model", "started", "interval", "duration"]] * 20
    await door.is_at_rest()


async def test_a_header_that_does_not_come_holds_up_nobody(door: Door) -> None:
    """A decoder waits for it in the midst of opening the file."""
    content = encode(np.concatenate([silence(0.5), say(SENTENCES[4]), silence(1)]), container="FLAC")
    stalled = door.detect(until_left([FILE, Request(audio=content[:20])]))
    assert (await anext(aiter(stalled))).WhichOneof("response") == "model"
    async with asyncio.timeout(30):
        answers = await all_of(door.detect(sent([FILE, *(Request(audio=chunk) for chunk in cut(content, 3000))])))
    assert [answer.WhichOneof("response") for answer in answers] == ["model", "started", "interval", "duration"]
    stalled.cancel()
    await door.is_at_rest()
