"""Prefill: whose prompt is read next, and who else gets what was read of it. Stage: executor.

Prompts are computed in chunks; callers take turns, and so do the texts of each. Those that begin alike (choices of one
request, a system prompt that many send at once) are computed once: one of them is read, and after each chunk its keys
and values are copied to the others, which wait for it as long as that saves them work. When that one leaves, another is
read on from there.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from ortmesh.serving.executor.engine.graph import CausalGraph
from ortmesh.serving.executor.engine.slots import Slots, common, usable
from ortmesh.serving.executor.engine.text import Text


class Prefill:
    """Of the texts in progress, in the slots of their places. Belongs to the engine's thread."""

    def __init__(self, slots: Slots, graph: CausalGraph) -> None:
        self._slots = slots
        self._graph = graph
        self._turns: dict[Hashable, int] = {}
        """The last turn of each caller and of each text."""
        self._turn = 0

    def next(self, texts: Sequence[Text]) -> tuple[int, list[int]] | None:
        """(the place of the text whose turn it is, the next chunk of its prompt); None when there is none to read."""
        prefilling = [place for place, text in enumerate(texts) if text.to_read]
        ready = [
            place for place in prefilling if not any(self._waits(texts[place], texts[other]) for other in prefilling)
        ]
        if not ready:
            return None
        place = min(ready, key=lambda place: [self._turns.get(each, 0) for each in _takers(texts[place])])
        self._turn += 1
        self._turns.update(dict.fromkeys(_takers(texts[place]), self._turn))
        there = {each for text in texts for each in _takers(text)}
        self._turns = {each: turn for each, turn in self._turns.items() if each in there}
        text = texts[place]
        count = self._graph.chunk(self._slots, text.length, text.to_read, alone=len(prefilling) == len(texts))
        return place, text.following(count)

    def give(self, texts: Sequence[Text], place: int) -> int:
        """Copies what was read of a text to those that begin alike: how many tokens they got."""
        source, given = texts[place], 0
        for other, text in enumerate(texts):
            gain = self._gain(text, source, source.length) if other != place and text.to_read else 0
            if gain:
                self._slots.copy(place, other, text.length, text.length + gain)
                text.took(gain)
                given += gain
        return given

    def _waits(self, text: Text, other: Text) -> bool:
        """True when another's prompt is read before this one, and will spare it work. Nobody waits for itself, in a
        circle neither: who has more, or else came first, is read."""
        before = (-other.length, other.item.arrival, id(other)) < (-text.length, text.item.arrival, id(text))
        return before and self._gain(text, other, len(other.prompt) - 1) > 0

    def _gain(self, text: Text, other: Text, tokens: int) -> int:
        """How many tokens a text lacks that are among so many of another's prompt, and may be taken from there."""
        return usable(
            len(text.prompt), common(text.prompt, other.prompt[:tokens]), text.length, least_read=self._slots.least_read
        )


def _takers(text: Text) -> tuple[Hashable, Hashable]:
    """Who takes turns: callers, then the texts of each. A text of which nobody knows whose it is, is a caller."""
    return text.item.caller or id(text), id(text)
