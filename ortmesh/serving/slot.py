"""Slot: one name and version in a service, from the store's wish to what serves. Stage: store to task.

wanted ─► load beside what serves ─► still wanted? ─► put in its place ─► the old one ends after its last lease
   ▲                  │                      └─► no: dropped before it served
   └── a while ◄── no memory
an executor dies ─► not ready ─► loaded again after a delay that grows
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from ortmesh.serving.cards import Card
from ortmesh.serving.executor.failures import is_of_device, lacks_memory
from ortmesh.serving.loaded import Loaded
from ortmesh.serving.model import Model, reason_of
from ortmesh.serving.store import Identity

log = logging.getLogger(__name__)

FIRST_RESTART_SECONDS = 0.2
LONGEST_RESTART_SECONDS = 30.0
HEALTHY_SECONDS = 60.0
"""A model that served this long begins anew with the shortest delay when its executor dies."""
LOST_AFTER = 3
"""A device on which so many restarts failed, one after the other, is lost for this process."""

Load = Callable[[Model], Awaitable[Loaded]]
MakeModel = Callable[[Card, Path], Model]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the store holds under a name and version."""

    card: Card
    folder: Path
    identity: Identity
    """Changes when the version is replaced."""


class Slot:
    """Keeps one name and version as the store wants it: `keep` runs until it is not wanted any more."""

    def __init__(
        self,
        wanted: Wanted,
        *,
        make: MakeModel,
        load: Load,
        changed: Callable[[], None],
        lost: Callable[[], None] = lambda: None,
    ) -> None:
        self._wanted: Wanted | None = wanted
        self._make = make
        self._load = load
        self._tell = changed
        self._tell_lost = lost
        self._loop = asyncio.get_running_loop()
        self._news = asyncio.Event()
        self._loaded_from: Wanted | None = None
        self._death: str | None = None
        self._warning = ""
        self._tries = 0
        self._ready_since = 0.0
        self._leaving: set[asyncio.Task[None]] = set()
        self.model = make(wanted.card, wanted.folder)
        """What callers find under the name and version."""

    @property
    def wanted(self) -> Wanted | None:
        """What the store holds, as far as it was told."""
        return self._wanted

    def want(self, wanted: Wanted | None) -> None:
        """Tells what the store holds now; None when it was removed."""
        self.warn("")
        if (wanted and wanted.identity) != (self._wanted and self._wanted.identity):
            self._wanted = wanted
            self._news.set()

    def warn(self, warning: str) -> None:
        """Tells why what the store holds now can't be used; what is loaded goes on."""
        if warning != self._warning:
            self._warning = warning
            self.model.warning = warning

    async def keep(self) -> None:
        """Loads, replaces and restarts until the version is not wanted any more; then waits for the last lease."""
        while (wanted := self._wanted) is not None:
            while not await self._bring_up(wanted):
                await self._wait(LONGEST_RESTART_SECONDS, wanted)
            while (reason := await self._until_news(wanted)) is not None:
                if self._loaded_from is not wanted:
                    # What it was loaded from is gone; in its place lies what could not be served before.
                    self.model.failed(reason)
                    break
                await self._restart(reason, wanted)
        await self.model.stop()
        await asyncio.gather(*self._leaving)
        log.info("%s is unloaded", self.model.card.key)
        self._tell()

    async def end(self) -> None:
        """Ends at once, whatever waits: the service stops. `keep` must have been cancelled."""
        for task in self._leaving:
            task.cancel()
        await self.model.stop(at_once=True)

    def look(self) -> None:
        """Ends what its models compute for nobody; to be called from time to time."""
        if (error := self.model.end_unwanted()) is not None:
            log.error("%s: %s", self.model.card.key, reason_of(error))
            self._died(self.model, error)

    async def _bring_up(self, wanted: Wanted) -> bool:
        """Loads what is wanted beside what serves. What fails to load replaces nothing that is ready.

        False when it should be tried again: nothing serves, since there was no memory for it.
        """
        if self._wanted is not wanted:
            return True
        model = self.model
        if model.state != "LOADING" or model.card != wanted.card:
            model = self._make(wanted.card, wanted.folder)
        if self.model is not model and self.model.state != "READY":
            self._leave(self.model)
            self.model = model
        self._tell()
        try:
            loaded = await self._load_while_wanted(model, wanted)
        except Exception as error:
            again = lacks_memory(error)
            self._failed(model, reason_of(error), wanted, retrying=again)
            return self.model is not model or not again
        if loaded is not None:
            self._put_in_place(model, loaded, wanted)
        return True

    async def _load_while_wanted(self, model: Model, wanted: Wanted) -> Loaded | None:
        """Loads it; None when the store holds something else meanwhile, and the load is ended."""
        load, news = asyncio.ensure_future(self._load(model)), asyncio.ensure_future(self._until_unwanted(wanted))
        try:
            await asyncio.wait((load, news), return_when=asyncio.FIRST_COMPLETED)
            return await load if self._wanted is wanted else None
        finally:
            load.cancel()
            news.cancel()
            await asyncio.gather(load, news, return_exceptions=True)

    def _failed(self, model: Model, reason: str, wanted: Wanted, *, retrying: bool) -> None:
        log.error("%s can't be served: %s", model.card.key, reason)
        if self._wanted is not wanted:
            return
        if self.model is model:
            model.failed(reason, retrying=retrying)
        else:
            self.model.warning = f"what replaced it can't be served: {reason}"
        self._tell()

    def _put_in_place(self, model: Model, loaded: Loaded, wanted: Wanted) -> None:
        before, self.model = self.model, model
        self._loaded_from = wanted
        model.start(loaded, self._died, self._learnt)
        self._ready_since = time.monotonic()
        log.info("%s is ready on %s", model.card.key, ", ".join(filter(None, (model.provider, model.state_reason))))
        self._death = None
        if before is not model:
            self._leave(before)
        self._tell()

    def _leave(self, model: Model) -> None:
        """Ends what something else has replaced, after its last lease."""
        task = asyncio.create_task(model.stop())
        self._leaving.add(task)
        task.add_done_callback(self._left)

    def _left(self, task: asyncio.Task[None]) -> None:
        self._leaving.discard(task)
        self._tell()

    async def _until_news(self, wanted: Wanted) -> str | None:
        """Why the executor died, or None when the store holds something else."""
        while self._death is None and self._wanted is wanted:
            await self._news.wait()
            self._news.clear()
        reason, self._death = self._death, None
        return reason if self._wanted is wanted else None

    def _died(self, model: Model, error: BaseException) -> None:
        """In the executor's thread."""
        reason = f"its executor died: {reason_of(error)}"

        def tell() -> None:
            if model is self.model:
                self._death = reason
                self._news.set()

        with contextlib.suppress(RuntimeError):  # the loop is closed: the service has ended
            self._loop.call_soon_threadsafe(tell)

    def _learnt(self) -> None:
        """In the executor's thread."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: the service has ended
            self._loop.call_soon_threadsafe(self._tell)

    async def _restart(self, reason: str, wanted: Wanted) -> None:
        """Makes the executors anew until that works, after delays that grow; callers are told to come again."""
        if time.monotonic() - self._ready_since > HEALTHY_SECONDS:
            self._tries = 0
        while self._wanted is wanted:
            self.model.failed(reason, restarting=True)
            self._tell()
            delay = min(FIRST_RESTART_SECONDS * 2**self._tries, LONGEST_RESTART_SECONDS)
            self._tries += 1
            await self._wait(delay, wanted)
            if self._wanted is not wanted:
                return
            try:
                loaded = await self._load_while_wanted(self.model, wanted)
                if loaded is None:
                    return
                self.model.must_compute(loaded)
            except Exception as error:
                reason = f"it could not be started again: {reason_of(error)}"
                log.error("%s: %s", self.model.card.key, reason)
                if is_of_device(error) and self._tries >= LOST_AFTER:
                    self.model.failed(reason, restarting=True)
                    self._tell_lost()
                continue
            self._put_in_place(self.model, loaded, wanted)
            return

    async def _wait(self, seconds: float, wanted: Wanted) -> None:
        """Waits so long, or until the store holds something else."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._until_unwanted(wanted)

    async def _until_unwanted(self, wanted: Wanted) -> None:
        while self._wanted is wanted:
            await self._news.wait()
            self._news.clear()
