"""Clock: times in a recording as a person reads them. Stage: command line."""

from __future__ import annotations

from datetime import timedelta


def clock(time: timedelta) -> str:
    """Minutes:seconds.tenths."""
    minutes, seconds = divmod(time.total_seconds(), 60)
    return f"{minutes:.0f}:{seconds:04.1f}"
