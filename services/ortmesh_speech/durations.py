"""Durations of the API as seconds and back. Stage: task."""

from __future__ import annotations

from decimal import Decimal

from google.protobuf.duration_pb2 import Duration

from ortmesh.errors import BadInput

NANOS = 10**9
"""Of a second."""


def duration(seconds: float) -> Duration:
    """Seconds as protobuf has them, to the millisecond."""
    made = Duration()
    made.FromMilliseconds(round(seconds * 1000))
    return made


def seconds_of(given: Duration, field: str, most: float, least: float = 0.0) -> float:
    """The seconds of a duration from `least` to `most`. BadInput otherwise."""
    if abs(given.nanos) >= NANOS or given.seconds * given.nanos < 0:
        raise BadInput(field, f"{given.seconds} s and {given.nanos} ns are no duration")
    exact = given.seconds + Decimal(given.nanos) / NANOS
    seconds = float(exact)
    if not least <= seconds <= most:
        told = f"{exact:f}".rstrip("0").rstrip(".") if given.nanos else given.seconds
        raise BadInput(field, f"{told} s: expected {least:g} to {most:g} s")
    return seconds
