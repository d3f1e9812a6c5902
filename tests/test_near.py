"""Which names are near one that is not there."""

from __future__ import annotations

import pytest

from ortmesh.near import near, near_in_words

NAMES = ["smollm2-135m-instruct", "all-minilm-l6-v2", "lid-176", "rampart"]


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("smollm", ["smollm2-135m-instruct"]),
        ("SmolLM", ["smollm2-135m-instruct"]),
        ("rampat", ["rampart"]),
        ("whisper-tiny-en", []),
        ("", []),
        ("l" * 10_000_000, []),
    ],
)
def test_beginnings_and_misspellings_are_near(name: str, found: list[str]) -> None:
    assert near(name, NAMES) == found


def test_all_are_told_where_none_is_near() -> None:
    assert near_in_words("smollm", NAMES) == "near names: smollm2-135m-instruct"
    assert near_in_words("???", NAMES) == "served: all-minilm-l6-v2, lid-176, rampart, smollm2-135m-instruct"
    assert near_in_words("???", [f"m{number}" for number in range(12)]).endswith("m7 and 2 more")
    assert near_in_words("???", []) == "no model is served"
