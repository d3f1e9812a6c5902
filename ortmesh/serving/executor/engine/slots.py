"""Slots: the keys and values of texts in progress, and of texts that have ended and may be continued. Stage: executor.

The texts in progress are the first slots, so that a step is one run without a copy; those behind keep the beginnings of
ended texts (a conversation goes on, a system prompt comes again) until their memory is needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from ortmesh.serving.executor.engine.cache import Cache

Ids = npt.NDArray[np.int64]
Values = npt.NDArray[np.float32]

LEAST_ROWS = 2
"""On some CPUs a run of one row takes another kernel than a run of several, and rounds differently: there a text that
is alone has an idle row beside it, so that it is the same text among others. So nothing is kept in the second slot."""
LEAST_READ = 2
"""Tokens of a chunk of a prompt, where one alone takes another kernel than several."""
LEAST_KEPT = 16
"""A shorter beginning is computed in one step anyway."""


@dataclass(slots=True)
class Held:
    """What a slot holds."""

    tokens: list[int] = field(default_factory=list)
    """Those whose keys and values are there."""
    read: int = 0
    """How many of them, from the first on, were computed in chunks. A step takes other kernels and rounds differently,
    so only these are given to other texts: what a text becomes does not depend on what was before."""
    used: int = 0
    """When it was used last: a step's number."""


