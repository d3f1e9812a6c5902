"""What is left of a call when it has ended, however it ended: nothing, at once, without the garbage collector's help.

In this process, so that all its queues, leases and tensors can be counted.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import random
import shutil
import tempfile
import threading
import tracemalloc
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import numpy as np
import pytest

from ortmesh.config import ServiceSettings
from ortmesh.descriptors import oip
from ortmesh.front.exchange import Exchange
from ortmesh.serving.add import add
from ortmesh.serving.executor.session import SessionExecutor
from ortmesh.serving.host import Host
from ortmesh.serving.store import Store
from ortmesh.serving.types import Item
from tests.mesh.mixed import INFER
from tests.mesh.slow import COLUMNS, slow
from tests.serving import graphs

CODES = grpc.StatusCode
LARGE_ROWS = 128
"""Half a MiB: read in the pool and answered by a coroutine, where one row never leaves the receiving thread."""
MAX_LEFT_BYTES = 8 * 1024 * 1024
"""Of two hundred calls; the tensors of the large ones are a hundred MiB."""
CHANNELS = 8
"""So that fewer than twenty calls are left on each connection: the native server ends one on which twenty were left
before it had heard of them."""
KEPT = 1
"""The last one that failed may stay with gRPC, whose next call's coroutine remembers its exception."""
Send = Callable[..., Any]


@pytest.fixture(params=["native", "grpcio"])
async def host(request: pytest.FixtureRequest) -> AsyncIterator[Host]:
    """A service with a model that works as long as a caller says, and one that fails on numbers above nine."""
    folder = Path(tempfile.mkdtemp(prefix="om-", dir="/tmp"))
    store = Store(folder / "models")
    add(slow(folder / "slow"), "slow", "nlp", store)
    add(graphs.lookup(folder / "lookup"), "lookup", "nlp", store)
    settings = ServiceSettings(
        family="nlp", address=f"unix:{folder}/s", adapter=request.param, store=store.root, drain_seconds=0
    )
    made = Host(settings, "test", lambda models: [])
    await made.start()
    await made.models.until_loaded()
    yield made
    await made.stop()
    shutil.rmtree(folder)


@pytest.fixture
def busy(host: Host, monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """While it is cleared, the slow model's executors compute what they have begun with."""
    compute, go_on = SessionExecutor._compute, threading.Event()
    slow_ones = host.models.find("slow")._executors

    def held(self: SessionExecutor, items: Any) -> Any:
        assert self not in slow_ones or go_on.wait(60)
        return compute(self, items)

    go_on.set()
    monkeypatch.setattr(SessionExecutor, "_compute", held)
    yield go_on
    go_on.set()


@pytest.fixture
async def send(host: Host) -> AsyncIterator[Send]:
    """Begins `send(model, rows=1, rounds=0, timeout=None)`."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    async with contextlib.AsyncExitStack() as stack:
        methods: list[Any] = []
        for _ in range(CHANNELS):
            channel = await stack.enter_async_context(grpc.aio.insecure_channel(host.address, options))
            methods.append(
                channel.unary_unary(
                    INFER,
                    request_serializer=lambda request: request.SerializeToString(),
                    response_deserializer=oip("ModelInferResponse").FromString,
                )
            )
        turns = itertools.cycle(methods)

        def begin(model: str, *, rows: int = 1, rounds: int = 0, timeout: float | None = None) -> Any:
            tensors: dict[str, Any] = {
                "slow": {"x": np.ones((rows, COLUMNS), np.float32), "rounds": np.full((rows, 1), rounds)},
                "lookup": {"ids": np.full((rows, COLUMNS), 99)},
                "nobody": {"x": np.ones((rows, COLUMNS), np.float32)},
            }[model]
            request: Any = oip("ModelInferRequest")(model_name=model)
            for name, array in tensors.items():
                kind = "FP32" if array.dtype == np.float32 else "INT64"
                request.inputs.add(name=name, datatype=kind, shape=array.shape)
                request.raw_input_contents.append(array.tobytes())
            return next(turns)(request, timeout=timeout)

        yield begin


async def answered(send: Send, rows: int) -> CODES:
    return await ended(send("slow", rows=rows))


async def refused_by_the_graph(send: Send, rows: int) -> CODES:
    return await ended(send("lookup", rows=rows))


async def refused_before(send: Send, rows: int) -> CODES:
    return await ended(send("nobody", rows=rows))


async def left(send: Send, rows: int) -> CODES:
    call = send("slow", rows=rows)
    await asyncio.sleep(random.uniform(0, 0.05))
    call.cancel()
    return await ended(call)


async def expired(send: Send, rows: int) -> CODES:
    return await ended(send("slow", rows=rows, timeout=0.05))


async def ended(call: Any) -> CODES:
    """How a call ended."""
    with contextlib.suppress(grpc.aio.AioRpcError, asyncio.CancelledError):
        await call
    return await call.code()  # type: ignore[no-any-return]


ENDS: list[Callable[[Send, int], Awaitable[CODES]]] = [answered, refused_by_the_graph, refused_before, left, expired]


@pytest.mark.parametrize("rows", [1, LARGE_ROWS], ids=["small", "large"])
async def test_nothing_is_left_of_calls_that_ended_in_any_way(
    host: Host, send: Send, rows: int, busy: threading.Event
) -> None:
    """Two hundred at once, of which some wait for a busy model: no permit, no lease, no item, no tensor is held."""
    await answered(send, rows)
    busy.clear()
    gc.collect()
    gc.disable()
    tracemalloc.start()
    try:
        calls = [asyncio.ensure_future(ENDS[number % len(ENDS)](send, rows)) for number in range(200)]
        waits = [call for number, call in enumerate(calls) if ENDS[number % len(ENDS)] is answered]
        await asyncio.wait(set(calls) - set(waits))
        assert not any(call.done() for call in waits)
        busy.set()
        ends = Counter(await asyncio.gather(*calls))
        assert ends[CODES.OK] == ends[CODES.INVALID_ARGUMENT] == ends[CODES.NOT_FOUND] == 40
        assert ends[CODES.CANCELLED] + ends[CODES.DEADLINE_EXCEEDED] == 80
        del calls, waits
        await until(lambda: not held_by(host))
        left_bytes, _ = tracemalloc.get_traced_memory()
        assert left_bytes < MAX_LEFT_BYTES, "tensors wait for the garbage collector"
    finally:
        tracemalloc.stop()
        gc.enable()
    await until(lambda: len(alive()) <= KEPT)


def alive() -> list[object]:
    """Whatever still is of the calls."""
    gc.collect()
    return [each for each in gc.get_objects() if isinstance(each, (Exchange, Item))]


def held_by(host: Host) -> dict[str, object]:
    """What a service holds for calls, by name, where it is not nothing."""
    front = host._front
    admission, server = front._dispatcher.admission, front._server
    held: dict[str, object] = {
        "permits": admission.in_flight(),
        "bytes of requests": admission.bytes,
        "bytes in the pool": front.pool.bytes,
        "calls on the loop": front._dispatcher._running,
        "native calls": getattr(server, "_live", None),
        "native tasks": getattr(server, "_tasks", None),
    }
    for model in host.models.list():
        held |= {f"leases of {model.name}": model._leases, f"items for {model.name}": model._pile and len(model._pile)}
    return {name: what for name, what in held.items() if what}


async def until(holds: Callable[[], bool]) -> None:
    """Waits until something that happens in other threads is so."""
    async with asyncio.timeout(60):
        while not holds():  # noqa: ASYNC110 (what is waited for has no event)
            await asyncio.sleep(0.01)
