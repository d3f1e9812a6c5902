"""The engine: lets texts in at every step, computes one token of each a step, ends each alone. Stage: executor.

A step is one run over the slots of all texts in progress, and at most one chunk of one prompt: so a long prompt holds
the others up for a chunk at a time, and prompts take turns. Continuous batching: Yu et al. 2022 (Orca); chunked
prompts: Agrawal et al. 2023 (Sarathi).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from pathlib import Path

from ortmesh.errors import ExecutorFailed, NotReady, OrtmeshError
from ortmesh.serving.cards import Card, EngineSettings
from ortmesh.serving.executor.engine.admission import Admission
from ortmesh.serving.executor.engine.ask import PROMPT
from ortmesh.serving.executor.engine.device_graph import DeviceGraph
from ortmesh.serving.executor.engine.graph import CausalGraph, HostGraph
from ortmesh.serving.executor.engine.prefill import Prefill
from ortmesh.serving.executor.engine.probe import probe
from ortmesh.serving.executor.engine.reach import must_reach
from ortmesh.serving.executor.engine.slots import Values
from ortmesh.serving.executor.engine.text import Text
from ortmesh.serving.executor.failures import ExecutorBroken, failure_of_text
from ortmesh.serving.executor.interruptible import InterruptibleSession
from ortmesh.serving.executor.loop import is_wanted
from ortmesh.serving.executor.sessions import Sessions
from ortmesh.serving.executor.turn import Turn
from ortmesh.serving.signature import Signature, TensorInfo
from ortmesh.serving.tensors import dtype_of
from ortmesh.serving.types import Meter, Pile

log = logging.getLogger(__name__)

FAILURES = 3
"""So many runs that fail without a token in between, and the executor is made anew."""


class EngineExecutor:
    """Generates texts with one session. `serve` belongs in a thread of its own."""

    def __init__(self, graph: CausalGraph, sessions: Sessions, settings: EngineSettings, *, meter: Meter) -> None:
        self._graph = graph
        self._meter = meter
        self._slots = graph.slots(slots=settings.slots, length=settings.context)
        self._admission = Admission(self._slots, graph, settings, meter=meter)
        self._texts = self._admission.texts
        """In the slots of their places. The very list of the admission: here only their order changes."""
        self._prefill = Prefill(self._slots, graph)
        self._failures = 0
        self._turn = Turn(sessions)

    @classmethod
    def load(cls, card: Card, folder: Path, sessions: Sessions, *, meter: Meter) -> EngineExecutor:
        """Opens the session. ValueError for a graph that is none of a causal language model, NotOnDevice for one that a
        device can't generate with."""
        settings = card.runtime.engine
        assert settings is not None
        session = sessions.open(folder / card.graph)
        return cls(open_graph(session, settings.head_size), sessions, settings, meter=meter)

    @property
    def signature(self) -> Signature:
        """What an item holds; `ortmesh.serving.executor.engine.ask` has the rest."""
        info = TensorInfo(PROMPT, "INT64", dtype_of("INT64"), (-1, -1), batch_axis=0, pad_axis=None)
        return Signature({PROMPT: info}, {})

    @property
    def provider(self) -> str:
        """The execution provider of its session."""
        return self._graph.provider

    def warm_up(self) -> str:
        """Computes a few tokens: what fails here would fail for every text. OutOfReach where a text may become longer
        than the graph can compute. Finds out whether texts depend on each other: why, or nothing when they do not."""
        must_reach(self._graph, self._slots)
        found = probe(self._graph, self._slots)
        self._graph.least_rows = found.least_rows
        self._admission.independent = not found.dependent
        return found.dependent

    @property
    def note(self) -> str:
        """What an operator should know."""
        return self._graph.note

    def serve(self, pile: Pile) -> None:
        """Generates until the pile closes and all texts have ended; ExecutorBroken when it can't go on."""
        open_, why = True, ExecutorFailed("the model's executor broke while it generated this text")
        try:
            self._admission.tell_held()
            while (open_ or self._texts) and not self._turn.over:
                if open_:
                    open_ = self._take(pile)
                if self._texts:
                    self._step()
        finally:
            self._admission.close(NotReady("the model was unloaded") if self._turn.over else why)

    def interrupt(self) -> None:
        """Ends what it computes, and whatever it would compute later."""
        self._turn.interrupt()

    def interrupt_unwanted(self) -> float:
        """Ends what it computes when nobody waits for it; for how many seconds it has not heeded that, else 0."""
        return self._turn.interrupt_unwanted()

    def _take(self, pile: Pile) -> bool:
        """Lets texts in; False once the pile is closed."""
        try:
            return self._admission.take(pile)
        except Exception as error:
            self._fail_all("a text that begins", error)
            return True

    def _step(self) -> None:
        """One chunk of one prompt, if there is one to be read, and one token of all others."""
        self._end_unwanted()
        if not self._texts:
            return
        self._turn.begin([text.item for text in self._texts])
        try:
            self._prefill_chunk()
            self._decode()
        except ExecutorBroken:
            raise
        except Exception as error:
            self._fail(error)
        finally:
            self._turn.end()
        self._end_finished()

    def _prefill_chunk(self) -> None:
        """The next chunk of the prompt whose turn it is."""
        turn = self._prefill.next(self._texts)
        if turn is None:
            return
        place, chunk = turn
        text = self._texts[place]
        try:
            self._graph.read(self._slots, place, chunk)
        except Exception as error:
            if self._turn.over or not is_wanted(text.item):
                return
            log.error("a prompt of %d tokens failed", len(text.item.ask.prompt), exc_info=error)
            text.fail(self._failure_of(error))  # nobody else's keys and values were touched
            self._count_failure()
            return
        text.read(len(chunk))
        self._meter.texts.prompt(computed=len(chunk), cached=self._prefill.give(self._texts, place))

    def _decode(self) -> None:
        """One token of each text whose prompt is read: those are put first, since a run is over neighbours."""
        decoding = self._put_first()
        if not decoding:
            return
        started = time.perf_counter()
        logits = self._graph.step(self._slots, [text.following(1)[0] for text in self._texts[:decoding]])
        self._failures = 0
        self._meter.batch(decoding, 0.0, time.perf_counter() - started)
        came = [self._decoded(text, logits[place]) for place, text in enumerate(self._texts[:decoding])]
        self._meter.texts.generated(sum(came))

    def _decoded(self, text: Text, logits: Values) -> bool:
        """Its next token has been computed; True when another has come of it."""
        begins = not text.generated
        text.stepped()
        came = text.append(logits)
        if begins:
            self._meter.texts.prompt(computed=1)
        if begins and came:
            self._meter.texts.first(text.first_seconds)
        return came

    def _put_first(self) -> int:
        """Exchanges places until those that are decoded come first; how many they are."""
        decoding = 0
        for place, text in enumerate(self._texts):
            if text.to_read:
                continue
            if place != decoding:
                self._slots.exchange(decoding, place)
                self._texts[decoding], self._texts[place] = self._texts[place], self._texts[decoding]
            decoding += 1
        return decoding

    def _end_unwanted(self) -> None:
        unwanted = [place for place, text in enumerate(self._texts) if text.item.done or not is_wanted(text.item)]
        for place in unwanted:
            self._admission.tell_ended(self._texts[place])
        self._end(unwanted)

    def _end_finished(self) -> None:
        ended = [place for place, text in enumerate(self._texts) if text.reason is not None]
        for place in ended:
            self._texts[place].finish()
            self._admission.tell_ended(self._texts[place])
        for wake in {text.item.wake for text in self._texts}:
            wake()
        self._end(ended)  # which copies keys and values: whoever reads a text needs not wait for it

    def _end(self, places: Sequence[int]) -> None:
        """Those in these places leave, the last first."""
        try:
            for place in reversed(places):
                self._admission.end(place)
        except Exception as error:
            self._fail_all("a text that leaves", error)

    def _fail(self, error: Exception) -> None:
        """A run that fails leaves no text whole: all in progress end. ExecutorBroken when that happens again and
        again. One that was ended because nobody waits for any of its texts is none."""
        if self._turn.over or not any(is_wanted(text.item) for text in self._texts):
            return
        self._fail_all("a step", error)

    def _fail_all(self, what: str, error: Exception) -> None:
        log.error("%s failed beside %d texts", what, len(self._texts), exc_info=error)
        self._admission.fail_all(self._failure_of(error))
        self._count_failure()

    def _failure_of(self, error: Exception) -> OrtmeshError:
        """ExecutorBroken when it is the device that failed: it would for all others too."""
        return failure_of_text(error, on_device=self._graph.on_device)

    def _count_failure(self) -> None:
        self._failures += 1
        if self._failures >= FAILURES:
            raise ExecutorBroken(f"{FAILURES} runs in a row failed")


def open_graph(session: InterruptibleSession, head_size: int | None = None) -> CausalGraph:
    """Where its session computes: on a device's stream, or else on the host."""
    return HostGraph(session, head_size) if session.stream is None else DeviceGraph(session, session.stream, head_size)
