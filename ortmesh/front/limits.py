"""FrontLimits: how much a process takes in before it says no. Stage: front."""

from __future__ import annotations

from dataclasses import dataclass, field

from ortmesh.config import cpus

MIB = 1024 * 1024
MAX_METADATA_BYTES = 32 * 1024
"""Of one call, each entry counted with HTTP/2's 32 more: what the gateway lets pass must not be refused behind it."""


@dataclass(frozen=True, slots=True)
class FrontLimits:
    """Bounds of one front. A method's own limits (size of a message, default deadline) are in its proto."""

    max_calls: int = 1024
    """Unary calls in flight; one more is answered RESOURCE_EXHAUSTED."""
    max_bytes: int = 512 * MIB
    """Bytes of the requests of all calls in flight, unary and streams together."""
    max_slow_bytes: int = 128 * MIB
    """Bytes of messages that take over 0.1 s to arrive, each counted as large as its method allows (grpcio alone:
    behind the native adapter's addresses nobody is slow)."""
    max_streams: int = 256
    """Streams in flight, of either side; they have permits of their own, so that they can't starve unary calls."""
    pool_threads: int = field(default_factory=cpus)
    """Threads in which the tasks' pure functions run."""
    pool_max_bytes: int = 256 * MIB
    """Bytes of arguments that wait or run in the pool before a call's first function is refused."""
    drain_seconds: float = 2.0
    """How long a draining front goes on serving after health said NOT_SERVING: until balancers have seen it."""
    stall_seconds: float = 20.0
    """How long a stream waits for a reader that takes nothing before the reader is dropped."""
