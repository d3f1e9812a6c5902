"""Numbers that a person gives, as messages hold them; whether one is in range the service says. Stage: command line."""

from __future__ import annotations

from datetime import timedelta

import typer
from google.protobuf.duration_pb2 import Duration

LARGEST = 2**31 - 1
MOST_SECONDS = 1e9
"""Far beyond every bound, and within what a Duration holds."""


def int32(number: int) -> int:
    """The nearest number that a field of 32 bits holds."""
    return max(min(number, LARGEST), -LARGEST)


def int64(number: int, option: str) -> int:
    """A number that a field of 64 bits holds. typer.BadParameter for any other."""
    if not -(2**63) <= number < 2**63:
        raise typer.BadParameter(f"{number}: expected a number of 64 bits", param_hint=option)
    return number


def duration(seconds: float, option: str) -> Duration:
    """Seconds as a Duration. typer.BadParameter for what is no number of seconds."""
    if not abs(seconds) <= MOST_SECONDS:  # neither is what is no number
        raise typer.BadParameter(f"{seconds:g}: expected seconds", param_hint=option)
    made = Duration()
    made.FromTimedelta(timedelta(seconds=seconds))
    return made
