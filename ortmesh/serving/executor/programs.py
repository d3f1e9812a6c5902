"""The programs that a card can name: the one list of them. Stage: executor."""

from __future__ import annotations

from collections.abc import Mapping

from ortmesh.serving.executor.moonshine import MoonshineProgram
from ortmesh.serving.executor.program import Program
from ortmesh.serving.executor.whisper import WhisperProgram

PROGRAMS: Mapping[str, type[Program]] = {"whisper": WhisperProgram, "moonshine": MoonshineProgram}
