"""The Dockerfile's stages and instructions, as far as tests ask."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from tests.deploy.manifests import ROOT

PATH = ROOT / "deploy" / "docker" / "Dockerfile"


@dataclass(frozen=True, slots=True)
class Stage:
    """One `FROM base AS name` and what follows it."""

    name: str
    base: str
    instructions: list[tuple[str, str]] = field(default_factory=list)

    def last(self, word: str) -> str | None:
        """The text of an instruction, the last where there are several."""
        texts = [text for name, text in self.instructions if name == word]
        return texts[-1] if texts else None


@dataclass(frozen=True, slots=True)
class Dockerfile:
    """A file's stages by name, and the arguments that a build may set."""

    stages: dict[str, Stage]
    arguments: dict[str, str]

    def find(self, name: str, word: str) -> str | None:
        """What an instruction says in a stage, or in the nearest of those below it."""
        stage = self.stages.get(name)
        if stage is None:
            return None
        return stage.last(word) or self.find(stage.base, word)

    def chain(self, name: str) -> list[Stage]:
        """A stage and those below it."""
        stage = self.stages.get(name)
        return [] if stage is None else [stage, *self.chain(stage.base)]


def read(path: Path = PATH) -> Dockerfile:
    """Reads a Dockerfile; comments and the ends of continued lines are left out."""
    text = re.sub(r"^#.*\n", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    stages: dict[str, Stage] = {}
    arguments: dict[str, str] = {}
    current: Stage | None = None
    for line in re.sub(r"\\\n\s*", " ", text).splitlines():
        word, _, rest = line.partition(" ")
        if word == "FROM":
            base, _, name = rest.partition(" AS ")
            current = stages[name] = Stage(name, base)
        elif word == "ARG":
            name, _, default = rest.partition("=")
            arguments[name] = default
        elif word and current is not None:
            current.instructions.append((word, rest.strip()))
    return Dockerfile(stages, arguments)
