"""Kinds: every attack in one table, with how much of it a long and a short run send."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from bench.attack.door import Door
from bench.attack.loads import crowds, floods, headers, messages
from bench.attack.seen import Seen

HEAP_BYTES = 1_073_741_824
"""What the gateway may hold of all callers' messages: `ORTMESH_GATEWAY_MAX_HEAP_BYTES` as it comes."""

Load = Callable[[Door, Seen, int], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Kind:
    """One attack."""

    name: str
    says: str
    """What is sent; `{:,}` stands for the count."""
    load: Load
    count: int
    short_count: int
    """0: not part of a short run."""
    on_stream: bool = False
    """True where the target must have a long stream."""
    max_growth_bytes: int = 300_000_000
    """How much a process may take beyond its resting level."""

    def what(self, *, short: bool) -> str:
        """What a run sends, for a reader."""
        return self.says.format(self.short_count if short else self.count)


KINDS = (
    Kind("gzip", "600 KB of gzip that unpack to {:,} MB", messages.gzip_bomb, 600, 600),
    Kind("large", "a message of {:,} MB to a method of 4 MiB", messages.large_message, 500, 500),
    Kind("unfinished", "{:,} messages of 30 MB of which 25 MB come", messages.unfinished_messages, 10, 10),
    Kind(
        "hoard",
        "{:,} messages of 30 MB of which 25 MB come",
        messages.unfinished_messages,
        60,
        0,
        max_growth_bytes=HEAP_BYTES,
    ),
    Kind(
        "readers",
        "{:,} readers of a long stream with a window of 0",
        crowds.zero_window_readers,
        300,
        300,
        on_stream=True,
    ),
    Kind("reset", "10 × {:,} calls begun and reset at once", floods.rapid_reset, 10_000, 1_000),
    Kind("continuation", "10 × {:,} CONTINUATION frames of 16 KiB", headers.continuation_flood, 2_000, 200),
    Kind("headers", "200 header blocks of {:,} × 4 KB in a byte each", headers.header_bomb, 10_000, 2_000),
    Kind("unread", "10 × {:,} calls with 2 MB of headers, settings unread", headers.unacknowledged_headers, 1, 1),
    Kind("ping", "10 × {:,} pings, answers unread", floods.ping_flood, 100_000, 20_000),
    Kind("settings", "10 × {:,} settings, answers unread", floods.settings_flood, 100_000, 20_000),
    Kind("idle", "{:,} connections that say nothing", crowds.idle_connections, 2_000, 500),
    Kind("slow", "{:,} connections that say hello byte by byte", crowds.slow_prefaces, 200, 50),
    Kind("queued", "{:,} good calls on 20 connections", crowds.queued_calls, 20_000, 500),
    Kind("stampede", "{:,} good calls in the same moment", crowds.stampede, 40_000, 0, max_growth_bytes=HEAP_BYTES),
    Kind("nobody", "10 × {:,} MB to an unknown method", messages.data_to_nobody, 50, 10),
    Kind("paths", "{:,} × 43 strange paths", headers.strange_paths, 3, 1),
)
