"""The engine: admits texts at every step, computes one token of each a step, ends each alone. Stage: executor.

A step is one run over the slots of all texts in progress, and at most one chunk of one prompt: so a long prompt holds
the others up for a chunk at a time, and prompts take turns. Continuous batching: Yu et al. 2022 (Orca); chunked
prompts: Agrawal et al. 2023 (Sarathi).
"""

from __future__ import annotations

import logging
import time
from pathlib import Path

import numpy as np

from ortmesh.errors import BadInput, ExecutorFailed, NotReady, OrtmeshError
from ortmesh.serving.cards import Card, EngineSettings
from ortmesh.serving.executor.engine.ask import PROMPT, TextItem
from ortmesh.serving.executor.engine.graph import CausalGraph
from ortmesh.serving.executor.engine.prefill import Prefill
from ortmesh.serving.executor.engine.probe import DEPENDENT, probe
from ortmesh.serving.executor.engine.slots import LEAST_ROWS, Values
from ortmesh.serving.executor.engine.text import Text
from ortmesh.serving.executor.failures import ExecutorBroken, failure_of
from ortmesh.serving.executor.loop import is_wanted
from ortmesh.serving.executor.sessions import Sessions
from ortmesh.serving.executor.turn import Turn
from ortmesh.serving.signature import Signature, TensorInfo
from ortmesh.serving.tensors import dtype_of
from ortmesh.serving.types import Item, Meter, Pile

log = logging.getLogger(__name__)

KEPT_SECONDS = 300.0
"""Ended texts are kept so long when nothing comes."""
FAILURES = 3
"""So many steps in a row that fail, and the executor is made anew."""


