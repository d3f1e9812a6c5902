"""Durations out of range, in words."""

from __future__ import annotations

import pytest
from google.protobuf.duration_pb2 import Duration

from ortmesh.errors import BadInput
from ortmesh_speech.durations import seconds_of


@pytest.mark.parametrize(
    ("seconds", "nanos", "told"),
    [
        (6, 0, "6 s: expected 0.1 to 5 s"),
        (100, 0, "100 s: expected 0.1 to 5 s"),
        (0, 50_000_000, "0.05 s: expected 0.1 to 5 s"),
        (-1, 0, "-1 s: expected 0.1 to 5 s"),
        (-1, -500_000_000, "-1.5 s: expected 0.1 to 5 s"),
        (5, 1, "5.000000001 s: expected 0.1 to 5 s"),
        (1, -1, "1 s and -1 ns are no duration"),
        (1, 2_000_000_000, "1 s and 2000000000 ns are no duration"),
    ],
)
def test_what_is_out_of_range_is_told_as_a_person_writes_it(seconds: int, nanos: int, told: str) -> None:
    with pytest.raises(BadInput) as caught:
        seconds_of(Duration(seconds=seconds, nanos=nanos), "end_silence", 5.0, 0.1)
    assert str(caught.value) == f"end_silence: {told}"


@pytest.mark.parametrize(("seconds", "nanos"), [(0, 100_000_000), (5, 0), (1, 500_000_000)])
def test_bounds_are_in_range(seconds: int, nanos: int) -> None:
    assert seconds_of(Duration(seconds=seconds, nanos=nanos), "end_silence", 5.0, 0.1) == seconds + nanos / 1e9
