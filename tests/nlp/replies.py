"""Replies of direct handlers, which tests await."""

from __future__ import annotations

import asyncio

from ortmesh.nlp.v1.nlp_pb2 import EmbedResponse


class Waiting:
    """A reply that is awaited."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.answer: asyncio.Future[EmbedResponse] = self._loop.create_future()

    def finish(self, payload: bytes) -> None:
        self._loop.call_soon_threadsafe(self.answer.set_result, EmbedResponse.FromString(payload))

    def fail(self, error: BaseException) -> None:
        self._loop.call_soon_threadsafe(self.answer.set_exception, error)