class EngineExecutor:
    """Generates texts with one session. `serve` belongs in a thread of its own."""

    def __init__(self, graph: CausalGraph, sessions: Sessions, settings: EngineSettings, *, meter: Meter) -> None:
        self._graph = graph
        self._settings = settings
        self._meter = meter
        self._slots = graph.slots(slots=settings.slots, length=settings.context)
        self._texts: list[Text] = []
        """In the slots of their places."""
        self._waiting: TextItem | None = None
        """Taken from the pile, and waiting for others' tokens to be free. Only one: the others wait in the pile, where
        callers take turns."""
        self._independent = True
        """False when texts would depend on each other: then there is one at a time, and nothing is kept."""
        self._prefill = Prefill(self._slots)
        self._failures = 0
        self._least_rows = LEAST_ROWS
        self._sessions = sessions
        self._turn = Turn(sessions)

    @classmethod
    def load(cls, card: Card, folder: Path, sessions: Sessions, *, meter: Meter) -> EngineExecutor:
        """Opens the session. ValueError for a graph that is none of a causal language model."""
        assert card.runtime.engine is not None
        graph = CausalGraph(sessions.open(folder / card.graph), card.runtime.engine.head_size)
        return cls(graph, sessions, card.runtime.engine, meter=meter)

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
        """Computes a few tokens: what fails here would fail for every text. Finds out whether a text alone needs an
        idle row beside it, and whether texts depend on each other: why, or nothing when they do not."""
        found = probe(self._graph, self._slots)
        self._least_rows, self._independent = found.least_rows, found.independent
        return "" if found.independent else DEPENDENT

    @property
    def _slots_used(self) -> int:
        """How many texts there may be at once."""
        return self._settings.slots if self._independent else 1

    def serve(self, pile: Pile) -> None:
        """Generates until the pile closes and all texts have ended; ExecutorBroken when it can't go on."""
        open_, why = True, ExecutorFailed("the model's executor broke while it generated this text")
        try:
            self._tell_held()
            while (open_ or self._texts or self._waiting) and not self._turn.over:
                self._admit()
                if open_:
                    open_ = self._take(pile)
                if self._texts:
                    self._step()
        finally:
            self._leave(NotReady("the model was unloaded") if self._turn.over else why)

    def _leave(self, error: OrtmeshError) -> None:
        """Nothing is generated any more."""
        for text in self._texts:
            text.fail(error)
            self._tell_ended(text)
        if self._waiting is not None:
            self._waiting.fail(error)
        self._meter.texts.held(0, reserved=0, kept=0, budget=self._settings.tokens)

    def interrupt(self) -> None:
        """Ends what it computes, and whatever it would compute later."""
        self._turn.interrupt()

    def interrupt_unwanted(self) -> float:
        """Ends what it computes when nobody waits for it; for how many seconds it has not heeded that, else 0."""
        return self._turn.interrupt_unwanted()

    def _take(self, pile: Pile) -> bool:
        """Takes what there is room for; waits only when nothing is in progress. False once the pile is closed."""
        while self._waiting is None and len(self._texts) < self._slots_used:
            items = pile.take(1, 0.0 if self._texts else KEPT_SECONDS)
            if items is None:
                return False
            if not items:
                self._rest()
                return True
            self._waiting = self._accepted(items[0])
            self._admit()
        return True

    def _accepted(self, item: Item) -> TextItem | None:
        """An item that the graph can compute; None for one that has failed."""
        if not isinstance(item, TextItem):
            item.fail(BadInput("", "the model generates texts, and has no tensors to give"))
            return None
        prompt = item.ask.prompt
        if not len(prompt) or prompt.min() < 0 or prompt.max() >= self._graph.vocabulary:
            item.fail(BadInput("prompt", f"expected tokens from 0 to {self._graph.vocabulary - 1}, at least one"))
            return None
        if any(not 0 <= token < self._graph.vocabulary for token in item.ask.sampling.bias):
            item.fail(BadInput("sampling.logit_bias", f"expected tokens from 0 to {self._graph.vocabulary - 1}"))
            return None
        return item

    def _admit(self) -> None:
        """Gives a slot to the one that waits, if there are as many tokens as it may need."""
        item = self._waiting
        if item is None:
            return
        if is_wanted(item):
            growing = self._reserved
            if growing + item.size > self._settings.tokens and self._texts:
                return
            self._make_room(growing + item.size)
            place = len(self._texts)
            cached = self._slots.begin(place, item.ask.prompt, place) if self._independent else 0
            self._texts.append(Text(item, self._slots.held[place], cached))
            self._meter.texts.prompt(cached=cached)
            self._tell_held()
        else:
            self._meter.dropped("expired" if item.late else "cancelled")
        self._waiting = None

    def _rest(self) -> None:
        """Nothing has come for long: what was kept is given back."""
        if not self._texts:
            self._slots.forget_kept(0)
            self._sessions.shrink()
            self._tell_held()

    @property
    def _reserved(self) -> int:
        """How many tokens the texts in progress may have together."""
        return sum(text.item.size for text in self._texts)

    @property
    def _kept(self) -> int:
        """How many tokens of ended texts are there."""
        return sum(len(each.tokens) for each in self._slots.held[len(self._texts) :])

    def _tell_held(self) -> None:
        """Who came or left changes what is held, and nothing else."""
        budget = self._settings.tokens
        self._meter.texts.held(len(self._texts), reserved=self._reserved, kept=self._kept, budget=budget)

    def _make_room(self, growing: int) -> None:
        """Ended texts are forgotten for those that grow, which may need so many tokens."""
        over = growing + self._kept - self._settings.tokens
        if over > 0:
            self._slots.forget_kept(len(self._texts), over)

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
            self._graph.run(self._slots, place, np.array([chunk], np.int64), [text.length + len(chunk)])
        except Exception as error:
            if self._turn.over or not is_wanted(text.item):
                return
            log.error("a prompt of %d tokens failed", len(text.item.ask.prompt), exc_info=error)
            text.fail(_failure(error))  # nobody else's keys and values were touched
            self._count_failure()
            return
        text.computed(len(chunk))
        self._meter.texts.prompt(computed=len(chunk), cached=self._prefill.give(self._texts, place))
        self._failures = 0

    def _decode(self) -> None:
        """One token of each text whose prompt is read: those are put first, since a run is over neighbours."""
        growing = self._put_first()
        if not growing:
            return
        started = time.perf_counter()
        rows = max(growing, self._least_rows)
        # An idle row writes behind what its slot holds: that may be a prompt that is being read.
        ids, lengths = np.zeros((rows, 1), np.int64), [len(self._slots.held[row].tokens) + 1 for row in range(rows)]
        for place, text in enumerate(self._texts[:growing]):
            ids[place, 0] = text.following(1)[0]
        logits = self._graph.run(self._slots, 0, ids, lengths)
        self._failures = 0
        self._meter.batch(growing, 0.0, time.perf_counter() - started)
        came = [self._decoded(text, logits[place]) for place, text in enumerate(self._texts[:growing])]
        self._meter.texts.generated(sum(came))

    def _decoded(self, text: Text, logits: Values) -> bool:
        """Its next token has been computed; True when another has come of it."""
        begins = not text.generated
        text.computed(1)
        came = text.grow(logits)
        if begins:
            self._meter.texts.prompt(computed=1)
        if begins and came:
            self._meter.texts.first(text.first_seconds)
        return came

    def _put_first(self) -> int:
        """Exchanges places until the texts that grow come first; how many they are."""
        growing = 0
        for place, text in enumerate(self._texts):
            if text.unread > 1:
                continue
            if place != growing:
                self._slots.exchange(growing, place)
                self._texts[growing], self._texts[place] = self._texts[place], self._texts[growing]
            growing += 1
        return growing

    def _end_unwanted(self) -> None:
        for place in reversed(range(len(self._texts))):
            text = self._texts[place]
            if text.item.done or not is_wanted(text.item):
                self._tell_ended(text)
                self._end(place)

    def _end_finished(self) -> None:
        ended = [place for place, text in enumerate(self._texts) if text.reason is not None]
        for place in ended:
            self._texts[place].finish()
            self._tell_ended(self._texts[place])
        for wake in {text.item.wake for text in self._texts}:
            wake()
        for place in reversed(ended):  # which copies keys and values: whoever reads a text needs not wait for it
            self._end(place)

    def _tell_ended(self, text: Text) -> None:
        self._meter.texts.ended(text.outcome, text.token_seconds)

    def _end(self, place: int) -> None:
        """Its slot is the last one's now."""
        self._slots.end(place, len(self._texts), keep=self._independent)
        last = self._texts.pop()
        if place < len(self._texts):
            self._texts[place] = last
        self._tell_held()

    def _fail(self, error: Exception) -> None:
        """A run that fails leaves no text whole: all in progress end. ExecutorBroken when that happens again and
        again. One that was ended because nobody waits for any of its texts is none."""
        if self._turn.over or not any(is_wanted(text.item) for text in self._texts):
            return
        failure = _failure(error)
        log.error("a step of %d texts failed", len(self._texts), exc_info=error)
        for text in self._texts:
            text.fail(failure)
            self._tell_ended(text)
        while self._texts:
            self._slots.end(len(self._texts) - 1, len(self._texts), keep=False)
            self._texts.pop()
        self._slots.forget_kept(0)
        self._tell_held()
        self._count_failure()

    def _count_failure(self) -> None:
        self._failures += 1
        if self._failures >= FAILURES:
            raise ExecutorBroken(f"{FAILURES} runs in a row failed")


def _failure(error: Exception) -> OrtmeshError:
    """What a graph refuses here is nothing that a caller gave."""
    failure = failure_of(error, on_device=False)
    if isinstance(failure, BadInput):
        return ExecutorFailed("the model failed while it generated this text")
    return failure
