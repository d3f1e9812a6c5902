"""The speech service as it is, told to add up what each graph's runs take.

    python -m bench.speech.served TIMES [arguments of ortmesh_speech]

The product has no metric for a program's graphs, so ONNX Runtime's sessions are watched here, before it starts; that
costs a microsecond a run.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnxruntime

from bench.mixed.served import name_threads
from ortmesh.serving.host import main
from ortmesh_speech.service import FAMILY, SERVICE, methods

METHODS = ("run", "run_with_iobinding", "run_with_ort_values")
TELL_SECONDS = 0.2


class Times:
    """Runs and seconds of each graph, by its model and file."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sums: dict[str, list[float]] = defaultdict(lambda: [0, 0.0])

    def watch(self) -> None:
        """From now on all sessions' runs are added up."""
        for name in METHODS:
            setattr(onnxruntime.InferenceSession, name, self._timed(getattr(onnxruntime.InferenceSession, name)))

    def tell(self, path: Path) -> None:
        """Writes the sums again and again, from a thread of its own."""
        threading.Thread(target=self._tell, args=(path,), name="times", daemon=True).start()

    def _timed(self, run: Callable[..., Any]) -> Callable[..., Any]:
        def timed(session: Any, *arguments: Any, **named: Any) -> Any:
            began = time.perf_counter()
            try:
                return run(session, *arguments, **named)
            finally:
                took = time.perf_counter() - began
                with self._lock:
                    entry = self._sums[_name(session)]
                    entry[0] += 1
                    entry[1] += took

        return timed

    def _tell(self, path: Path) -> None:
        while True:
            with self._lock:
                text = json.dumps(self._sums)
            fresh = path.with_suffix(".new")
            fresh.write_text(text)
            fresh.replace(path)
            time.sleep(TELL_SECONDS)


def _name(session: Any) -> str:
    """`<model>/<file>` of a graph that lies in a store at `<model>/<version>/<file>`."""
    path = Path(session._model_path)
    return f"{path.parent.parent.name}/{path.name}"


def serve() -> None:
    """The service, until a signal."""
    path, *arguments = sys.argv[1:]
    times = Times()
    times.watch()
    times.tell(Path(path))
    name_threads()
    sys.argv = ["ortmesh_speech", *arguments]
    main(FAMILY, SERVICE, methods)


if __name__ == "__main__":
    serve()
