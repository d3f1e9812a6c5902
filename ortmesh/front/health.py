"""Health: grpc.health.v1 computed from named states. Stage: front.

Names: "" is the process, `ortmesh.nlp.v1.NlpService` a service, `models/NAME` a model, `liveness` whether anybody
answers at all.
"""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import AsyncIterator
from typing import Any

from grpc_health.v1 import health_pb2

from ortmesh.descriptors import HEALTH_SERVICE
from ortmesh.errors import Overloaded, UnknownService
from ortmesh.front.call import Call
from ortmesh.front.methods import Method

Request: Any = health_pb2.HealthCheckRequest
Response: Any = health_pb2.HealthCheckResponse

MAX_REQUEST_BYTES = 4096
MAX_WATCHERS = 256
"""Streams that wait for changes. They need no permits, and would else fill what stands before this process: with a
thousand of them nobody could ask for anything through the gateway any more."""
PROCESS = ""
LIVENESS = "liveness"
"""Always SERVING, also while all models have failed or a drain goes on: a new process would be no better. It is asked
by what kills a process that hangs."""


class Health:
    """The named states of a process and the methods that tell of them. Thread-safe.

    The process itself is NOT_SERVING until somebody says otherwise. Health needs no permits: it answers when
    everything else is full.
    """

    def __init__(self) -> None:
        self._serving: dict[str, bool] = {PROCESS: False}
        self._draining = False
        self._watchers: set[_Watcher] = set()
        self._lock = threading.Lock()

    def set(self, name: str, serving: bool) -> None:
        """States how something does. Watchers of its name are told."""
        with self._lock:
            changed = self._serving.get(name) != serving
            self._serving[name] = serving
        if changed:
            self._tell(name)

    def remove(self, name: str) -> None:
        """Forgets a name: Check answers NOT_FOUND, watchers are told SERVICE_UNKNOWN."""
        with self._lock:
            known = self._serving.pop(name, None) is not None
        if known:
            self._tell(name)

    def drain(self) -> None:
        """From now on everything is NOT_SERVING, whatever is set."""
        with self._lock:
            self._draining = True
        self._tell()

    def status(self, name: str) -> int | None:
        """SERVING or NOT_SERVING; None for an unknown name."""
        if name == LIVENESS:
            return int(Response.SERVING)
        with self._lock:
            serving = self._serving.get(name)
            if serving is None:
                return None
            return int(Response.SERVING if serving and not self._draining else Response.NOT_SERVING)

    def methods(self) -> list[Method]:
        """The rows of grpc.health.v1.Health for the table of methods."""
        return [
            Method(
                path=f"/{HEALTH_SERVICE}/Check",
                request_type=Request,
                handler=self.check,
                max_request_bytes=MAX_REQUEST_BYTES,
                needs_permit=False,
            ),
            Method(
                path=f"/{HEALTH_SERVICE}/Watch",
                request_type=Request,
                handler=self.watch,
                streams=True,
                watch=True,
                max_request_bytes=MAX_REQUEST_BYTES,
                default_timeout_seconds=math.inf,
                needs_permit=False,
            ),
        ]

    async def check(self, request: Any, call: Call) -> Any:
        """Answers once; NOT_FOUND for an unknown name."""
        status = self.status(request.service)
        if status is None:
            raise UnknownService(f"nothing is called {request.service!r} here", resource=("health", request.service))
        return Response(status=status)

    async def watch(self, request: Any, call: Call) -> AsyncIterator[Any]:
        """Answers at once and after every change; an unknown name is SERVICE_UNKNOWN until it comes."""
        watcher = _Watcher(request.service)
        with self._lock:
            if len(self._watchers) >= MAX_WATCHERS:
                raise Overloaded("too many watch already", retry_after_seconds=1.0, metadata={"bound": "watchers"})
            self._watchers.add(watcher)
        try:
            last: int | None = None
            while True:
                watcher.changed.clear()
                status = self.status(request.service)
                current = int(Response.SERVICE_UNKNOWN) if status is None else status
                if current != last:
                    last = current
                    yield Response(status=current)
                await watcher.changed.wait()
        finally:
            with self._lock:
                self._watchers.discard(watcher)

    def _tell(self, name: str | None = None) -> None:
        """Wakes the watchers of a name, or all."""
        with self._lock:
            watchers = [watcher for watcher in self._watchers if name is None or watcher.name == name]
        for watcher in watchers:
            watcher.tell()


class _Watcher:
    """One Watch call: an event on its loop that any thread may set."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.loop = asyncio.get_running_loop()
        self.changed = asyncio.Event()

    def tell(self) -> None:
        """Wakes the call; a loop that is closed has none."""
        if not self.loop.is_closed():
            self.loop.call_soon_threadsafe(self.changed.set)
