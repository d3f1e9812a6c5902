"""The bare engine in a process of its own: its pile and its executor's thread, without a service around them.

    python -m bench.generate.bare FOLDER THREADS

Lines of JSON ask and answer as in `peer`; beside jobs, `{"forget": true}` has it forget what it keeps of ended texts,
`{"sums": true}` is answered by what its parts took, `{"step": [rows, length]}` by the seconds of one step alone.
"""

from __future__ import annotations

import json
import math
import queue
import statistics
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bench.generate.times import Times
from ortmesh.serving.batcher.pile import Pile
from ortmesh.serving.cards import read_card
from ortmesh.serving.executor.engine.ask import TOKEN, Ask, TextItem
from ortmesh.serving.executor.engine.engine import EngineExecutor
from ortmesh.serving.executor.engine.sampler import Sampling
from ortmesh.serving.executor.sessions import Sessions
from ortmesh.serving.types import NoMeter, Tensors

STEPS = 20
"""Runs of which the median is told."""
TOKEN_ID = 3
STOP_SECONDS = 30.0


@dataclass
class Writing:
    """The answer of one text's item, and its owner."""

    number: int
    ended: queue.SimpleQueue[int]
    admitted: bool = False
    cancelled: bool = False
    at: list[float] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    error: BaseException | None = None

    def emit(self, outputs: Tensors) -> None:
        """A token."""
        self.at.append(time.perf_counter())
        self.tokens.append(int(outputs[TOKEN][0]))

    def finish(self, outputs: Tensors) -> None:
        """The end."""
        self.ended.put(self.number)

    def fail(self, error: BaseException) -> None:
        """No more comes."""
        self.error = error
        self.ended.put(self.number)


class Bare:
    """The engine of a model's folder."""

    def __init__(self, folder: Path, threads: int) -> None:
        card = read_card(folder / "card.yaml")
        self.times = Times()
        self._executor = EngineExecutor.load(card, folder, Sessions(card.runtime, threads), meter=NoMeter())
        self._executor.warm_up()
        self._pile = Pile()
        self._thread = threading.Thread(target=self._executor.serve, args=(self._pile,), name="executor", daemon=True)
        self._thread.start()

    def write(self, asked: Any) -> dict[str, Any]:
        """All jobs: so many streams at once, and beside them those that come by themselves."""
        jobs, stops = asked["jobs"], frozenset(asked["stops"])
        waiting = deque(number for number, job in enumerate(jobs) if not job["after"])
        later = deque(sorted((n for n, job in enumerate(jobs) if job["after"]), key=lambda n: jobs[n]["after"]))
        ended: queue.SimpleQueue[int] = queue.SimpleQueue()
        writings = [Writing(number, ended) for number in range(len(jobs))]
        sent, start = [0.0] * len(jobs), time.perf_counter()

        def send(number: int) -> None:
            sent[number] = time.perf_counter() - start
            ids = np.array(jobs[number]["ids"], np.int64)
            ask = Ask(ids, jobs[number]["max_tokens"], stops, Sampling(temperature=0.0))
            answer = writings[number]
            self._pile.submit(TextItem(ask, answer=answer, owner=answer, deadline=math.inf))

        for _ in range(min(asked["streams"], len(waiting))):
            send(waiting.popleft())
        open_ = len(jobs)
        while open_:
            try:
                wait = max(0.0, jobs[later[0]]["after"] + start - time.perf_counter()) if later else None
                number = ended.get(timeout=wait)
            except queue.Empty:
                send(later.popleft())
                continue
            open_ -= 1
            if (error := writings[number].error) is not None:
                raise error
            if waiting and not jobs[number]["after"]:
                send(waiting.popleft())
        seconds = time.perf_counter() - start
        texts = [
            {"sent": at, "began": at, "at": [each - start for each in writing.at], "tokens": writing.tokens}
            for at, writing in zip(sent, writings, strict=True)
        ]
        return {"texts": texts, "seconds": seconds}

    def forget(self) -> None:
        """Nothing is kept of ended texts, as when the engine was idle for long. Waits until it is: a text has ended for
        its caller before it is kept."""
        until = time.monotonic() + STOP_SECONDS
        while self._executor._texts and time.monotonic() < until:
            time.sleep(0.001)
        self._executor._slots.forget_kept(0)

    def step(self, rows: int, length: int) -> float:
        """Seconds of one run for so many texts of so many tokens, with nothing around it. As in the engine, a text
        alone may need an idle row beside it."""
        graph = self._executor._graph
        slots = graph.slots(slots=rows, length=length + 1)
        for held in slots.held[:rows]:
            held.tokens = [TOKEN_ID] * length
        took = []
        for _ in range(STEPS):
            began = time.perf_counter()
            graph.step(slots, [TOKEN_ID] * rows)
            took.append(time.perf_counter() - began)
        return statistics.median(took)

    def answer(self, asked: Any) -> Any:
        """What a line asks for."""
        if "forget" in asked:
            self.forget()
            return {}
        if "sums" in asked:
            return self.times.sums()
        if "step" in asked:
            return self.step(*asked["step"])
        return self.write(asked)

    def close(self) -> None:
        """Ends its thread."""
        self._pile.close()
        self._thread.join(STOP_SECONDS)


@contextmanager
def bare(folder: Path, threads: int) -> Iterator[Bare]:
    """The engine, ready."""
    made = Bare(folder, threads)
    try:
        yield made
    finally:
        made.close()


def main() -> None:
    """Answers until its input ends."""
    with bare(Path(sys.argv[1]), int(sys.argv[2])) as engine:
        engine.times.watch()
        print(json.dumps({"ready": True}), flush=True)
        for line in sys.stdin:
            print(json.dumps(engine.answer(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
