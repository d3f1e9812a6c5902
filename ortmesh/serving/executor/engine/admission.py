"""Admission: who gets a slot, within the budget of tokens, and what is kept of those that left. Stage: executor.

The budget is of all tokens in memory: what texts in progress may come to have is reserved for them, and what ended ones
left is kept in the rest until it is needed.

A text lasts long, so a caller who has some in progress leaves a few slots and an eighth of the budget to those who have
none: else one caller's texts would shut out all others until they end.
"""

from __future__ import annotations

import time

from ortmesh.errors import BadInput, OrtmeshError
from ortmesh.serving.cards import EngineSettings
from ortmesh.serving.executor.engine.ask import TextItem
from ortmesh.serving.executor.engine.graph import CausalGraph
from ortmesh.serving.executor.engine.slots import Slots
from ortmesh.serving.executor.engine.text import Text
from ortmesh.serving.executor.failures import failure_of_text
from ortmesh.serving.types import Item, Meter, Pile

KEPT_SECONDS = 300.0
"""Ended texts are kept so long when nothing comes."""
SHARE_FOR_OTHERS = 8
"""One of so many slots and tokens is for callers who have nothing in progress."""
PATIENCE_SECONDS = 2.0
"""A text that finds no room for so long is not overtaken by others that do."""
LOOK_SECONDS = 0.5
"""While all slots are taken, what nobody waits for any more is looked for that often."""


class Admission:
    """Who comes and who leaves: nobody else makes `texts` more or fewer. Belongs to the engine's thread."""

    def __init__(self, slots: Slots, graph: CausalGraph, settings: EngineSettings, *, meter: Meter) -> None:
        self.texts: list[Text] = []
        """Those in progress, in the slots of their places."""
        self.independent = True
        """False when texts would depend on each other: then there is one at a time, and nothing is kept."""
        self._stuck: Item | None = None
        """The first that found no room, though its caller has nothing in progress."""
        self._stuck_since = 0.0
        self._looked = 0.0
        self._slots = slots
        self._graph = graph
        self._settings = settings
        self._meter = meter

    def take(self, pile: Pile) -> bool:
        """Gives slots to those that wait, as far as there is room; waits only when nothing is in progress. False once
        the pile is closed."""
        while len(self.texts) < self._most:
            item = pile.take_first(self._has_room_for, 0.0 if self.texts else KEPT_SECONDS)
            if item is None:
                break
            self._admit(item)
        now = time.monotonic()
        if not self.texts:
            self._rest()
        elif now - self._looked > LOOK_SECONDS:
            self._looked = now
            pile.drop_unwanted()
        return not pile.closed

    def end(self, place: int) -> None:
        """A text that has ended leaves: its place is the last one's now. When this fails, no other text is whole."""
        active, last = len(self.texts), self.texts.pop()
        if place < len(self.texts):
            self.texts[place] = last
        self._slots.end(place, active, keep=self.independent)
        self.tell_held()

    def fail_all(self, error: OrtmeshError) -> None:
        """No text in progress is whole, nor what is kept: all end, and nothing stays."""
        self._fail_texts(error)
        while self.texts:
            self._slots.end(len(self.texts) - 1, len(self.texts), keep=False)
            self.texts.pop()
        self._slots.forget_kept(0)
        self.tell_held()

    def close(self, error: OrtmeshError) -> None:
        """Nothing is generated any more."""
        self._fail_texts(error)
        self.texts.clear()
        self._meter.texts.held(0, reserved=0, kept=0, budget=self._settings.tokens)

    def tell_held(self) -> None:
        """Who came or left changes what is held, and nothing else."""
        budget = self._settings.tokens
        self._meter.texts.held(len(self.texts), reserved=self._reserved, kept=self._kept, budget=budget)

    def tell_ended(self, text: Text) -> None:
        """Why, and how quick it was; once."""
        if not text.told:
            text.told = True
            self._meter.texts.ended(text.outcome, text.token_seconds)

    @property
    def _most(self) -> int:
        """Texts that there may be at once."""
        return self._settings.slots if self.independent else 1

    def _has_room_for(self, item: Item) -> bool:
        """True when an item may begin now: asked of each caller's first, in fair order."""
        if not self.texts:
            return True
        has_some = bool(item.caller) and any(text.item.caller == item.caller for text in self.texts)
        if self._fits(item, spare=has_some):
            return not self._kept_for_another(item)
        if not has_some and self._stuck is None:
            self._stuck, self._stuck_since = item, time.monotonic()
        return False

    def _fits(self, item: Item, *, spare: bool) -> bool:
        """True when there are a slot and as many tokens as it may need; with `spare` beside what is for others."""
        slots, tokens = self._most, self._settings.tokens
        if spare:
            slots, tokens = slots - slots // SHARE_FOR_OTHERS, tokens - tokens // SHARE_FOR_OTHERS
        return len(self.texts) < slots and self._reserved + item.size <= tokens

    def _kept_for_another(self, item: Item) -> bool:
        """True when what is free is kept for one that has waited long for room, and is wanted still."""
        stuck = self._stuck
        if stuck is not None and (stuck is item or stuck.done or stuck.cancelled or stuck.expired):
            self._stuck = None
        return self._stuck is not None and time.monotonic() - self._stuck_since > PATIENCE_SECONDS

    def _admit(self, item: Item) -> None:
        """Gives it a slot, if the graph can compute it."""
        if item is self._stuck:
            self._stuck = None
        if not isinstance(item, TextItem):
            item.fail(BadInput("", "the model generates texts, and has no tensors to give"))
            return
        prompt = item.ask.prompt
        if not len(prompt) or prompt.min() < 0 or prompt.max() >= self._graph.vocabulary:
            item.fail(BadInput("prompt", f"expected tokens from 0 to {self._graph.vocabulary - 1}, at least one"))
            return
        if any(not 0 <= token < self._graph.vocabulary for token in item.ask.sampling.bias):
            item.fail(BadInput("sampling.logit_bias", f"expected tokens from 0 to {self._graph.vocabulary - 1}"))
            return
        self._make_room(self._reserved + item.size)
        self._begin(item)

    def _begin(self, item: TextItem) -> None:
        """In the first slot behind those in progress. What goes wrong here is its failure, and all others'."""
        place = len(self.texts)
        try:
            cached = self._slots.begin(place, item.ask.prompt, place) if self.independent else 0
        except Exception as error:
            item.fail(failure_of_text(error, on_device=False))  # who catches it looks at the device
            self._meter.texts.ended("error", None)
            raise
        self.texts.append(Text(item, self._slots.held[place], cached, self._slots.least_read))
        self._meter.texts.prompt(cached=cached)
        self.tell_held()

    def _fail_texts(self, error: OrtmeshError) -> None:
        for text in self.texts:
            text.fail(error)
            self.tell_ended(text)

    def _rest(self) -> None:
        """Nothing has come for long: what was kept is given back."""
        if not self.texts:
            self._graph.rest(self._slots)
            self.tell_held()

    @property
    def _reserved(self) -> int:
        """How many tokens the texts in progress may have together."""
        return sum(text.item.size for text in self.texts)

    @property
    def _kept(self) -> int:
        """How many tokens of ended texts are there."""
        return sum(len(each.tokens) for each in self._slots.held[len(self.texts) :])

    def _make_room(self, reserved: int) -> None:
        """Ended texts are forgotten for those in progress, which may need so many tokens."""
        over = reserved + self._kept - self._settings.tokens
        if over > 0:
            self._slots.forget_kept(len(self.texts), over)
