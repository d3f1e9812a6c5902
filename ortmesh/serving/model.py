"""Model: one version of a model, with its pile, its executors' threads and its leases. Stage: task to batcher."""

from __future__ import annotations

import asyncio
import functools
import logging
import threading
from collections.abc import Awaitable, Callable, Collection, Hashable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar

from ortmesh.errors import BadInput, ExecutorFailed, ModelFailed, NotReady, OrtmeshError
from ortmesh.front.call import Call
from ortmesh.front.methods import Reply
from ortmesh.serving.answers import Deed, FutureAnswer, Outbox, TracedAnswer
from ortmesh.serving.batcher import Pile
from ortmesh.serving.batcher.book import CostBook
from ortmesh.serving.batcher.policy import ArrivalOrder, BySize, CostAware, Policy
from ortmesh.serving.cards import Card, must_stay_inside
from ortmesh.serving.executor.failures import not_the_callers, readable
from ortmesh.serving.executor.session import SessionExecutor
from ortmesh.serving.loaded import Loaded
from ortmesh.serving.parts import Parts, Splitting
from ortmesh.serving.signature import Signature, TensorInfo
from ortmesh.serving.sizing import Sizing, rows_of
from ortmesh.serving.together import Together
from ortmesh.serving.types import Alike, Answer, Executor, Item, Meter, Tensors
from ortmesh.serving.warmup import Mode

if TYPE_CHECKING:
    from opentelemetry.trace import Span

T = TypeVar("T")
State = Literal["LOADING", "READY", "FAILED", "UNLOADING"]
log = logging.getLogger(__name__)

STUCK_SECONDS = 30.0
"""A run that goes on for so long after it was ended is given up, with its thread and its memory."""


class Spans(Protocol):
    """Where the spans of a sampled call go: `Telemetry.spans`."""

    def __call__(
        self, span: Span | None, queue_start: float, start: float, end: float, *, model: str, version: str
    ) -> None:
        """Children `queue` and `compute` of a call's span."""


NOTHING = Signature({}, {})


