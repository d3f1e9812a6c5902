"""Times: what the engine's parts take, added up where they are called; a few microseconds a step."""

from __future__ import annotations

import functools
import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ortmesh.serving.executor.engine.engine import EngineExecutor
from ortmesh.serving.executor.engine.graph import HostGraph
from ortmesh.serving.executor.engine.slots import Slots
from ortmesh.serving.executor.engine.text import Text
from ortmesh.serving.executor.interruptible import InterruptibleSession

STEPS, PROMPTS, BOUND, CHOOSING, COPYING = "steps", "prompts", "bound", "choosing", "copying"
PARTS = (STEPS, PROMPTS, BOUND, CHOOSING, COPYING)
TELL_SECONDS = 0.2

Sums = dict[str, tuple[int, float]]
"""(calls, seconds) of each part."""


class Times:
    """Of one process with one engine."""

    def __init__(self) -> None:
        self._sums: dict[str, list[float]] = {part: [0, 0.0] for part in PARTS}

    def watch(self) -> None:
        """From now on all calls are added up: the graph's runs, apart for steps and prompts, and without what it takes
        to bind their buffers; the choice and handing on of tokens; copies of keys and values."""
        inside = 0.0

        def bound(session: Any, binding: Any) -> None:
            nonlocal inside
            began = time.perf_counter()
            run(session, binding)
            inside = time.perf_counter() - began

        def watched(part: str, compute: Callable[..., Any]) -> Callable[..., Any]:
            @functools.wraps(compute)
            def computed(*arguments: Any) -> Any:
                began = time.perf_counter()
                found = compute(*arguments)
                self._add(part, inside)
                self._add(BOUND, time.perf_counter() - began - inside)
                return found

            return computed

        run = InterruptibleSession.run_with_iobinding
        _replace(InterruptibleSession, "run_with_iobinding", bound)
        _replace(HostGraph, "step", watched(STEPS, HostGraph.step))
        _replace(HostGraph, "read", watched(PROMPTS, HostGraph.read))
        _replace(Text, "append", self._timed(CHOOSING, Text.append))
        _replace(EngineExecutor, "_put_first", self._timed(COPYING, EngineExecutor._put_first))
        for name in ("begin", "end"):
            _replace(Slots, name, self._timed(COPYING, getattr(Slots, name)))

    def sums(self) -> Sums:
        """So far."""
        return {part: (int(calls), seconds) for part, (calls, seconds) in self._sums.items()}

    def tell(self, path: Path) -> None:
        """Writes the sums again and again, from a thread of its own."""
        threading.Thread(target=self._tell, args=(path,), name="times", daemon=True).start()

    def _add(self, part: str, seconds: float) -> None:
        sums = self._sums[part]
        sums[0] += 1
        sums[1] += seconds

    def _timed(self, part: str, call: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(call)
        def timed(*arguments: Any, **named: Any) -> Any:
            began = time.perf_counter()
            try:
                return call(*arguments, **named)
            finally:
                self._add(part, time.perf_counter() - began)

        return timed

    def _tell(self, path: Path) -> None:
        while True:
            fresh = path.with_suffix(".new")
            fresh.write_text(json.dumps(self.sums()))
            fresh.replace(path)
            time.sleep(TELL_SECONDS)


def since(later: Sums, earlier: Sums) -> Sums:
    """What came between."""
    return {part: (calls - earlier[part][0], seconds - earlier[part][1]) for part, (calls, seconds) in later.items()}


def _replace(kind: type, name: str, call: Callable[..., Any]) -> None:
    setattr(kind, name, call)
