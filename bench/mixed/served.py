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
from pathlib import Path
from typing import IO, Any
from unittest import mock

from ortmesh.serving.batcher import ArrivalOrder, Pile
from ortmesh.serving.host import main
from ortmesh.serving.types import Item
from ortmesh_nlp.service import FAMILY, SERVICE, methods

PRODUCT, ARRIVAL = "product", "arrival"
POLICIES = (PRODUCT, ARRIVAL)
PR_SET_NAME = 15


class RecordingPile(Pile):
    """The product's pile, which writes a line for every batch: when it was taken, the seconds until the executor asked
    for the next one, its items' lengths."""

    record: IO[str]
    in_order = False
    """True for the policy that asks for no costs."""

    def __init__(self, **settings: Any) -> None:
        if self.in_order:
            settings["policy"] = ArrivalOrder()
        super().__init__(**settings)
        self._taken = threading.local()

    def take(self, limit: int, wait: float | None = None) -> list[Item] | None:
        """As the product does."""
        if sizes := getattr(self._taken, "sizes", ()):
            line = {"began": self._taken.at, "seconds": time.monotonic() - self._taken.at, "sizes": sizes}
            self.record.write(json.dumps(line) + "\n")
        items = super().take(limit, wait)
        self._taken.at, self._taken.sizes = time.monotonic(), [item.size for item in items or ()]
        return items


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
    with Path(path).open("w", buffering=1) as record:  # a line is there when it is written
        RecordingPile.record, RecordingPile.in_order = record, policy == ARRIVAL
        mock.patch("ortmesh.serving.model.Pile", RecordingPile).start()
        name_threads()
        sys.argv = ["ortmesh_nlp", *arguments]
        main(FAMILY, SERVICE, methods)


if __name__ == "__main__":
    serve()
