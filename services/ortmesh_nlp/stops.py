"""Stops: a text as it may be shown: nothing of what ends it is ever sent. Stage: task."""

from __future__ import annotations

from collections.abc import Sequence

from ortmesh.errors import BadInput

MAX_STOPS, MAX_CHARACTERS = 16, 256


def check_stops(stops: Sequence[str]) -> None:
    """BadInput unless there are at most 16 of 1 to 256 characters."""
    if len(stops) > MAX_STOPS:
        raise BadInput("stop", f"{len(stops)} texts: expected at most {MAX_STOPS}")
    for place, stop in enumerate(stops):
        if not 1 <= len(stop) <= MAX_CHARACTERS:
            raise BadInput(f"stop[{place}]", f"{len(stop)} characters: expected 1 to {MAX_CHARACTERS}")


class Stops:
    """Holds back what may be the beginning of a text that ends it."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._held = ""
        self.reached = False
        """True once one of them came."""

    def push(self, text: str) -> str:
        """What may be shown now that `text` has come."""
        if not self._stops or self.reached:
            return "" if self.reached else text
        held = self._held + text
        found = [place for stop in self._stops if (place := held.find(stop)) >= 0]
        if found:
            self.reached, self._held = True, ""
            return held[: min(found)]
        keep = max(_begun(held, stop) for stop in self._stops)
        self._held = held[len(held) - keep :]
        return held[: len(held) - keep]

    def rest(self) -> str:
        """What was held back for nothing: the text has ended."""
        rest, self._held = self._held, ""
        return rest


def _begun(held: str, stop: str) -> int:
    """How many characters at the end of a text are the beginning of a stop."""
    for length in range(min(len(stop) - 1, len(held)), 0, -1):
        if held.endswith(stop[:length]):
            return length
    return 0
