"""Call: the one value that travels with a request, and the pool in which its pure functions run. Stage: front."""

from __future__ import annotations

import math
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from ortmesh.errors import Cancelled, Expired

if TYPE_CHECKING:
    from opentelemetry.trace import Span

    from ortmesh.front.pool import Pool

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


class Call:
    """What a function needs to know of the request it works for. All times are `time.monotonic()` seconds.

    The front makes one for every call and ends it after the answer was sent: then what was borrowed for the
    call (leases of models) is given back.
    """

    __slots__ = (
        "_cancelled",
        "_on_end",
        "admitted",
        "arrival",
        "caller",
        "deadline",
        "metadata",
        "method",
        "pool",
        "pool_bytes",
        "priority",
        "span",
    )

    def __init__(
        self,
        method: str,
        pool: Pool,
        deadline: float = math.inf,
        caller: str = "",
        priority: int = 0,
        metadata: Mapping[str, str | bytes] | None = None,
        span: Span | None = None,
        arrival: float | None = None,
    ) -> None:
        self.method = method
        """The full path, e.g. `/ortmesh.nlp.v1.NlpService/Embed`."""
        self.pool = pool
        self.pool_bytes = 0
        """Bytes of its functions' arguments in the pool now."""
        self.admitted = False
        """True once a model took work of this call: its later stages are never refused, in no pile nor the pool."""
        self.arrival = time.monotonic() if arrival is None else arrival
        self.deadline = deadline
        self.caller = caller
        """Who calls, as the gateway says; empty without identity. Only for fairness and permission."""
        self.priority = priority
        """Higher goes first; 0 is normal."""
        self.metadata = metadata or {}
        self.span = span
        """The span of the service's part of a sampled trace, or None."""
        self._cancelled = False
        self._on_end: list[Callable[[], None]] = []

    @property
    def cancelled(self) -> bool:
        """True once the caller left or the call ended: its queued work must not run."""
        return self._cancelled

    def cancel(self) -> None:
        """Marks the call as left by its caller. Called by the front, from any thread."""
        self._cancelled = True

    def remaining(self) -> float:
        """Seconds to the deadline; infinite without one, negative past it."""
        return self.deadline - time.monotonic()

    def check(self) -> None:
        """Raises Cancelled or Expired when the call is worth no more work."""
        if self._cancelled:
            raise Cancelled("the caller left")
        if self.remaining() <= 0:
            raise Expired("the deadline passed")

    async def in_pool(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Runs a pure function in the pool's threads; drops it if the call expires while it waits there."""
        return await self.pool.run(self, function, *args, **kwargs)  # type: ignore[arg-type]  # `nbytes` is the pool's own

    async def each(self, items: Iterable[T], *, together: int = 1) -> AsyncGenerator[T]:
        """The items, made in the pool's threads, `together` at a time and only when they are asked for."""
        following = iter(items)
        more = True
        while more:
            made = await self.in_pool(_next, following, together)
            more = len(made) == together
            for item in made:
                yield item

    def split(self, *, admitted: bool = False) -> Call:
        """A call for a part of this one's work, which can be cancelled alone; whoever makes it ends or cancels it.
        With `admitted` its work is refused as little as that of this call."""
        part = Call(self.method, self.pool, self.deadline, self.caller, self.priority, self.metadata, self.span)
        part.admitted = admitted
        return part

    @contextmanager
    def part(self) -> Iterator[Call]:
        """A call for one message of a stream: what is borrowed for it goes back when that is answered."""
        part = self.split()
        try:
            yield part
        finally:
            part.end()

    def on_end(self, callback: Callable[[], None]) -> None:
        """Registers what to give back when the call ends."""
        self._on_end.append(callback)

    def end(self) -> None:
        """Gives back what was borrowed. Called once by the front, after the answer was handed over."""
        self._cancelled = True
        while self._on_end:
            self._on_end.pop()()


def _next(items: Iterator[T], count: int) -> list[T]:
    """So many items, or fewer where there are no more."""
    return list(islice(items, count))
