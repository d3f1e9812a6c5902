"""What Synthesize needs of its models: constants, tensors and files. Stage: task."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from pydantic import Field

from ortmesh.serving.needs import Needs, Settings


class Voice(Settings):
    """Of the model that speaks."""

    voice: str = Field(default="default", min_length=1)
    """What its one voice is called."""
    speller: str
    """The model that tells the phonemes of unknown words."""
    symbols: str = "symbols.json"
    lexicon: str = "lexicon.json"
    tagger: str = "tagger.json"
    seed: int = Field(default=1, ge=1)
    """Where a request names none."""


class Speller(Settings):
    """Of the model that tells the phonemes of unknown words."""

    spelling: str = "spelling.json"


VOICE = Needs(
    Voice,
    inputs={"symbols": "INT64", "speed": "FP32"},
    outputs={"harmonic": 3, "harmonic_phase": 3, "noise": 3, "residual": 3, "residual_phase": 3, "pitch": 2},
)
SPELLER = Needs(Speller, inputs={"letters": "INT64"}, outputs={"phonemes": 2})


def read_symbols(path: Path) -> Mapping[str, int]:
    """The number of each phoneme's character. ValueError when the file tells none."""
    content = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict) or not all(isinstance(number, int) for number in content.values()):
        raise ValueError("expected a number for each character")
    return content
