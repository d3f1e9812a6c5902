"""The language service as it is, told to write down its batches, and its policy replaced where a baseline is wanted.

    python -m bench.mixed.served POLICY RECORD [arguments of ortmesh_nlp]

The product has no setting for its policy, so the baseline is made here, before the service starts.
"""

from __future__ import annotations

import ctypes
import json
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest import mock

from ortmesh.serving.batcher import ArrivalOrder, Pile
from ortmesh.serving.executor.session import SessionExecutor
from ortmesh.serving.host import main
from ortmesh.serving.types import Item
from ortmesh_nlp.service import FAMILY, SERVICE, methods

PRODUCT, ARRIVAL = "product", "arrival"
POLICIES = (PRODUCT, ARRIVAL)
PR_SET_NAME = 15


class PileInOrder(Pile):
    """The product's pile with the policy that asks for no costs."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**{**settings, "policy": ArrivalOrder()})


def record(path: Path) -> None:
    """Every batch becomes a line of the file: when it began, its seconds with the answers, its items' lengths."""
    run, file = SessionExecutor.run, path.open("w", buffering=1)

    def recorded(self: SessionExecutor, items: Sequence[Item]) -> None:
        began = time.monotonic()
        run(self, items)
        line = {"began": began, "seconds": time.monotonic() - began, "sizes": [item.size for item in items]}
        file.write(json.dumps(line) + "\n")

    SessionExecutor.run = recorded  # type: ignore[method-assign]


def name_threads() -> None:
    """Python's names of threads are the kernel's too: their times are read from /proc."""
    run, libc = threading.Thread.run, ctypes.CDLL(None)

    def named(self: threading.Thread) -> None:
        libc.prctl(PR_SET_NAME, self.name.encode()[:15])
        run(self)

    threading.Thread.run = named  # type: ignore[method-assign]


def serve() -> None:
    """The service, until a signal."""
    policy, path, *arguments = sys.argv[1:]
    if policy not in POLICIES:
        raise SystemExit(f"{policy!r} is none of {', '.join(POLICIES)}")
    if policy == ARRIVAL:
        mock.patch("ortmesh.serving.model.Pile", PileInOrder).start()
    record(Path(path))
    name_threads()
    sys.argv = ["ortmesh_nlp", *arguments]
    main(FAMILY, SERVICE, methods)


if __name__ == "__main__":
    serve()
