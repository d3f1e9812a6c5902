"""Prints what this project's extras need, one requirement a line: `python requirements.py nlp cli`.

An image installs that in a layer below the code's, which then changes alone. Run in the folder of pyproject.toml.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

OWN = re.compile(r"ortmesh\[([\w,-]+)\]")
"""How an extra takes others in."""


def requirements(project: dict[str, Any], extras: list[str]) -> list[str]:
    """The base's requirements and those of the extras, each once. KeyError for an extra that does not exist."""
    found = [*project["dependencies"], *_of(project["optional-dependencies"], extras)]
    return list(dict.fromkeys(found))


def _of(known: dict[str, list[str]], extras: list[str]) -> Iterator[str]:
    for extra in extras:
        for requirement in known[extra]:
            if own := OWN.fullmatch(requirement):
                yield from _of(known, own[1].split(","))
            else:
                yield requirement


if __name__ == "__main__":
    print("\n".join(requirements(tomllib.loads(Path("pyproject.toml").read_text())["project"], sys.argv[1:])))
