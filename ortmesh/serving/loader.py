"""Loader: loads a service's models side by side in threads of its own, each until it is not wanted any more.
Stage: store to executor.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from dataclasses import replace

from ortmesh.errors import ModelFailed
from ortmesh.serving.loaded import Loaded, load
from ortmesh.serving.model import Model
from ortmesh.serving.resident import Resident, trim
from ortmesh.serving.stop import Stop
from ortmesh.serving.suspects import Suspects


class Loader:
    """Belongs to the event loop. `open` it before the first load, `close` it after the last."""

    def __init__(self, threads: int, suspects: Suspects | None, inspect: Callable[[Model], str]) -> None:
        """`inspect` looks at a model that has been loaded: what it raises is why the model can't be served, what it
        returns stands in its state. It may block."""
        self._threads = threads
        self._inspect = inspect
        # Of their own: a model that loads for minutes must not hold up what else goes to threads.
        self._pool = ThreadPoolExecutor(threads + 4, "loader")
        self._resident = Resident()
        self._suspects = suspects
        self._apart = asyncio.Lock()
        self._quiet = asyncio.Condition()
        self._loading = 0

    async def open(self) -> None:
        """Looks what earlier processes may have died of."""
        if self._suspects is not None:
            await asyncio.to_thread(self._suspects.look)

    def close(self) -> None:
        """Lets go of the threads. Loads must have been cancelled."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        if self._suspects is not None:
            self._suspects.close()

    async def __call__(self, model: Model) -> Loaded:
        """What the model runs on; any exception means that it can't be served, with its text as the reason.

        A load that is cancelled ends as soon as ONNX Runtime heeds it. What an earlier process may have died of is
        loaded apart from the others.
        """
        if self._suspects is None or not self._suspects.of_version(model.card.key, model.folder):
            async with self._counted():
                return await self._in_thread(model)
        async with self._apart:
            async with self._quiet:
                await self._quiet.wait_for(lambda: not self._loading)
            return await self._in_thread(model)

    async def forget(self) -> None:
        """A model has gone: its memory is given back, and what the process holds at rest is measured anew."""
        self._resident.changed()
        await asyncio.to_thread(trim)

    @asynccontextmanager
    async def _counted(self) -> AsyncIterator[None]:
        self._loading += 1
        try:
            yield
        finally:
            self._loading -= 1
            async with self._quiet:
                self._quiet.notify_all()

    async def _in_thread(self, model: Model) -> Loaded:
        stop = Stop()
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, self._load_soundly, model, stop)
        finally:
            stop.now("it is not wanted any more")

    def _load_soundly(self, model: Model, stop: Stop) -> Loaded:
        """A panic of a library is no `Exception`: nobody would hear of it, and the model would load for ever."""
        try:
            return self._load(model, stop)
        except Exception:
            raise
        except BaseException as panic:
            raise ModelFailed(str(panic), resource=("model", model.card.key)) from panic

    def _load(self, model: Model, stop: Stop) -> Loaded:
        with self._marked(model):
            loaded = load(model.card, model.folder, self._threads, model.meter, stop=stop, resident=self._resident)
        self._resident.changed()
        model.know(loaded.signature)
        found = self._inspect(model)
        return replace(loaded, note="; ".join(filter(None, (loaded.note, found))))

    def _marked(self, model: Model) -> AbstractContextManager[None]:
        return nullcontext() if self._suspects is None else self._suspects.loading(model.card.key, model.folder)
