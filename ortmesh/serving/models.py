"""Models: all models of one service, versions side by side with a default, kept as the store says. Stage: task.

Everything but `choose` and `named` belongs to the event loop; those two are called from any thread.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from difflib import get_close_matches
from pathlib import Path

from ortmesh.errors import BadInput, NotFound, NotReady
from ortmesh.front.call import Call
from ortmesh.serving.answers import Outbox
from ortmesh.serving.cards import CARD_FILE, Card
from ortmesh.serving.loaded import Loaded, load
from ortmesh.serving.model import Model, Spans, reason_of
from ortmesh.serving.store import Store, pick_default, version_order
from ortmesh.serving.types import Meter

log = logging.getLogger(__name__)

FIRST_RESTART_SECONDS = 0.2
LONGEST_RESTART_SECONDS = 30.0
Identity = tuple[int, int]


class Models:
    """The models of a family. `async with` it, or `start` and `stop`."""

    def __init__(
        self,
        store: Store,
        family: str,
        *,
        threads: int,
        meter: Callable[[str, str], Meter],
        only: Iterable[str] = (),
        spans: Spans | None = None,
    ) -> None:
        self._store = store
        self.family = family
        self._threads = threads
        self._meter = meter
        self._only = frozenset(only)
        self._spans = spans
        self._models: dict[tuple[str, str], Model] = {}
        self._identities: dict[tuple[str, str], Identity] = {}
        self._defaults: dict[str, Model] = {}
        self._watchers: list[Callable[[], None]] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._restarts: dict[Model, int] = {}
        self._reconciling = asyncio.Lock()
        self.looked = asyncio.Event()
        """Set once the store was looked at: before, no model is known, not even as unknown."""
        self._desired: dict[str, str | None] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._outbox: Outbox | None = None

    async def __aenter__(self) -> Models:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Begins to load what the store holds and to follow its changes; returns before the models are ready."""
        self._loop = asyncio.get_running_loop()
        self._outbox = Outbox(self._loop)
        changes = self._store.watch()  # before the first look, so that nothing falls between the two
        await self._reconcile()
        self._spawn(self._follow(changes))

    async def until_loaded(self) -> None:
        """Returns when no model is loading any more: each is READY or FAILED."""
        settled = asyncio.Event()

        def look() -> None:
            if not any(model.state == "LOADING" for model in self._models.values()):
                settled.set()

        unsubscribe = self.watch(look)
        look()
        await settled.wait()
        unsubscribe()

    async def stop(self) -> None:
        """Ends the executors and whatever loads; items that still wait end with NotReady."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(model.stop(at_once=True) for model in self._models.values()))

    # What the tasks ask

    def choose(self, task: str, name: str, call: Call) -> Model:
        """The model for a task, leased until the call ends. `name` is "", "name" or "name@version".

        NotFound with near names; BadInput when the model is not for this task; NotReady while it loads; ModelFailed.
        """
        if name:
            model = self._find(*_parsed(name))
            if task not in model.card.tasks:
                raise BadInput("model", f"{name} does not {task.replace('_', ' ')}; {self._which_do(task)}")
        else:
            model = self._default_for(task)
        model.lease(call)
        return model

    def named(self, name: str, version: str, call: Call) -> Model:
        """A model by name and version ("" is the default one), leased until the call ends; errors as `choose`."""
        model = self._find(name, version)
        model.lease(call)
        return model

    def find(self, name: str, version: str = "") -> Model:
        """A model by name and version ("" is the default one) in whatever state, without a lease; else NotFound."""
        return self._find(name, version)

    def list(self) -> list[Model]:
        """Every version, ordered by name and version."""
        return [self._models[key] for key in sorted(self._models, key=lambda key: (key[0], version_order(key[1])))]

    def watch(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Has `callback` called on the loop after every change of a model; returns how to end that."""
        self._watchers.append(callback)
        return lambda: self._watchers.remove(callback)

    # Finding

    def _must_have_looked(self) -> None:
        if not self.looked.is_set():
            raise NotReady("the service is starting", retry_after_seconds=1.0)

    def _find(self, name: str, version: str) -> Model:
        self._must_have_looked()
        model = self._defaults.get(name) if not version else self._models.get((name, version))
        if model is None:
            raise self._unknown(name, version)
        return model

    def _default_for(self, task: str) -> Model:
        self._must_have_looked()
        able = [model for model in self._defaults.values() if task in model.card.tasks]
        able.sort(key=lambda model: (task not in model.card.default_for, model.state != "READY", model.name))
        if not able:
            raise NotFound(f"no model of this service does {task.replace('_', ' ')}", resource=("model", ""))
        return able[0]

    def _unknown(self, name: str, version: str) -> NotFound:
        versions = [known for known_name, known in sorted(self._models) if known_name == name]
        if versions:
            message = f"model {name!r} has no version {version!r}; it has {', '.join(versions)}"
        else:
            names = sorted(self._defaults)
            near = get_close_matches(name[:128], names, n=3, cutoff=0.5) or names[:10]
            message = f"there is no model {name[:128]!r}" + (
                f"; near it: {', '.join(near)}" if near else "; no model is served"
            )
        return NotFound(message, resource=("model", f"{name[:128]}@{version[:64]}" if version else name[:128]))

    def _which_do(self, task: str) -> str:
        able = sorted(model.name for model in self._defaults.values() if task in model.card.tasks)
        return f"these do: {', '.join(able)}" if able else "no model of this service does"

    # Following the store

    async def _follow(self, changes: AsyncIterator[None]) -> None:
        async for _ in changes:
            try:
                await self._reconcile()
            except OSError as error:
                log.error("the store can't be read and what is loaded goes on: %s", error)

    async def _reconcile(self) -> None:
        """Brings what is loaded to what the store holds."""
        async with self._reconciling:
            wanted, self._desired = await asyncio.to_thread(self._wanted)
            for path, reason in self._store.problems.items():
                log.error("not served: %s: %s", path, reason)
            for key, (card, folder, identity) in wanted.items():
                if self._identities.get(key) != identity:
                    self._identities[key] = identity
                    self._bring_up(card, folder)
            for key in [key for key in self._models if key not in wanted]:
                self._identities.pop(key, None)
                self._spawn(self._take_down(self._models.pop(key)))
            self.looked.set()
            self._choose_defaults()

    def _wanted(self) -> tuple[dict[tuple[str, str], tuple[Card, Path, Identity]], dict[str, str | None]]:
        """(the versions to serve, the version that each name means), as the store says now."""
        mine = [(card, folder) for card, folder in self._store.cards() if card.family == self.family]
        wanted = {
            (card.name, card.version): (card, folder, _identity(folder))
            for card, folder in mine
            if not self._only or card.name in self._only
        }
        chosen = self._store.defaults()
        names = {name for name, _ in wanted}
        desired = {name: pick_default([v for n, v in wanted if n == name], chosen.get(name)) for name in names}
        return wanted, desired

    def _choose_defaults(self) -> None:
        """A new default takes traffic when it is ready, or when there is nothing that serves in its place."""
        for name, version in self._desired.items():
            model = self._models.get((name, version or ""))
            serving = self._defaults.get(name)
            stale = serving is None or self._models.get((name, serving.version)) is not serving
            if model is not None and (model.state == "READY" or stale or serving is model):
                self._defaults[name] = model
        for name in [name for name in self._defaults if not any(name == known for known, _ in self._models)]:
            del self._defaults[name]
        for model in self._models.values():
            model.is_default = self._defaults.get(model.name) is model
        self._changed()

    def _bring_up(self, card: Card, folder: Path) -> None:
        """Begins to load a version; it is known at once unless another serves under its name and version."""
        assert self._outbox is not None
        key = (card.name, card.version)
        model = Model(card, folder, outbox=self._outbox, meter=self._meter(*key), spans=self._spans)
        before = self._models.get(key)
        if before is None:
            self._models[key] = model
        self._spawn(self._load_beside(model, before))

    async def _load_beside(self, model: Model, before: Model | None) -> None:
        """Loads a version, and puts it in the place of what serves under its name when it is ready."""
        await self._load(model)
        if before is not None:
            self._models[(model.name, model.version)] = model
            self._spawn(self._take_down(before))
        self._choose_defaults()

    async def _load(self, model: Model) -> None:
        try:
            loaded: Loaded = await asyncio.to_thread(load, model.card, model.folder, self._threads, model.meter)
            model.start(loaded, self._died)
            log.info("%s is ready on %s %s", model.card.key, model.provider, model.state_reason)
        except Exception as error:
            model.failed(reason_of(error))
            log.error("%s can't be served: %s", model.card.key, model.state_reason)

    async def _take_down(self, model: Model) -> None:
        await model.stop()
        log.info("%s is unloaded", model.card.key)
        self._changed()

    # Executors that die

    def _died(self, model: Model, error: BaseException) -> None:
        """In the executor's thread: has the executor made anew, after a delay that grows."""
        assert self._loop is not None
        reason = f"its executor died: {reason_of(error)}"
        self._loop.call_soon_threadsafe(lambda: self._spawn(self._restart(model, reason)))

    async def _restart(self, model: Model, reason: str) -> None:
        if model.restarting or model.state == "UNLOADING":
            return
        model.failed(reason, restarting=True)
        self._changed()
        tries = self._restarts[model] = self._restarts.get(model, 0) + 1
        await asyncio.sleep(min(FIRST_RESTART_SECONDS * 2 ** (tries - 1), LONGEST_RESTART_SECONDS))
        await self._load(model)
        self._choose_defaults()

    def _spawn(self, coroutine: Coroutine[None, None, None]) -> None:
        task = asyncio.ensure_future(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("following the store failed", exc_info=task.exception())

    def _changed(self) -> None:
        for callback in list(self._watchers):
            callback()


def _parsed(name: str) -> tuple[str, str]:
    """`name@version` as (name, version); the version is "" when none is named."""
    head, _, version = name.partition("@")
    return head, version


def _identity(folder: Path) -> Identity:
    """What changes when a version is replaced: its card's inode and time."""
    status = (folder / CARD_FILE).stat()
    return status.st_ino, status.st_mtime_ns
