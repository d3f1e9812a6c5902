"""A service that also writes down what is asked of one model: when, how large, by whom, within which time.

    python -m bench.batching.recording FAMILY MODEL FILE [OPTIONS OF THE SERVICE]

Started by `bench.batching.record`. It listens where only this machine connects, and so believes who calls.
"""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from bench.batching.traces import Arrival, write
from ortmesh.front.call import Call
from ortmesh.serving import host
from ortmesh.serving.model import Model
from ortmesh.serving.types import Tensors


class Recorder:
    """What was asked of the model; tasks submit from the loop's thread, and from the one that receives."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._began: float | None = None
        self.arrivals: list[Arrival] = []

    def note(self, model: Model, many: Iterable[Tensors], call: Call) -> None:
        """One call of the model; all its items arrive together."""
        if model.name != self._name:
            return
        now = time.monotonic()
        self._began = self._began or now
        self.arrivals += [
            Arrival(now - self._began, size_of(tensors), call.caller, call.deadline - now) for tensors in many
        ]

    def listen(self) -> None:
        """Hears of every call of `Model` from now on."""
        one, several, directly = Model.__call__, Model.many, Model.many_directly

        async def noted_one(model: Model, tensors: Tensors, call: Call, **how: Any) -> Tensors:
            self.note(model, [tensors], call)
            return await one(model, tensors, call, **how)

        async def noted_several(model: Model, many: Sequence[Tensors], call: Call, **how: Any) -> list[Tensors]:
            self.note(model, many, call)
            return await several(model, many, call, **how)

        def noted_directly(model: Model, many: Sequence[Tensors], call: Call, *rest: Any, **how: Any) -> None:
            self.note(model, many, call)
            directly(model, many, call, *rest, **how)

        setattr(Model, "many_directly", noted_directly)  # noqa: B010
        setattr(Model, "__call__", noted_one)  # noqa: B010 - mypy forbids the assignment
        setattr(Model, "many", noted_several)  # noqa: B010


def size_of(tensors: Tensors) -> int:
    """Tokens of a text, columns of a line's picture: the last axis."""
    return int(next(iter(tensors.values())).shape[-1])


def main() -> None:
    """Serves until a signal, then writes the file."""
    family, model, file, *options = sys.argv[1:]
    service = importlib.import_module(f"ortmesh_{family}.service")
    sys.argv[1:] = options
    recorder = Recorder(model)
    recorder.listen()
    try:
        host.main(service.FAMILY, service.SERVICE, service.methods)
    finally:
        write(Path(file), recorder.arrivals)


if __name__ == "__main__":
    main()
