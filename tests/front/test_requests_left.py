"""Streams from callers that leave at any moment, by hundreds: nothing of theirs stays, and nothing is logged for it."""

from __future__ import annotations

import asyncio
import gc
import logging
import random
from collections import Counter
from contextlib import suppress

import grpc.aio
import pytest

from ortmesh.front.call import Call
from ortmesh.front.exchange import Exchange
from ortmesh.front.requests import Requests
from tests.front.conftest import HANG_SECONDS, Service, until

STREAMS = 400
AT_ONCE = 50
LAST = ("echo", "deaf", "flood", "bad", "bye", b"\xff\xff", "x" * 200_000)
"""What is said last, at the point where the handler hangs, ends or fails."""
GO_ON = ("deaf", "flood")
KEPT = 1
"""The last one that failed may stay with gRPC, whose next call's coroutine remembers its exception."""
PARTINGS = ("cancel", "half-close", "half-close and cancel", "deadline", "read to the end")


async def _talk(service: Service, chance: random.Random) -> None:
    """One caller: some messages, a last one, and a way to go."""
    parting = chance.choice(PARTINGS)
    call = service.chat(timeout=chance.random() * 0.05 if parting == "deadline" else HANG_SECONDS)
    with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
        for _ in range(chance.randrange(4)):
            await call.write("x" * chance.choice((1, 1000, 90_000)))
            if chance.random() < 0.5:
                await call.read()
        last = chance.choice(LAST)
        await call.write(last)
        await asyncio.sleep(chance.choice((0, 0.001, 0.02)) * chance.random())
        if parting.startswith("half-close"):
            await call.done_writing()
        if last not in GO_ON and (parting == "half-close" or (parting == "read to the end" and last != "echo")):
            while await call.read() is not grpc.aio.EOF:
                pass
    call.cancel()


def _alive() -> Counter[str]:
    """Whatever still is of the calls."""
    gc.collect()
    kinds = (Call, Exchange, Requests)
    return Counter(type(each).__name__ for each in gc.get_objects() if isinstance(each, kinds))


async def test_nothing_stays_of_streams_that_were_left(service: Service, caplog: pytest.LogCaptureFixture) -> None:
    chance = random.Random(7)
    admission = service.front._dispatcher.admission
    before = _alive()
    with caplog.at_level(logging.WARNING):
        for _ in range(STREAMS // AT_ONCE):
            await asyncio.gather(*(_talk(service, chance) for _ in range(AT_ONCE)))
        await until(lambda: admission.streams == 0 and not service.front._dispatcher._running)
    assert (admission.bytes, admission.stream_bytes, service.recorder.flying()) == (0, 0, 0)
    begun = len(service.echo.calls)
    assert len(service.echo.left) == begun, "every handler that began has ended"
    assert begun > STREAMS // 4, "whoever reads to the end, or read anything, had reached one"
    assert sum(count for (method, _), count in service.recorder.codes.items() if method == "Chat") >= begun
    assert "heard all" in service.echo.left, "some said all"
    service.echo.calls.clear()
    await until(lambda: max((_alive() - before).values(), default=0) <= KEPT)
    assert not caplog.records
