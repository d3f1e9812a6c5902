"""Pieces: a window cut at pauses within it, to be heard again. Stage: task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

from ortmesh_speech.audio import SAMPLE_RATE
from ortmesh_speech.window import Window
from ortmesh_speech.words import Stretch


def halves(window: Window) -> list[Window]:
    """A window cut at the longest pause of its middle half; itself when there is no pause."""
    length = len(window.samples) / SAMPLE_RATE
    earliest, latest = window.offset + length / 4, window.offset + length * 3 / 4
    within = [
        (begin - end, (begin + end) / 2) for end, begin in pauses(window) if earliest <= (begin + end) / 2 <= latest
    ]
    return pieces(window, [max(within)[1]] if within else [])


def around(window: Window, stretches: Sequence[Stretch]) -> list[Window]:
    """A window cut before and behind these stretches, in the middle of the pauses there."""
    edges = {edge for stretch in stretches for edge in stretch}
    return pieces(window, [(end + begin) / 2 for end, begin in pauses(window) if end in edges or begin in edges])


def pauses(window: Window) -> list[Stretch]:
    """The pauses between its stretches of speech, in seconds from the recording's start."""
    return [(end, begin) for (_, end), (begin, _) in pairwise(window.speech)]


def pieces(window: Window, cuts: Sequence[float]) -> list[Window]:
    """A window cut at these seconds, each within a pause of it, in the order of time."""
    made: list[Window] = []
    for cut in cuts:
        place = round((cut - window.offset) * SAMPLE_RATE)
        before = tuple(stretch for stretch in window.speech if stretch[1] <= cut)
        made.append(replace(window, samples=window.samples[:place], speech=before))
        window = replace(
            window,
            samples=window.samples[place:],
            offset=window.offset + place / SAMPLE_RATE,
            speech=window.speech[len(before) :],
        )
    return [*made, window]
