"""The speech of a recording: cut out of it to the sample, as much as is asked for."""

from __future__ import annotations

import numpy as np
import pytest

from ortmesh_speech.audio import SAMPLE_RATE, Samples
from ortmesh_speech.speech_only import cuts, first_of, frame_levels, louder
from tests.speech.voices import SENTENCES, noise, say, silence

RAMP = np.arange(1, 40 * SAMPLE_RATE, dtype=np.float32)


@pytest.mark.parametrize("sizes", [[40 * SAMPLE_RATE], [1000] * 700, [16_000, 1, 300_000, 500_000], [65_536] * 12])
def test_what_lies_in_the_stretches_is_cut_out(sizes: list[int]) -> None:
    blocks = np.split(RAMP, [at for at in np.cumsum(sizes) if at < len(RAMP)])
    stretches = [(0.5, 0.75), (1.0, 9.0), (9.5, 9.501), (39.0, 41.0)]
    found = np.concatenate(list(cuts(blocks, stretches)))
    expected = [RAMP[int(start * SAMPLE_RATE) : round(end * SAMPLE_RATE)] for start, end in stretches]
    np.testing.assert_array_equal(found, np.concatenate(expected))


def test_nothing_is_read_behind_the_last_stretch() -> None:
    read: list[Samples] = []

    def blocks() -> list[Samples]:
        return [RAMP[start : start + 1600] for start in range(0, len(RAMP), 1600)]

    for part in cuts((read.append(block) or block for block in blocks()), [(0.05, 0.25)]):  # type: ignore[func-returns-value]
        assert len(part) <= 1600
    assert len(read) <= 4


def test_no_stretch_is_no_speech() -> None:
    assert list(cuts([RAMP], [])) == []


@pytest.mark.parametrize(
    ("limit", "kept"),
    [(0.5, [(1, 1.5)]), (1.0, [(1, 2)]), (2.5, [(1, 2), (3, 4.5)]), (9.0, [(1, 2), (3, 5)]), (3.0, [(1, 2), (3, 5)])],
)
def test_the_last_stretch_is_cut_off_where_there_is_enough(limit: float, kept: list[tuple[float, float]]) -> None:
    assert list(first_of([(1, 2), (3, 5)], limit)) == kept


@pytest.mark.parametrize("sizes", [[1], [319, 1], [320], [1000] * 7, [65_536, 5]])
def test_levels_do_not_depend_on_the_blocks(sizes: list[int]) -> None:
    samples = noise(sum(sizes) / SAMPLE_RATE + 0.001)[: sum(sizes)]
    whole = np.concatenate(list(frame_levels([samples])))
    pieces = np.concatenate(list(frame_levels(np.split(samples, np.cumsum(sizes)[:-1]))))
    np.testing.assert_allclose(pieces, whole, atol=1e-4)
    assert len(whole) == -(-len(samples) // 320)


def loud_seconds(samples: Samples) -> float:
    return float(louder(np.concatenate(list(frame_levels([samples])))).sum()) / 50


def test_what_is_steady_is_no_speech() -> None:
    hum = (0.2 * np.sin(2 * np.pi * 50 * np.arange(SAMPLE_RATE * 5) / SAMPLE_RATE)).astype(np.float32)
    assert [loud_seconds(each) for each in (silence(5), noise(5), noise(5, 1e-5), hum)] == [0, 0, 0, 0]


def test_what_rises_above_the_background_is_speech() -> None:
    spoken = np.concatenate([silence(3), say(SENTENCES[0]), silence(3)])
    assert 3 < loud_seconds(spoken) < len(say(SENTENCES[0])) / SAMPLE_RATE
    assert 2 < loud_seconds(spoken + noise(30, 0.01)[: len(spoken)]) < len(say(SENTENCES[0])) / SAMPLE_RATE
