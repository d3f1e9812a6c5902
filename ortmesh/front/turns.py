"""Turns: what waits, by who asked for it: callers take turns, so that one's flood does not hold up another's.
Stage: front."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")

AT_ONCE = 8
"""Calls that begin in one turn of the loop: some 0.1 ms each, so that whoever comes waits for a millisecond."""


class Turns(Generic[T]):
    """First come first served for each caller, and callers in turns. Not thread-safe."""

    def __init__(self) -> None:
        self._callers: dict[str, deque[T]] = {}
        """Whose turn is next comes first."""

    def __bool__(self) -> bool:
        return bool(self._callers)

    def append(self, caller: str, one: T) -> None:
        """The last of its caller's."""
        line = self._callers.get(caller)
        if line is None:
            line = self._callers[caller] = deque()
        line.append(one)

    def next(self) -> T:
        """Takes the one whose turn it is. There must be one."""
        caller = next(iter(self._callers))
        line = self._callers.pop(caller)
        one = line.popleft()
        if line:
            self._callers[caller] = line
        return one

    def clear(self) -> list[T]:
        """Takes all of them."""
        all_of_them = [one for line in self._callers.values() for one in line]
        self._callers.clear()
        return all_of_them


class Entry:
    """Lets calls begin on the loop a few at a time, callers in turns: what has begun is not held up by a burst of
    others' beginnings, nor is who comes next."""

    def __init__(self) -> None:
        self._waiting: Turns[asyncio.Future[None]] = Turns()
        self._begun = 0
        """In this turn of the loop."""

    async def turn(self, caller: str) -> None:
        """Returns when a call may begin: at once unless many do."""
        loop = asyncio.get_running_loop()
        if not self._begun:
            loop.call_soon(self._next)
        if self._begun < AT_ONCE and not self._waiting:
            self._begun += 1
            return
        future: asyncio.Future[None] = loop.create_future()
        self._waiting.append(caller, future)
        await future

    def _next(self) -> None:
        self._begun = 0
        while self._waiting and self._begun < AT_ONCE:
            future = self._waiting.next()
            if not future.done():  # else its call was cancelled
                future.set_result(None)
                self._begun += 1
        if self._begun:
            asyncio.get_running_loop().call_soon(self._next)
