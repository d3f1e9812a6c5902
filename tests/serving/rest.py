"""Rest: what an engine tells of its texts, so that tests wait until none is in progress, and not for a while."""

from __future__ import annotations

from threading import Event

from ortmesh.serving.text_meter import NoTextMeter
from ortmesh.serving.types import NoMeter

SECONDS = 100


class Rest(NoTextMeter):
    """A meter of texts.

    An engine tells of a text when it is admitted, before its caller can hear of it, and that none is left when it has
    ended all: later than their callers hear. So once some have been answered, `wait` is for all of them.
    """

    def __init__(self) -> None:
        self.reasons: list[str] = []
        """Why texts ended, in their order."""
        self.most = 0
        """So many were in progress at once."""
        self.most_kept = 0
        """So many tokens of ended ones were kept at once."""
        self.state = (0, 0, 0)
        """Texts, tokens that are reserved for them, tokens that are kept."""
        self._none, self._empty = Event(), Event()

    def ended(self, reason: str, token_seconds: float | None) -> None:
        """One more."""
        self.reasons.append(reason)

    def held(self, texts: int, *, reserved: int, kept: int, budget: int) -> None:
        """Tells who waits."""
        self.state = (texts, reserved, kept)
        self.most, self.most_kept = max(self.most, texts), max(self.most_kept, kept)
        _set(self._none, not texts)
        _set(self._empty, not texts and not kept)

    def wait(self, seconds: float = SECONDS) -> None:
        """Returns when no text is in progress."""
        assert self._none.wait(seconds), f"{self.state[0]} texts are still in progress"

    def wait_empty(self, seconds: float = SECONDS) -> None:
        """Returns when nothing is kept either."""
        assert self._empty.wait(seconds), f"{self.state[2]} tokens are still kept"


def resting() -> tuple[NoMeter, Rest]:
    """(a model's meter, what it hears of texts)."""
    meter, rest = NoMeter(), Rest()
    meter.texts = rest
    return meter, rest


def _set(event: Event, state: bool) -> None:
    if state:
        event.set()
    else:
        event.clear()
