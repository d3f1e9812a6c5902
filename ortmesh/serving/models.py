"""Models: all models of one service, versions side by side with a default, kept as the store says. Stage: task.

Everything but `choose` and `named` belongs to the event loop; those two are called from any thread.
"""

from __future__ import annotations

import asyncio
import errno
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence
from pathlib import Path

from ortmesh.errors import BadInput, NotFound, NotReady
from ortmesh.front.call import Call
from ortmesh.near import near_in_words
from ortmesh.serving.answers import Outbox
from ortmesh.serving.cards import Card
from ortmesh.serving.choice import task_defaults
from ortmesh.serving.loader import Loader
from ortmesh.serving.mistakes import MOST_TOLD, no_such, shown
from ortmesh.serving.model import Model, Spans
from ortmesh.serving.needs import misspelt
from ortmesh.serving.slot import Slot, Wanted
from ortmesh.serving.store import Installed, Store, pick_default, version_order
from ortmesh.serving.suspects import Suspects
from ortmesh.serving.types import Meter

log = logging.getLogger(__name__)

FOLLOW_AGAIN_SECONDS = 5.0
LOOK_SECONDS = 1.0
"""How often it is looked for runs that nobody waits for any more: nothing else tells when the last caller left."""


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
        suspects: Suspects | None = None,
    ) -> None:
        self._store = store
        self.family = family
        self._meter = meter
        self._only = frozenset(only)
        self._spans = spans
        self._slots: dict[Key, Slot] = {}
        self._defaults: dict[str, Model] = {}
        self._task_defaults: dict[str, Model] = {}
        """By the task."""
        self._watchers: list[Callable[[], None]] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._reconciling = asyncio.Lock()
        self._load = Loader(threads, suspects, self._inspect)
        self._checks: dict[str, Callable[[Model], object]] = {}
        """What a task asks of a model that has been loaded for it, by the task; it may raise, and block."""
        self._all_bound = False
        self.looked = asyncio.Event()
        """Set once the store was looked at: before, no model is known, not even as unknown."""
        self.lost = asyncio.Event()
        """Set when a device is lost for this process and no model serves any more: only a new process can help."""
        self._desired: dict[str, str | None] = {}
        self._elsewhere: dict[str, str] = {}
        """The families of the store's other models."""
        self._place: tuple[int, int] | None = None
        """The store's folder, as it was when it last held what it should: (device, inode)."""
        self._told: dict[Path, str] = {}
        """The store's problems that are in the log."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._outbox: Outbox | None = None

    async def __aenter__(self) -> Models:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    def require(self, task: str, check: Callable[[Model], object]) -> None:
        """Has every model of a task checked once it is loaded, before it serves: what `check` raises is why it can't.

        To be called before `start`. `check` blocks, in a thread.
        """
        self._checks[task] = check

    def all_tasks_are_bound(self) -> None:
        """From now on a card's task that was not named to `require` is a mistake, which the model's state tells:
        nothing would choose a model for it. To be called before `start`."""
        self._all_bound = True

    async def start(self) -> None:
        """Begins to load what the store holds and to follow its changes; returns before the models are ready."""
        self._loop = asyncio.get_running_loop()
        self._outbox = Outbox(self._loop)
        await self._load.open()
        changes = self._store.watch()  # before the first look, so that nothing falls between the two
        await self._reconcile()
        self._spawn(self._follow(changes))
        self._spawn(self._look_after_runs())

    async def until_loaded(self) -> None:
        """Returns when no model is loading any more: each is READY or FAILED."""
        settled = asyncio.Event()

        def look() -> None:
            if not any(slot.model.state == "LOADING" for slot in self._slots.values()):
                settled.set()

        unsubscribe = self.watch(look)
        look()
        await settled.wait()
        unsubscribe()

    async def stop(self) -> None:
        """Ends the executors and whatever loads; items that still wait end with NotReady."""
        slots = list(self._slots.values())
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(slot.end() for slot in slots))
        self._load.close()

    def _inspect(self, model: Model) -> str:
        """What its card gets wrong that does not keep it from being served. In a thread. Errors are those of the tasks'
        checks."""
        card = model.card
        for check in filter(None, map(self._checks.get, card.tasks)):
            check(model)
        unknown = dict.fromkeys(task for task in card.tasks if not self._knows(task))
        strange = dict.fromkeys(task for task in card.default_for if task not in card.tasks)
        told = [f"tasks: {shown(task)}: {no_such(f'task of {self.family}', task, self._checks)}" for task in unknown]
        told += [f"default_for: {shown(task)} is none of its tasks" for task in strange]
        more = len(told) - MOST_TOLD
        return "; ".join(filter(None, (*told[:MOST_TOLD], f"and {more} more" if more > 0 else "", misspelt(model))))

    def _knows(self, task: str) -> bool:
        return task in self._checks or not self._all_bound

    # What the tasks ask

    def choose(self, task: str, name: str, call: Call, *, field: str = "model") -> Model:
        """The model for a task, leased until the call ends. `name` is "", "name" or "name@version".

        NotFound with near names; BadInput, naming the field, when the model is not for this task; NotReady while it
        loads; ModelFailed.
        """
        if name:
            model = self._find(*_parsed(name))
            if task not in model.card.tasks:
                raise BadInput(field, f"{name} does not {task.replace('_', ' ')}; {self._which_do(task)}")
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
        return [self._slots[key].model for key in sorted(self._slots, key=lambda key: (key[0], version_order(key[1])))]

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
        if not version:
            model = self._defaults.get(name)
            if model is not None:
                return model
        elif (slot := self._slots.get((name, version))) is not None:
            return slot.model
        raise self._unknown(name, version)

    def _default_for(self, task: str) -> Model:
        self._must_have_looked()
        model = self._task_defaults.get(task)
        if model is None:
            missing = f"no model of this service does {task.replace('_', ' ')}"
            raise NotFound(missing, resource=("task", f"{self.family}.{task}"))
        return model

    def _unknown(self, name: str, version: str) -> NotFound:
        versions = [known for known_name, known in sorted(self._slots) if known_name == name]
        if versions:
            message = f"model {name!r} has no version {version[:64]!r}; it has {', '.join(versions)}"
        else:
            elsewhere = self._elsewhere.get(name)
            told = f"it is one of {elsewhere}" if elsewhere else near_in_words(name, self._defaults)
            message = f"there is no model {name[:128]!r} in the family {self.family}; {told}"
        return NotFound(message, resource=("model", f"{name[:128]}@{version[:64]}" if version else name[:128]))

    def _which_do(self, task: str) -> str:
        able = sorted(model.name for model in self._defaults.values() if task in model.card.tasks)
        return f"these do: {', '.join(able)}" if able else "no model of this service does"

    # Following the store

    async def _follow(self, changes: AsyncIterator[None]) -> None:
        """Looks again after every change; a store that can't be read for a while loses nothing that is loaded."""
        lost = ""
        while True:
            try:
                await self._reconcile()
                if lost:
                    log.info("the store %s is followed again", self._store.root)
                    lost = ""
                async for _ in changes:
                    await self._reconcile()
            except OSError as error:
                if str(error) != lost:  # once, not with every look
                    lost = str(error)
                    log.error("the store can't be followed, what is loaded goes on: %s", error)
            except Exception:
                log.exception("the store can't be followed; what is loaded goes on")
            await asyncio.sleep(FOLLOW_AGAIN_SECONDS)
            changes = self._store.watch(make=False)

    async def _reconcile(self) -> None:
        """Brings what is loaded to what the store holds."""
        async with self._reconciling:
            wanted, self._desired, self._elsewhere = await asyncio.to_thread(self._look)
            problems = self._store.problems
            for path, reason in problems.items():
                if self._told.get(path) != reason:  # not again whenever another model changes
                    log.error("not served: %s: %s", path, reason)
            self._told = dict(problems)
            for key, slot in self._slots.items():
                if key not in wanted and (why := self._why_unusable(slot)) is not None:
                    slot.warn(f"what the store holds now can't be used: {why}")
                else:
                    slot.want(wanted.get(key))
            for key in wanted.keys() - self._slots.keys():
                self._open(key, wanted[key])
            self.looked.set()
            self._changed()

    def _look(self) -> tuple[dict[Key, Wanted], dict[str, str | None], dict[str, str]]:
        """(the versions to serve, the version that each name means, the families of the others), as the store says."""
        installed = self._installed()
        wanted = {
            (found.card.name, found.card.version): Wanted(found.card, found.folder, found.identity)
            for found in installed
            if found.card.family == self.family and (not self._only or found.card.name in self._only)
        }
        chosen = self._store.defaults()
        kept = [key for key, slot in list(self._slots.items()) if self._why_unusable(slot) is not None]
        keys = {*wanted, *kept}
        desired = {name: pick_default(_versions(keys, name), chosen.get(name)) for name, _ in keys}
        others: dict[str, str] = {
            found.card.name: found.card.family for found in installed if found.card.family != self.family
        }
        return wanted, desired, others

    def _installed(self) -> Sequence[Installed]:
        """What the store holds. OSError when its folder is another one than before, and empty: a disk that is away
        leaves its mount's folder, and a replica that was started meanwhile makes a new one."""
        status = self._store.root.stat()
        place, found = (status.st_dev, status.st_ino), self._store.installed()
        if place != self._place and self._slots and not (found or self._store.problems):
            raise FileNotFoundError(
                errno.ENOENT, "the store is gone, an empty folder is in its place", self._store.root
            )
        self._place = place
        return found

    def _why_unusable(self, slot: Slot) -> str | None:
        """Why a version that is loaded, and still is in the store, can't be read from it; None when that is not so.

        A card is edited by hand while its model serves: what is loaded goes on until the version is gone, or is
        usable again.
        """
        folder = slot.model.folder
        return self._store.problems.get(folder) or self._store.problems.get(folder.parent)

    def _open(self, key: Key, wanted: Wanted) -> None:
        slot = Slot(wanted, make=self._make, load=self._load, changed=self._changed, lost=self._device_lost)
        self._slots[key] = slot
        self._spawn(self._keep(key, slot))

    async def _look_after_runs(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            for slot in self._slots.values():
                slot.look()

    async def _keep(self, key: Key, slot: Slot) -> None:
        """Keeps a slot until its version is not wanted any more, and opens another if it was wanted again meanwhile."""
        await slot.keep()
        del self._slots[key]
        await self._load.forget()
        if slot.wanted is not None:  # wanted again while the last lease was waited for
            self._open(key, slot.wanted)
        self._changed()

    def _make(self, card: Card, folder: Path) -> Model:
        assert self._outbox is not None
        meter = self._meter(card.name, card.version)
        return Model(card, folder, outbox=self._outbox, meter=meter, spans=self._spans)

    def _choose_defaults(self) -> None:
        """The wanted version of each name where it is ready; else what serves; else the newest that is ready."""
        defaults: dict[str, Model] = {}
        for name, version in self._desired.items():
            known = {slot_version: slot.model for (n, slot_version), slot in self._slots.items() if n == name}
            if not known:
                continue
            wanted, serving = known.get(version or ""), self._defaults.get(name)
            ready = [known[each] for each in sorted(known, key=version_order) if known[each].state == "READY"]
            if wanted is not None and (wanted.state == "READY" or not ready):
                defaults[name] = wanted
            elif ready:
                defaults[name] = serving if serving in ready else ready[-1]
        self._defaults = defaults
        chosen = task_defaults((model.card, model.state == "READY") for model in defaults.values())
        self._task_defaults = {task: defaults[name] for (_, task), name in chosen.items() if self._knows(task)}
        for slot in self._slots.values():
            slot.model.is_default = defaults.get(slot.model.name) is slot.model
            slot.model.default_for = [task for task, model in self._task_defaults.items() if model is slot.model]

    def _spawn(self, coroutine: Coroutine[None, None, None]) -> None:
        task = asyncio.ensure_future(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("following the store failed", exc_info=task.exception())

    def _device_lost(self) -> None:
        """What serves on another device, or on the CPU, is worth more than a new try."""
        if not any(slot.model.state == "READY" for slot in self._slots.values()):
            self.lost.set()

    def _changed(self) -> None:
        self._choose_defaults()
        for callback in list(self._watchers):
            callback()


Key = tuple[str, str]
"""(name, version)."""


def _versions(wanted: Iterable[Key], name: str) -> list[str]:
    return [version for known, version in wanted if known == name]


def _parsed(name: str) -> Key:
    """`name@version` as (name, version); the version is "" when none is named."""
    head, _, version = name.partition("@")
    return head, version
