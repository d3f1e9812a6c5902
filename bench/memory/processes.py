"""What each process of a mesh holds, as Linux counts it."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bench.attack.processes import tree

PROC = Path("/proc")
NAMES = {
    "ortmesh_vision": "vision",
    "ortmesh_speech": "speech",
    "ortmesh_nlp": "nlp",
    "ortmesh_gateway": "gateway",
    "ortmesh_gateway.proxy": "Envoy's keeper",
    "ortmesh.cli": "ortmesh up",
    "envoy": "Envoy",
}


@dataclass(frozen=True, slots=True)
class Held:
    """One process at one moment."""

    resident: int
    """Bytes in memory, those of files and libraries too."""
    private: int
    """Bytes that it alone holds and no file backs: heaps, arenas, stacks."""


def parts(root: int) -> dict[str, int]:
    """The processes of the mesh that the process `root` started, by their name."""
    found: dict[str, int] = {}
    for pid in tree(root):
        with contextlib.suppress(OSError):
            if (name := _name(PROC / str(pid))) is not None:
                found[name] = pid
    return found


def held(pids: Mapping[str, int]) -> dict[str, Held]:
    """What each holds now. FileNotFoundError or ProcessLookupError when one has ended."""
    return {name: _held(PROC / str(pid) / "smaps_rollup") for name, pid in pids.items()}


def _held(rollup: Path) -> Held:
    sizes: dict[str, int] = {}
    for line in rollup.read_text().splitlines()[1:]:
        name, _, value = line.partition(":")
        sizes[name] = int(value.removesuffix("kB")) * 1024
    return Held(sizes["Rss"], sizes["Anonymous"])


def _name(folder: Path) -> str | None:
    """None for a process that is only on the way to become one of the mesh's."""
    words = (folder / "cmdline").read_bytes().decode().split("\0")
    module = words[words.index("-m") + 1] if "-m" in words else Path(words[0]).name
    return NAMES.get(module)
