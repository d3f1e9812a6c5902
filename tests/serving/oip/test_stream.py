"""ModelStreamInfer as Triton's own client calls it, on both adapters."""

from __future__ import annotations

import asyncio
import queue
import shutil
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytest_asyncio
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from ortmesh.front.health import Health
from ortmesh.front.limits import FrontLimits
from ortmesh.front.observer import NoTelemetry
from ortmesh.front.server import Front
from ortmesh.serving import oip
from ortmesh.serving.models import Models

pytestmark = pytest.mark.asyncio(loop_scope="session")
ANSWER_SECONDS = 60


@pytest_asyncio.fixture(loop_scope="session", params=["native", "grpcio"])
async def address(request: pytest.FixtureRequest, models: Models) -> AsyncIterator[str]:
    """Where the models are served."""
    folder = Path(tempfile.mkdtemp(prefix="om-", dir="/tmp"))
    front = Front(
        oip.methods(models, family="nlp"),
        target=f"unix:{folder}/front",
        adapter=request.param,
        health=Health(),
        telemetry=NoTelemetry(),
        limits=FrontLimits(drain_seconds=0.0, pool_threads=1),
    )
    await front.start()
    yield front.address
    await front.drain(1)
    shutil.rmtree(folder)


class Stream:
    """A stream of tritonclient's, and what its callback was given."""

    def __init__(self, address: str) -> None:
        self._client = triton.InferenceServerClient(address)
        self._heard: queue.Queue[tuple[Any, InferenceServerException | None]] = queue.Queue()

    def __enter__(self) -> Stream:
        self._client.start_stream(lambda result, error: self._heard.put((result, error)))
        return self

    def __exit__(self, *_: object) -> None:
        self._client.stop_stream()
        self._client.close()

    def ask(self, model: str, left: float, request_id: str = "", columns: int = 3, version: str = "") -> None:
        inputs = []
        for name, value in (("left", left), ("right", 10)):
            inputs.append(triton.InferInput(name, [1, columns], "FP32"))
            inputs[-1].set_data_from_numpy(np.full((1, columns), value, np.float32))
        self._client.async_stream_infer(model, inputs, version, request_id=request_id)

    def sum(self) -> tuple[str, list[float]]:
        """The id and the sum of the next answer."""
        result, error = self._heard.get(timeout=ANSWER_SECONDS)
        assert error is None
        return result.get_response().id, result.as_numpy("sum")[0].tolist()

    def error(self) -> str:
        """What the next answer says to be wrong."""
        result, error = self._heard.get(timeout=ANSWER_SECONDS)
        assert result is None
        return str(error.message())


async def test_answers_come_in_the_order_of_the_messages(address: str) -> None:
    def talk() -> list[tuple[str, list[float]]]:
        with Stream(address) as stream:
            for number in range(40):
                stream.ask("sums", number, str(number))
            return [stream.sum() for _ in range(40)]

    assert await asyncio.to_thread(talk) == [(str(number), [number + 10.0] * 3) for number in range(40)]


async def test_the_stream_goes_on_after_a_message_that_is_wrong(address: str) -> None:
    def talk() -> tuple[str, str, tuple[str, list[float]]]:
        with Stream(address) as stream:
            stream.ask("summs", 1)
            stream.ask("sums", 1, columns=4)
            stream.ask("sums", 5, "last")
            return stream.error(), stream.error(), stream.sum()

    unknown, wrong, last = await asyncio.to_thread(talk)
    assert unknown.startswith("[NOT_FOUND]")
    assert "sums" in unknown, "near names are listed"
    assert wrong.startswith("[INVALID_ARGUMENT]")
    assert last == ("last", [15.0] * 3)


async def test_what_a_message_borrowed_is_given_back_when_it_is_answered(address: str, models: Models) -> None:
    """A stream of hours must not hold up the unloading of each model that it once named."""

    def talk() -> int:
        with Stream(address) as stream:
            for _ in range(3):
                stream.ask("sums", 1, version="1")
                stream.sum()
            return models.find("sums", "1")._leases

    assert await asyncio.to_thread(talk) == 0
