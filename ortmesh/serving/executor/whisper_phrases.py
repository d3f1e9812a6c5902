"""Phrases that a search favours: what a token gains by spelling one, and what is taken back. Stage: executor.

An automaton over token sequences (Aho and Corasick 1975): every token that spells a phrase on gains its boost at once,
so that the beam survives until the phrase is whole; where it breaks off, all of that is taken back.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from ortmesh.serving.types import Array

ROOT = 0
"""The state in which no phrase has begun."""


@dataclass(slots=True)
class _Node:
    """A beginning of phrases."""

    gain: float = 0.0
    """What its tokens have gained."""
    lost: float = 0.0
    """What of that is taken back when it breaks off here: not what shorter phrases within it keep."""
    whole: bool = False
    """True where a phrase is complete, unless its last word goes on."""
    next: dict[int, int] = field(default_factory=dict)
    """The nodes that continue it, by token."""
    fail: int = ROOT
    """The node of its longest end that begins a phrase too."""


class Phrases:
    """The phrases of one row. States are numbers, at first `ROOT`."""

    def __init__(self, phrases: Mapping[tuple[int, ...], float], continues: Array) -> None:
        """`phrases`: what each token of a phrase gains; `continues` [vocabulary]: True for tokens that go on with the
        word before them, so that no phrase is complete within a longer word."""
        self._continues = continues
        self._nodes = [_Node()]
        for tokens in sorted(phrases, key=len):  # so that a longer one knows the shorter ones within it
            self._add(tokens, phrases[tokens])
        self._link()

    def step(self, state: int, token: int) -> tuple[int, float]:
        """(the state after a token, what the token gains; less than nothing where a phrase breaks off)."""
        node = self._nodes[state]
        following = node.next.get(token)
        if following is not None:
            return following, self._nodes[following].gain - node.gain
        lost = 0.0 if self._keeps(node, token) else node.lost
        while following is None and state != ROOT:
            state = self._nodes[state].fail
            following = self._nodes[state].next.get(token)
        state = following or ROOT
        return state, self._nodes[state].gain - lost

    def tokens(self, states: Iterable[int]) -> set[int]:
        """Those that spell a phrase on, or begin one, in one of these states."""
        found = set(self._nodes[ROOT].next)
        for state in states:
            while state != ROOT:
                found.update(self._nodes[state].next)
                state = self._nodes[state].fail
        return found

    def _keeps(self, node: _Node, token: int) -> bool:
        """True when a token does not break off what a node has spelled: the phrase and its last word are whole."""
        return node.whole and not self._continues[token]

    def _add(self, tokens: tuple[int, ...], boost: float) -> None:
        place = ROOT
        for token in tokens:
            node = self._nodes[place]
            if token not in node.next:
                node.next[token] = len(self._nodes)
                self._nodes.append(_Node(node.gain + boost, boost + (0.0 if self._keeps(node, token) else node.lost)))
            place = node.next[token]
        self._nodes[place].whole = True

    def _link(self) -> None:
        """Breadth first: a node's end is an end of its parent's end, continued."""
        waiting = deque(self._nodes[ROOT].next.values())
        while waiting:
            node = self._nodes[waiting.popleft()]
            for token, place in node.next.items():
                waiting.append(place)
                fail = node.fail
                while token not in self._nodes[fail].next and fail != ROOT:
                    fail = self._nodes[fail].fail
                self._nodes[place].fail = self._nodes[fail].next.get(token, ROOT)
