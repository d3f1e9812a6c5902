"""Callers that leave at any moment: nothing is logged for them, and nothing of theirs stays."""

from __future__ import annotations

import asyncio
import logging
import random

import pytest

from tests.front.conftest import HANG_SECONDS, Service

CALLS = 600
METHODS = ("Say", "Hold", "Quick", "Direct", "QuickDirect", "Count", "Watch")
TEXTS = ("bad", "no", "direct", "300", "x" * 2000)
"""Refused fields, answers, streams of 300 messages, a message over the limit of `Say`."""


async def test_nothing_is_logged_for_callers_that_leave(service: Service, caplog: pytest.LogCaptureFixture) -> None:
    """Before their call is read, while it is refused, in the middle of an answer, at their deadline."""
    chance = random.Random(3)

    async def come_and_leave() -> None:
        method = chance.choice(METHODS)
        stream = method in ("Count", "Watch")
        text = chance.choice(("300", "flood", "hold")) if stream else chance.choice(TEXTS)
        timeout = chance.choice((None, chance.random() * 0.02))
        call = (service.stream if stream else service.unary)(method, text, timeout=timeout)
        await asyncio.sleep(chance.choice((0, 0.001, 0.03)) * chance.random())
        call.cancel()

    with caplog.at_level(logging.WARNING):
        for _ in range(CALLS // 100):
            await asyncio.gather(*(come_and_leave() for _ in range(100)))
        service.echo.release.set()
        await service.drain(HANG_SECONDS)
    assert not caplog.records
