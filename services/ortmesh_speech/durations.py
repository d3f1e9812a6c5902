"""Durations of the API as seconds and back. Stage: task."""

from __future__ import annotations

from google.protobuf.duration_pb2 import Duration

from ortmesh.errors import BadInput


def duration(seconds: float) -> Duration:
    """Seconds as protobuf has them, to the millisecond."""
    made = Duration()
    made.FromMilliseconds(round(seconds * 1000))
    return made


def seconds_of(given: Duration, field: str, most: float) -> float:
    """The seconds of a duration from 0 to `most`. BadInput otherwise."""
    seconds = given.seconds + given.nanos / 1e9
    if not (given.seconds >= 0 and 0 <= given.nanos < 1e9 and seconds <= most):
        raise BadInput(field, f"{given.seconds} s and {given.nanos} ns: expected 0 to {most:g} s")
    return seconds