class Model:
    """One version of a model. Tasks await it: `outputs = await model(tensors, call)`."""

    def __init__(self, card: Card, folder: Path, *, outbox: Outbox, meter: Meter, spans: Spans | None = None) -> None:
        self.card = card
        self.name = card.name
        self.version = card.version
        self.folder = folder
        self.state: State = "LOADING"
        self.reason = ""
        """Why it is in this state, or how it is served if that is not obvious."""
        self.warning = ""
        """What else an operator must know: what the store holds beside it is not served."""
        self.provider = ""
        self.is_default = False
        """True for the version that a name without a version picks."""
        self.default_for: Sequence[str] = ()
        """The tasks for which it answers when a request names no model."""
        self.restarting = False
        """True while a FAILED model's executor is being made anew."""
        self.retrying = False
        """True while it is FAILED and tried again without anybody's doing."""
        self.meter = meter
        self._spans = spans
        self.mode = Mode.TOGETHER
        self.costs: CostBook | None = None
        """What its batches cost, once it is loaded; None for a program."""
        self.threads = 0
        """Of each executor's operators, on a CPU."""
        self._signature = NOTHING
        self._sizing = Sizing(NOTHING)
        self._splitting: Splitting | None = None
        """None where items run whole."""
        self._shared: tuple[str, ...] = ()
        """Inputs that must be equal in a batch: part of what items are grouped by."""
        self.outbox = outbox
        """Brings answers to the loop on which it is awaited."""
        self._pile: Pile | None = None
        self._threads: list[threading.Thread] = []
        self._executors: Sequence[Executor] = ()
        self._assets: dict[tuple[Any, str], Any] = {}
        self._checked: dict[Hashable, tuple[Card, Signature, Any]] = {}
        """What tasks found out about it, by what they need, with the card and the graph that they looked at."""
        self._lock = threading.Lock()
        self._assets_lock = threading.Lock()
        self._proved = False
        """True once it computed a sample."""
        self._leases = 0
        self._unused: Callable[[], object] | None = None

    @property
    def state_reason(self) -> str:
        """What an operator reads beside its state."""
        return "; ".join(filter(None, (self.reason, self.warning)))

    @property
    def executors(self) -> int:
        """How many batches are computed side by side."""
        return len(self._executors)

    @property
    def inputs(self) -> Mapping[str, TensorInfo]:
        """What it takes, in the graph's order; empty before it is loaded."""
        return self._signature.inputs

    @property
    def outputs(self) -> Mapping[str, TensorInfo]:
        """What it gives, in the graph's order; empty before it is loaded."""
        return self._signature.outputs

    def asset(self, load: Callable[[Path], T], file: str) -> T:
        """A file of the model as the named function `load` reads it, once for this version, e.g. its tokenizer.

        The first call reads for tens of milliseconds, so tasks use `ortmesh.serving.needs.asset` in the pool.
        """
        must_stay_inside(file)
        key = (load, file)
        with self._assets_lock:
            if key not in self._assets:
                self._assets[key] = load(self.folder / file)
            made: T = self._assets[key]
        return made

    def checked(self, needs: Hashable, check: Callable[[Model], T]) -> T:
        """What `check` finds, once for these needs, the card and the graph that is served; from any thread. What it
        raises is not kept."""
        card, signature = self.card, self._signature
        kept = self._checked.get(needs)
        if kept is None or kept[0] is not card or kept[1] is not signature:
            kept = self._checked[needs] = card, signature, check(self)  # by two threads at once: the same
        found: T = kept[2]
        return found

    @property
    def looked_at(self) -> list[Hashable]:
        """The needs that tasks have found to be met by the card that it has."""
        return [needs for needs, (card, _, _) in list(self._checked.items()) if card is self.card]

    async def __call__(self, tensors: Tensors, call: Call, *, outputs: Collection[str] | None = None) -> Tensors:
        """The model's outputs for the tensors that a task made, through its batcher. Each has its batch axis, also for
        one row. `outputs` names those that are needed: others may be missing, and are not copied from a device.

        Errors: Overloaded, NotReady (unloading), Expired, Cancelled, ExecutorFailed.
        """
        answer = self._future()
        self._submit_each((tensors,), (answer,), call, outputs)
        return await self._for_task(answer.future)

    async def infer(self, tensors: Tensors, call: Call, *, outputs: Collection[str] | None) -> Tensors:
        """The outputs for a caller's own tensors, which share a batch only with tensors of equal shapes.

        Errors: as of a task's; BadInput for what the graph refuses.
        """
        answer = self._future()
        self.submit(self.make_item(tensors, answer=answer, call=call, pad=False, outputs=outputs))
        return await answer.future

    async def many(
        self, many: Sequence[Tensors], call: Call, *, outputs: Collection[str] | None = None
    ) -> list[Tensors]:
        """The outputs for several items, in their order: all are admitted or none; the first error is raised."""
        answers = [self._future() for _ in many]
        self._submit_each(many, answers, call, outputs)
        return await self._for_task(asyncio.gather(*(answer.future for answer in answers)))

    def many_directly(
        self,
        many: Sequence[Tensors],
        call: Call,
        reply: Reply,
        encode: Callable[[Sequence[Tensors]], bytes],
        *,
        outputs: Collection[str] | None = None,
    ) -> None:
        """As `many`, for a direct handler: `encode` makes the serialized answer of the outputs, on the loop. Never
        blocks, from any thread. `many` has at least one.

        Raises Overloaded or NotReady when the items are not admitted; later errors go to `reply`.
        """
        answers = Together(len(many), call, reply, self.outbox, encode, self._in_tasks_words).answers()
        self._submit_each(many, answers, call, outputs)

    def submit(self, item: Item) -> None:
        """Puts a prepared item on the pile; never blocks, from any thread. Overloaded or NotReady."""
        self._submit((item,))

    def submit_all(self, items: Sequence[Item]) -> None:
        """As `submit`, all or none."""
        self._submit(items)

    def make_item(
        self,
        tensors: Tensors,
        *,
        answer: Answer,
        call: Call,
        pad: bool = True,
        outputs: Collection[str] | None = None,
    ) -> Item:
        """An item of this model for a call. With `pad` False it shares a batch only with items of equal shapes."""
        item = self._item(tensors, answer, call, pad, outputs)
        self.trace(item, call)
        return item

    def trace(self, item: Item, call: Call) -> None:
        """Has an item tell how long it waits and is computed, where its call's trace is sampled; before it is sent."""
        if call.span is not None and self._spans is not None:
            tell = functools.partial(self._tell_spans, call.span)
            item.answer = TracedAnswer(item, tell)

    def lease(self, call: Call) -> None:
        """Keeps the version loaded until the call ends. NotReady or ModelFailed when it can't answer."""
        with self._lock:
            if self.state != "READY":
                self._refuse()
            self._leases += 1
        call.on_end(self._release)

    def know(self, signature: Signature) -> None:
        """Takes over what its graph takes and gives."""
        self._signature = signature

    def start(self, loaded: Loaded, died: Callable[[Model, BaseException], None], learnt: Callable[[], None]) -> None:
        """Takes what was loaded into service. `died(model, error)` is called in an executor's thread when it breaks,
        `learnt()` when it has found out what batches cost."""
        self.know(loaded.signature)
        self._shared = tuple(name for name, info in loaded.signature.inputs.items() if info.shared)
        self.provider = loaded.provider
        self.mode = loaded.finding.mode
        self._sizing = loaded.sizing
        self.costs = loaded.costs
        self.threads = loaded.threads
        self.meter.costs(self.costs)
        batching = self.card.batching
        self._executors = loaded.executors
        self._splitting = self._split(loaded)
        self._pile = Pile(
            policy=self._policy(loaded),
            max_items=batching.max_items,
            max_bytes=batching.max_bytes,
            max_wait_seconds=batching.max_wait_ms / 1000,
            meter=self.meter,
            aside=lambda do: self.outbox.put(Deed(do)),
        )
        if loaded.study is not None:
            loaded.study.told = learnt
        self._proved = self._proved or loaded.finding.proof is not None
        for session in self._sessions:
            session.on_alone = self._serve_alone
        self._threads = [thread for thread in self._threads if thread.is_alive()]
        for number, executor in enumerate(loaded.executors):
            self._run_in_thread(executor, number, self._pile, died)
        self.reason, self.warning = self._explain(loaded), ""
        self.restarting = self.retrying = False
        self.state = "READY"

    def failed(self, reason: str, *, restarting: bool = False, retrying: bool = False) -> None:
        """Marks it as not ready, and why; `retrying` when it is loaded again by itself, as a restart always is."""
        self.state, self.reason, self.restarting = "FAILED", reason, restarting
        self.retrying = retrying or restarting
        if restarting:
            self._executors = ()  # their memory is needed for the new ones

    def must_compute(self, loaded: Loaded) -> None:
        """Refuses, as a restart, what computes none of its samples where it did before. ExecutorFailed."""
        if self._proved and loaded.finding.proof is None:
            raise ExecutorFailed("it fails on samples that it computed before")

    def end_unwanted(self) -> BaseException | None:
        """Ends runs that nobody waits for; what to say of one that has not heeded that for long, else None."""
        stuck = max((executor.interrupt_unwanted() for executor in self._executors), default=0.0)
        if stuck < STUCK_SECONDS:
            return None
        self._executors = ()
        self._threads = []
        error = ExecutorFailed(f"it has computed for {stuck:.0f} s what nobody waits for, and can't be stopped")
        self._close(self._pile)
        return error

    async def stop(self, *, at_once: bool = False) -> None:
        """Waits for the leases (unless `at_once`), then ends the executors. Waiting items end with NotReady."""
        self.state = "UNLOADING"
        if not at_once:
            await self._until_unused()
        if self._pile is not None:
            self._pile.close(NotReady("the model was unloaded"))
        for executor in self._executors:
            executor.interrupt()  # nobody waits for it any more, or nobody will be answered
        for thread in self._threads:
            await asyncio.to_thread(thread.join, STUCK_SECONDS)
        self._forget()

    async def _for_task(self, outputs: Awaitable[T]) -> T:
        """What a task waits for. Errors are those of `_in_tasks_words`."""
        try:
            return await outputs
        except BadInput as refusal:
            raise self._in_tasks_words(refusal) from refusal

    def _in_tasks_words(self, error: BaseException) -> BaseException:
        """What a task's caller gets. The log has what is no caller's mistake."""
        if not isinstance(error, BadInput):
            return error
        log.error("%s refuses what a task made of a request: %s", self.card.key, error.message)
        return not_the_callers(error)

    def _submit_each(
        self, many: Sequence[Tensors], answers: Sequence[Answer], call: Call, outputs: Collection[str] | None
    ) -> None:
        """An item of a call for each of these tensors, all or none."""
        pairs = zip(many, answers, strict=True)
        self._submit([self.make_item(each, answer=answer, call=call, outputs=outputs) for each, answer in pairs])

    def _submit(self, items: Sequence[Item]) -> None:
        """All or none: a caller whose first work is taken is not refused later. Those of many rows in parts."""
        pile, splitting = self._open_pile(), self._splitting
        if splitting is None or not any(map(splitting.splits, items)):
            pile.submit(*items) if len(items) == 1 else pile.submit_many(items)
            return
        for item in items:
            if splitting.splits(item):
                Parts(item, splitting, pile.submit_many, self._run_whole).begin()
            else:
                pile.submit(item)

    def _run_whole(self, item: Item, why: str) -> None:
        """In an executor's thread: a part of an item had not its rows, so it runs in one piece, and all others too."""
        self._serve_alone(f"results depended on the rest of the batch ({why})")
        item.solo = True
        try:
            self._open_pile().submit(item)
        except OrtmeshError as error:
            item.fail(error)

    def _future(self) -> FutureAnswer:
        return FutureAnswer(self.outbox, asyncio.get_running_loop().create_future())

    def _open_pile(self) -> Pile:
        if self._pile is None:
            self._refuse()
            raise NotReady(f"{self.card.key} is being loaded")
        return self._pile

    def _item(self, tensors: Tensors, answer: Answer, call: Call, pad: bool, outputs: Collection[str] | None) -> Item:
        size = self._sizing.of(tensors)
        return Item(
            tensors,
            answer=answer,
            owner=call,
            deadline=call.deadline,
            rows=rows_of(tensors, self._signature),
            size=size,
            group=self._group(tensors, pad, size),
            solo=self.mode is Mode.ALONE,
            priority=call.priority,
            caller=call.caller,
            outputs=outputs,
        )

    def _tell_spans(self, span: Span, arrival: float, taken: float, done: float) -> None:
        assert self._spans is not None
        self._spans(span, arrival, taken, done, model=self.name, version=self.version)

    def _group(self, tensors: Tensors, pad: bool, size: int) -> Hashable:
        shared = tuple([tensors[name].tobytes() for name in self._shared]) if self._shared else None
        if pad and self._signature.padded:
            return shared, size if self.mode is Mode.EQUAL_SIZES else None
        shapes = [self.inputs[name].shape_of_a_row(array) for name, array in tensors.items()]
        return Alike(shared, tuple(shapes))

    def _refuse(self) -> None:
        if self.state == "FAILED" and not self.restarting:
            raise ModelFailed(
                f"{self.card.key} can't be served: {self.state_reason}", resource=("model", self.card.key)
            )
        word = {"LOADING": "is being loaded", "UNLOADING": "is being unloaded"}.get(self.state, "is being restarted")
        raise NotReady(f"{self.card.key} {word}", retry_after_seconds=1.0, resource=("model", self.card.key))

    def _release(self) -> None:
        with self._lock:
            self._leases -= 1
            unused = self._unused if self._leases == 0 else None
        if unused is not None:
            unused()

    async def _until_unused(self) -> None:
        loop, free = asyncio.get_running_loop(), asyncio.Event()
        with self._lock:
            if self._leases == 0:
                return
            self._unused = lambda: loop.call_soon_threadsafe(free.set)
        await free.wait()

    def _run_in_thread(
        self, executor: Executor, number: int, pile: Pile, died: Callable[[Model, BaseException], None]
    ) -> None:
        def serve() -> None:
            try:
                executor.serve(pile)
            except BaseException as error:
                log.exception("the executor of %s died", self.card.key)
                if pile is self._pile:  # else it has been replaced already
                    self._close(pile)
                    died(self, error)

        thread = threading.Thread(target=serve, name=f"executor-{self.card.key}-{number}", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _close(self, pile: Pile | None) -> None:
        """Work that has not begun is told to come again: here once the model is restarted, or to another replica."""
        if pile is not None:
            pile.close(NotReady(f"{self.card.key} is being restarted", retry_after_seconds=1.0))

    def _forget(self) -> None:
        """Lets go of the sessions: else they stay in memory until Python looks for circles."""
        for session in self._sessions:
            session.on_alone = lambda reason: None
            session.study = None
        self._executors = ()
        self._threads.clear()
        self._assets.clear()
        self._checked.clear()

    @property
    def _sessions(self) -> list[SessionExecutor]:
        return [executor for executor in self._executors if isinstance(executor, SessionExecutor)]

    def _serve_alone(self, reason: str) -> None:
        """In the executor's thread: what comes from now on is not put into batches."""
        self.mode = Mode.ALONE
        self._splitting = None
        for session in self._sessions:
            session.serve_alone()
        self.reason = f"served {Mode.ALONE.value}: {reason}"

    def _policy(self, loaded: Loaded) -> Policy:
        if self.costs is not None:
            return CostAware(self.costs, sized=loaded.sizing.sized)
        return BySize() if self.card.runtime.engine is not None else ArrivalOrder()

    def _split(self, loaded: Loaded) -> Splitting | None:
        """None for programs, and for models that answer one item at a time."""
        if self.mode is Mode.ALONE or not self._sessions:
            return None
        seconds = self.costs.at_least if self.costs is not None else lambda rows, size: 0.0
        return Splitting(loaded.signature, self.card.batching.max_rows, len(loaded.executors) + 1, seconds)

    def _explain(self, loaded: Loaded) -> str:
        mode, reason = loaded.finding.mode, loaded.finding.reason
        served = "" if mode is Mode.TOGETHER else f"served {mode.value}: {reason}"
        return "; ".join(filter(None, (served, loaded.note)))


def reason_of(error: BaseException) -> str:
    """Why a model can't be served, for its state: one line, without places in source files."""
    if isinstance(error, ExecutorFailed):
        return error.message
    return readable(error)