class Slots:
    """Belongs to the engine's thread."""

    def __init__(self, cache: Cache, least_read: int) -> None:
        """Of as many slots as the cache has, at least `LEAST_ROWS`; a chunk of a prompt has at least `least_read`
        tokens."""
        self.cache = cache
        self.least_read = least_read
        self.count = cache.shape.slots
        self.length = cache.shape.length
        """The most tokens of a text."""
        self.held = [Held() for _ in range(self.count)]
        self._step = 0

    @property
    def tokens(self) -> int:
        """How many tokens all slots hold."""
        return sum(len(each.tokens) for each in self.held)

    def begin(self, slot: int, prompt: Ids, active: int) -> int:
        """Makes a slot ready for a text: how many tokens of its prompt are there already (see `usable`).

        Those of the slot that shares the longest beginning are copied. `active` slots, from the first on, are in
        progress; what was kept in this slot moves to one that was used less lately.
        """
        self._step += 1
        source, alike = self._longest(prompt)
        shared = usable(len(prompt), alike, least_read=self.least_read)
        there = len(self.held[slot].tokens)
        if there and source != slot:
            self._move_away(slot, active, source)
        if shared and source != slot:
            self.copy(source, slot, 0, shared)
            self.held[source].used = self._step
        self.held[slot] = Held(prompt[:shared].tolist(), shared, self._step) if shared else Held()
        self._behind(slot, there)
        return shared

    def end(self, slot: int, active: int, *, keep: bool) -> None:
        """A text in progress has ended; the last of the `active` slots takes its place, so that they stay together.

        With `keep` its tokens stay where there is room behind them, unless another slot has them too; and those that
        begin as they do are not needed any more.
        """
        self._step += 1
        last, there = active - 1, len(self.held[slot].tokens)
        kept = self.held[slot] = self._worth_keeping(slot) if keep else Held()  # first: less is to be moved
        self._behind(slot, there)
        if slot != last:
            self.exchange(slot, last)
        for place in range(active, self.count) if kept.tokens else ():
            if common(kept.tokens, self.held[place].tokens) == len(self.held[place].tokens):
                self.forget(place)
        if last >= LEAST_ROWS and kept.tokens:
            return
        target = self._least_used(LEAST_ROWS, but=last) if kept.tokens else None
        if target is not None:
            self._put(target, kept, last)
        self.held[last] = Held()
        self.cache.forget(last)

    def copy(self, source: int, target: int, first: int, last: int) -> None:
        """Keys and values of tokens `first` to `last` (exclusive)."""
        self.cache.copy(source, target, first, last)

    def exchange(self, one: int, other: int) -> None:
        """Two texts in progress change places."""
        here, there = self.held[one], self.held[other]
        self.held[one], self.held[other] = Held(), Held()  # should it fail, neither is whole
        self.cache.exchange(one, other, len(here.tokens), len(there.tokens))
        self.held[one], self.held[other] = there, here

    def forget(self, slot: int) -> None:
        """Nothing is kept of what a slot held, its memory neither."""
        if self.held[slot].tokens:
            self.held[slot] = Held()
            self.cache.forget(slot)

    def forget_kept(self, active: int, tokens: int | None = None) -> None:
        """Forgets ended texts, the longest unused first, until so many tokens are free; all of them by default."""
        freed = 0
        for slot in sorted(range(active, self.count), key=lambda slot: self.held[slot].used):
            if tokens is not None and freed >= tokens:
                return
            freed += len(self.held[slot].tokens)
            self.forget(slot)

    def _longest(self, prompt: Ids) -> tuple[int, int]:
        """(the slot whose tokens begin most like the prompt, how many are alike)."""
        alike = [common(each.tokens[: each.read], prompt) for each in self.held]
        best = max(range(self.count), key=lambda slot: (alike[slot], slot))
        return best, alike[best]

    def _worth_keeping(self, slot: int) -> Held:
        """What of a text that ended other texts may have."""
        held = self.held[slot]
        kept = Held(held.tokens[: held.read], held.read, self._step)
        return Held() if held.read < LEAST_KEPT or self._has_another(slot, kept.tokens) else kept

    def _has_another(self, slot: int, tokens: Sequence[int]) -> bool:
        """True when these are the first tokens of another slot, which was used now, then."""
        for place, each in enumerate(self.held):
            if place != slot and common(each.tokens[: each.read], tokens) == len(tokens):
                each.used = self._step
                return True
        return False

    def _move_away(self, slot: int, active: int, needed: int) -> None:
        target = self._least_used(max(active, slot + 1, LEAST_ROWS), but=needed)
        if target is not None and self.held[target].used < self.held[slot].used:
            self._put(target, self.held[slot], slot)
        self.held[slot] = Held()

    def _put(self, target: int, held: Held, source: int) -> None:
        """A slot holds what another one does, instead of what it held."""
        there = len(self.held[target].tokens)
        self.held[target] = Held()  # should it fail, nothing is whole there
        self.copy(source, target, 0, len(held.tokens))
        self.held[target] = held
        self._behind(target, there)

    def _least_used(self, first: int, *, but: int) -> int | None:
        """Of the slots from `first` on, one that is free or was not used for longest."""
        choice = [slot for slot in range(first, self.count) if slot != but]
        return min(choice, key=lambda slot: (bool(self.held[slot].tokens), self.held[slot].used), default=None)

    def _behind(self, slot: int, before: int) -> None:
        """It holds something else than so many tokens that were there before."""
        self.cache.holds(slot, len(self.held[slot].tokens), before)


def usable(prompt: int, there: int, had: int = 0, *, least_read: int) -> int:
    """How many more tokens of a prompt of so many than are `had` may be taken over when its first ones are `there`.

    Those that are there were computed in chunks, as is all of a prompt but its last token: so it is all before that
    one, or it leaves as many as a chunk has at least. 0 for so few that they are computed in one step anyway, unless
    they are all.
    """
    whole = prompt - 1
    if whole < least_read:  # where it is two, a prompt of two is computed one at a time
        return 0
    most = whole if there >= whole else min(there, whole - least_read)
    return max(most - had, 0) if most == whole or most - had >= LEAST_KEPT else 0


def common(one: Sequence[int] | Ids, other: Sequence[int] | Ids) -> int:
    """How many tokens two texts have in common at their beginnings."""
    most = min(len(one), len(other))
    if not most or one[0] != other[0]:
        return 0
    differ = np.flatnonzero(np.asarray(one[:most]) != np.asarray(other[:most]))
    return int(differ[0]) if len(differ) else most
