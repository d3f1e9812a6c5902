"""Runs one recipe in a process of its own: `python -m ortmesh.serving.convert RECIPE OUT SOURCES`.

A conversion needs several times the model's size in memory, and a recipe belongs to the catalogue, which stands
above serving: it is found by its name at run time only. Stage: store.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Mapping
from pathlib import Path

RECIPES = "ortmesh.catalogue.recipes"


def main(recipe: str, out: str, sources: str) -> None:
    """Calls the recipe's `convert(sources, out)`; `sources` is JSON, base names to paths."""
    paths: Mapping[str, Path] = {name: Path(path) for name, path in json.loads(sources).items()}
    importlib.import_module(f"{RECIPES}.{recipe}").convert(paths, Path(out))


if __name__ == "__main__":
    main(*sys.argv[1:])
