"""Caller: a closed loop of requests through gRPC, one text each, so many of them in flight."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bench.mixed.items import Item
from ortmesh.client import AsyncClient
from ortmesh.nlp.v1.nlp_pb2 import EmbedRequest, EmbedResponse
from ortmesh.serving.types import Array

CLOSEST = 1e-3
"""Cosines to the bare session's vectors may differ so much from 1."""


@dataclass(frozen=True, slots=True)
class Run:
    """All items, answered."""

    began: float
    ended: float
    """`time.monotonic()` seconds."""
    latencies: list[float]
    """Seconds of each item, from its being asked to its answer."""
    cpu_seconds: float = 0.0
    """Of the caller's own process."""

    @property
    def seconds(self) -> float:
        """For all."""
        return self.ended - self.began

    @property
    def rate(self) -> float:
        """Items a second."""
        return len(self.latencies) / self.seconds

    def percentile(self, share: float) -> float:
        """Of the latencies, in seconds."""
        return float(np.percentile(self.latencies, share))


def through_grpc(address: str, items: Sequence[Item], in_flight: int) -> Run:
    """Every text through Embed. grpc.RpcError when one fails."""
    return asyncio.run(_through_grpc(address, items, in_flight))


async def _through_grpc(address: str, items: Sequence[Item], in_flight: int) -> Run:
    latencies: list[float] = []
    requests = iter([EmbedRequest(texts=[item.text]) for item in items])
    async with AsyncClient(address) as client:
        await client.channel.channel_ready()

        async def work() -> None:
            for request in requests:
                began = time.monotonic()
                answer = await client.nlp.Embed(request)
                latencies.append(time.monotonic() - began)
                if answer.results[0].HasField("error"):
                    raise RuntimeError(str(answer.results[0].error))

        used, began = time.process_time(), time.monotonic()
        async with asyncio.TaskGroup() as group:
            for _ in range(in_flight):
                group.create_task(work())
        return Run(began, time.monotonic(), latencies, time.process_time() - used)


def check(address: str, items: Sequence[Item], expected: Array) -> None:
    """One request of all the texts. RuntimeError when a vector [items, dimension] is not the expected one."""
    answer = asyncio.run(_embed(address, items))
    for item, result, vector in zip(items, answer.results, expected, strict=True):
        got = np.array(result.embedding.values, np.float32)
        cosine = float(got @ vector / np.linalg.norm(got) / np.linalg.norm(vector))
        if result.tokens != item.size or abs(1 - cosine) > CLOSEST:
            raise RuntimeError(f"{result.tokens} tokens for {item.size}, cosine {cosine:.4f}: {item.text}")


async def _embed(address: str, items: Sequence[Item]) -> EmbedResponse:
    async with AsyncClient(address) as client:
        return await client.nlp.Embed(EmbedRequest(texts=[item.text for item in items]))
