"""The bench of memory: a leak is told from what rises and falls, and its requests never repeat."""

from __future__ import annotations

import pytest

from bench.memory.growth import Growth, Sample, Watched, growth
from bench.memory.processes import Held
from bench.memory.spread import ORDER, OTHER, share, size


def run(leak: float = 0.0, rest_leak: float = 0.0) -> Growth:
    """A process of 500 MB that takes up to 400 more under load; the leaks are shares a minute."""

    def held(minute: float, more: float, leaks: float) -> Sample:
        size = int((500e6 + more) * (1 + leaks * minute))
        return Sample(minute, {"it": Held(size, size)})

    samples = [held(tick / 60, 4e8 * (tick * 37 % 100) / 100, leak) for tick in range(20 * 60)]
    rests = [held(5 + 2.5 * number, 0, rest_leak) for number in range(7)]
    return growth("it", Watched(samples, rests, warm=5, window=1))


def test_what_rises_and_falls_is_flat() -> None:
    assert run().flat


@pytest.mark.parametrize("leaks", [{"rest_leak": 0.002}, {"leak": 0.01}])
def test_a_leak_is_seen(leaks: dict[str, float]) -> None:
    """Three per cent in fifteen minutes at rest, or what can be told from chance under load."""
    assert not run(**leaks).flat


def test_a_little_more_is_not_yet_a_leak() -> None:
    assert run(rest_leak=0.001).flat


def test_sizes_fill_their_range_in_every_round_and_never_repeat() -> None:
    sizes = [size(turn, 24, 2600) for turn in range(2000)]
    assert len(set(sizes)) == len(sizes)
    assert all(24 <= each <= 2600 for each in sizes)
    for start in range(0, 2000, len(ORDER)):
        eighths = {int(8 * share(turn)) for turn in range(start, start + len(ORDER))}
        assert eighths == set(range(8))


def test_pairs_of_sizes_are_of_all_proportions() -> None:
    pairs = {(int(8 * share(turn)), int(8 * share(turn, OTHER))) for turn in range(8)}
    assert any(one > 5 > 2 > other or other > 5 > 2 > one for one, other in pairs)
    assert any(abs(one - other) < 3 for one, other in pairs)
