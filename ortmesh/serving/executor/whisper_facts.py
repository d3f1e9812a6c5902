"""Facts: what is known of one Whisper model beside its graphs, as its recipe wrote it. Stage: executor."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path


@dataclass(frozen=True)
class Facts:
    """What `whisper.json` says of the graphs (`ortmesh.catalogue.recipes._whisper_files`)."""

    layers: int
    heads: int
    head_width: int
    mels: int
    max_frames: int
    vocabulary: int
    tokens: Mapping[str, int]
    """`end_of_text`, `start_of_transcript`, `start_of_previous`, `transcribe`, `no_timestamps`, `no_speech` …"""
    suppress: Sequence[int]
    """Tokens that no text contains: symbols that are not spoken."""
    suppress_at_begin: Sequence[int]
    """Tokens that no text begins with: a space, the end."""
    languages: Mapping[str, int] = field(default_factory=dict)
    """The languages' tokens by ISO 639, in the model's order; none of a model that knows English only."""

    @classmethod
    def read(cls, path: Path) -> Facts:
        """Of the file at `path`; keys that only other programs need are passed over."""
        written = json.loads(path.read_text(encoding="utf-8"))
        return cls(**{known.name: written[known.name] for known in fields(cls) if known.name in written})
