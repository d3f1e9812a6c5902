"""Admission: who gets a slot, within the budget of tokens, and what is kept of those that left. Stage: executor.

The budget is of all tokens in memory: what texts in progress may come to have is reserved for them, and what ended ones
left is kept in the rest until it is needed.
"""

from __future__ import annotations

from ortmesh.errors import BadInput, OrtmeshError
from ortmesh.serving.cards import EngineSettings
from ortmesh.serving.executor.engine.ask import TextItem
from ortmesh.serving.executor.engine.slots import Slots
from ortmesh.serving.executor.engine.text import Text
from ortmesh.serving.executor.loop import is_wanted
from ortmesh.serving.executor.sessions import Sessions
from ortmesh.serving.types import Item, Meter, Pile

KEPT_SECONDS = 300.0
"""Ended texts are kept so long when nothing comes."""


class Admission:
    """Who comes and who leaves: nobody else makes `texts` more or fewer. Belongs to the engine's thread."""

    def __init__(
        self, slots: Slots, sessions: Sessions, settings: EngineSettings, *, vocabulary: int, meter: Meter
    ) -> None:
        self.texts: list[Text] = []
        """Those in progress, in the slots of their places."""
        self.independent = True
        """False when texts would depend on each other: then there is one at a time, and nothing is kept."""
        self._waiting: TextItem | None = None
        """Taken from the pile, and waiting for others' tokens to be free. Only one: the others wait in the pile, where
        callers take turns."""
        self._slots = slots
        self._sessions = sessions
        self._settings = settings
        self._vocabulary = vocabulary
        self._meter = meter

    @property
    def idle(self) -> bool:
        """True when there is nothing to generate."""
        return not self.texts and self._waiting is None

    def take(self, pile: Pile) -> bool:
        """Takes what there is room for; waits only when nothing is in progress. False once the pile is closed."""
        most = self._settings.slots if self.independent else 1
        while self._waiting is None and len(self.texts) < most:
            items = pile.take(1, 0.0 if self.texts else KEPT_SECONDS)
            if items is None:
                return False
            if not items:
                self._rest()
                return True
            self._waiting = self._accepted(items[0])
            self.admit()
        return True

    def admit(self) -> None:
        """Gives a slot to the one that waits, if there are as many tokens as it may need."""
        item = self._waiting
        if item is None:
            return
        if is_wanted(item):
            reserved = self._reserved + item.size
            if reserved > self._settings.tokens and self.texts:
                return
            self._make_room(reserved)
            self._begin(item)
        else:
            self._meter.dropped("expired" if item.late else "cancelled")
        self._waiting = None

    def end(self, place: int) -> None:
        """A text that has ended leaves: its place is the last one's now."""
        self._slots.end(place, len(self.texts), keep=self.independent)
        last = self.texts.pop()
        if place < len(self.texts):
            self.texts[place] = last
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
        """Nothing is generated any more: the one that waits ends, too."""
        self._fail_texts(error)
        self.texts.clear()
        if self._waiting is not None:
            self._waiting.fail(error)
            self._waiting = None
        self._meter.texts.held(0, reserved=0, kept=0, budget=self._settings.tokens)

    def tell_held(self) -> None:
        """Who came or left changes what is held, and nothing else."""
        budget = self._settings.tokens
        self._meter.texts.held(len(self.texts), reserved=self._reserved, kept=self._kept, budget=budget)

    def tell_ended(self, text: Text) -> None:
        """Why, and how quick it was."""
        self._meter.texts.ended(text.outcome, text.token_seconds)

    def _accepted(self, item: Item) -> TextItem | None:
        """An item that the graph can compute; None for one that has failed."""
        if not isinstance(item, TextItem):
            item.fail(BadInput("", "the model generates texts, and has no tensors to give"))
            return None
        prompt = item.ask.prompt
        if not len(prompt) or prompt.min() < 0 or prompt.max() >= self._vocabulary:
            item.fail(BadInput("prompt", f"expected tokens from 0 to {self._vocabulary - 1}, at least one"))
            return None
        if any(not 0 <= token < self._vocabulary for token in item.ask.sampling.bias):
            item.fail(BadInput("sampling.logit_bias", f"expected tokens from 0 to {self._vocabulary - 1}"))
            return None
        return item

    def _begin(self, item: TextItem) -> None:
        """In the first slot behind those in progress."""
        place = len(self.texts)
        cached = self._slots.begin(place, item.ask.prompt, place) if self.independent else 0
        self.texts.append(Text(item, self._slots.held[place], cached))
        self._meter.texts.prompt(cached=cached)
        self.tell_held()

    def _fail_texts(self, error: OrtmeshError) -> None:
        for text in self.texts:
            text.fail(error)
            self.tell_ended(text)

    def _rest(self) -> None:
        """Nothing has come for long: what was kept is given back."""
        if not self.texts:
            self._slots.forget_kept(0)
            self._sessions.shrink()
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
