"""Slots: the keys and values of texts in progress, and of texts that have ended and may be continued. Stage: executor.

One buffer a layer and side, [slots, heads, length, head size]: a graph with GroupQueryAttention takes a run of slots as
past and present at once, and writes what is new where it belongs. The texts in progress are the first slots, so that a
step is one run without a copy; those behind keep the beginnings of ended texts (a conversation goes on, a system prompt
comes again) until their memory is needed.
"""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int64]
Values = npt.NDArray[np.float32]

LEAST_ROWS = 2
"""On some CPUs a run of one row takes another kernel than a run of several, and rounds differently: there a text that
is alone has an idle row beside it, so that it is the same text among others. So nothing is kept in the second slot."""
SPARE = 64
"""Tokens behind what a slot holds whose memory it may have kept: to give back less takes longer than it is worth."""
LEAST_KEPT = 16
"""A shorter beginning is computed in one step anyway."""


@dataclass(slots=True)
class Held:
    """What a slot holds."""

    tokens: list[int] = field(default_factory=list)
    """Those whose keys and values are there."""
    read: int = 0
    """How many of them, from the first on, were computed several at a time. One alone takes another kernel and rounds
    differently, so only these are given to other texts: what a text becomes does not depend on what was before."""
    used: int = 0
    """When it was used last: a step's number."""


class Slots:
    """Belongs to the engine's thread."""

    def __init__(self, layers: int, heads: int, head_size: int, *, slots: int, length: int) -> None:
        """`length` is the most tokens of a text. Memory is taken where it is written, not before."""
        self.count = max(slots, LEAST_ROWS)
        self.length = length
        self._maps: list[mmap.mmap] = []
        self.buffers = [self._buffer((self.count, heads, length, head_size)) for _ in range(2 * layers)]
        """Keys and values of each layer in turns."""
        self.held = [Held() for _ in range(self.count)]
        self._written = [0] * self.count
        """How many tokens of each slot may have memory, counted when it came to hold less."""
        self._step = 0

    @property
    def token_bytes(self) -> int:
        """Of one token's keys and values."""
        return sum(buffer[0, :, 0].nbytes for buffer in self.buffers)

    @property
    def tokens(self) -> int:
        """How many tokens all slots hold."""
        return sum(len(each.tokens) for each in self.held)

    def rows(self, first: int, last: int) -> list[Values]:
        """The buffers of slots `first` to `last` (exclusive)."""
        return [buffer[first:last] for buffer in self.buffers]

    def begin(self, slot: int, prompt: Ids, active: int) -> int:
        """Makes a slot ready for a text: how many tokens of its prompt are there already (see `usable`).

        Those of the slot that shares the longest beginning are copied. `active` slots, from the first on, are in
        progress; what was kept in this slot moves to one that was used less lately.
        """
        self._step += 1
        source, alike = self._longest(prompt)
        shared = usable(len(prompt), alike)
        there = len(self.held[slot].tokens)
        if there and source != slot:
            self._move_away(slot, active, source)
        if shared and source != slot:
            self.copy(source, slot, 0, shared)
            self.held[source].used = self._step
        self.held[slot] = Held(prompt[:shared].tolist(), shared, self._step) if shared else Held()
        self._give_back_behind(slot, there)
        return shared

    def end(self, slot: int, active: int, *, keep: bool) -> None:
        """A text in progress has ended; the last of the `active` slots takes its place, so that they stay together.

        With `keep` its tokens stay where there is room behind them, unless another slot has them too; and those that
        begin as they do are not needed any more.
        """
        self._step += 1
        last, there = active - 1, len(self.held[slot].tokens)
        kept = self.held[slot] = self._worth_keeping(slot) if keep else Held()  # first: less is to be moved
        self._give_back_behind(slot, there)
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
        self._give_back(last)

    def copy(self, source: int, target: int, first: int, last: int) -> None:
        """Keys and values of tokens `first` to `last` (exclusive)."""
        for buffer in self.buffers:
            buffer[target, :, first:last] = buffer[source, :, first:last]

    def exchange(self, one: int, other: int) -> None:
        """Two texts in progress change places."""
        here, there = len(self.held[one].tokens), len(self.held[other].tokens)
        for buffer in self.buffers:
            kept = buffer[one, :, :here].copy()
            buffer[one, :, :there] = buffer[other, :, :there]
            buffer[other, :, :here] = kept
        self.held[one], self.held[other] = self.held[other], self.held[one]
        self._give_back_behind(one, here)
        self._give_back_behind(other, there)

    def forget(self, slot: int) -> None:
        """Nothing is kept of what a slot held, its memory neither."""
        if self.held[slot].tokens:
            self.held[slot] = Held()
            self._give_back(slot)

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
        self.copy(source, target, 0, len(held.tokens))
        self.held[target] = held
        self._give_back_behind(target, there)

    def _least_used(self, first: int, *, but: int) -> int | None:
        """Of the slots from `first` on, one that is free or was not used for longest."""
        choice = [slot for slot in range(first, self.count) if slot != but]
        return min(choice, key=lambda slot: (bool(self.held[slot].tokens), self.held[slot].used), default=None)

    def _buffer(self, shape: tuple[int, ...]) -> Values:
        memory = mmap.mmap(-1, int(np.prod(shape)) * 4, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._maps.append(memory)
        return np.frombuffer(memory, np.float32).reshape(shape)

    def _give_back(self, slot: int) -> None:
        """All its pages go back."""
        size = self.buffers[0][0].nbytes
        self._give_back_bytes(slot * size, (slot + 1) * size)
        self._written[slot] = 0

    def _give_back_behind(self, slot: int, there: int) -> None:
        """The pages behind what a slot holds go back; it has held `there` tokens."""
        held = len(self.held[slot].tokens)
        written = self._written[slot] = max(self._written[slot], there, held)
        if written - held < SPARE:
            return
        self._written[slot] = held
        strip = self.buffers[0][0, 0].nbytes
        token = strip // self.length
        for begin in range(slot * self.buffers[0][0].nbytes, (slot + 1) * self.buffers[0][0].nbytes, strip):
            self._give_back_bytes(begin + held * token, min(begin + written * token + mmap.PAGESIZE, begin + strip))

    def _give_back_bytes(self, first: int, last: int) -> None:
        """The whole pages between two places of each buffer go back to the system, where it can take them: they are
        zeros when they come again."""
        begin, end = -(-first // mmap.PAGESIZE) * mmap.PAGESIZE, last // mmap.PAGESIZE * mmap.PAGESIZE
        if end > begin and hasattr(mmap, "MADV_DONTNEED"):
            for memory in self._maps:
                memory.madvise(mmap.MADV_DONTNEED, begin, end - begin)


def usable(prompt: int, there: int, had: int = 0) -> int:
    """How many more tokens of a prompt of so many than are `had` may be taken over when its first ones are `there`.

    Those that are there were computed several at a time, as is all of a prompt but its last token: so it is all before
    that one, or it leaves at least two. 0 for so few that they are computed in one step anyway, unless they are all.
    """
    whole = prompt - 1
    if whole < 2:  # a prompt of two is computed one at a time
        return 0
    most = whole if there >= whole else min(there, whole - 2)
    return max(most - had, 0) if most == whole or most - had >= LEAST_KEPT else 0


def common(one: Sequence[int] | Ids, other: Sequence[int] | Ids) -> int:
    """How many tokens two texts have in common at their beginnings."""
    most = min(len(one), len(other))
    if not most or one[0] != other[0]:
        return 0
    differ = np.flatnonzero(np.asarray(one[:most]) != np.asarray(other[:most]))
    return int(differ[0]) if len(differ) else most
