"""Host: starts one service (store, models, front) and ends it in order. Stage: process.

store ─► models ─► tasks, OIP and ModelService ─► table of methods ─► front
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import signal
import sys
from collections.abc import Callable
from typing import Any

from ortmesh import __version__
from ortmesh.config import MISTAKES, Family, ServiceSettings, TelemetrySettings, in_words
from ortmesh.front.health import Health
from ortmesh.front.limits import FrontLimits
from ortmesh.front.methods import Method
from ortmesh.front.server import Front
from ortmesh.serving import model_service, oip
from ortmesh.serving.executor.sessions import has_device
from ortmesh.serving.faults import StoreError
from ortmesh.serving.free_memory import bound_memory
from ortmesh.serving.models import Models
from ortmesh.serving.products import compute_in_one_thread
from ortmesh.serving.resident import settle_heaps
from ortmesh.serving.store import Store
from ortmesh.serving.suspects import Suspects
from ortmesh.telemetry import Telemetry, configure_logging

log = logging.getLogger(__name__)

Tasks = Callable[[Models], list[Method]]
LOST = ": its device is lost for this process, no model serves any more, and only a new process can help"
SWITCH_INTERVAL_SECONDS = 0.0005
"""A thread that returns from a run waits this long for a busy one, not Python's 5 ms; it costs nothing measurable."""


class Host:
    """One service: `start`, then `stop`."""

    def __init__(self, settings: ServiceSettings, service: str, tasks: Tasks) -> None:
        self._settings = settings
        self._service = service
        self.health = Health()
        self.telemetry = Telemetry(settings.telemetry, f"ortmesh-{settings.family}")
        store = Store(settings.store)
        self.models = Models(
            store,
            settings.family,
            threads=settings.threads,
            meter=self.telemetry.meter,
            only=settings.only,
            spans=self.telemetry.spans,
            suspects=Suspects.of(store.root, settings.family),
        )
        self._front = Front(
            [
                *tasks(self.models),
                *oip.methods(self.models, family=settings.family, accepting=lambda: not self._draining),
                *model_service.methods(self.models),
            ],
            target=settings.address,
            adapter=settings.adapter,
            health=self.health,
            telemetry=self.telemetry,
            limits=_front_limits(settings),
            reflection=True,
            trusts_caller=settings.trusts_caller,
        )
        self.models.all_tasks_are_bound()
        self._known: set[str] = set()
        self._told: set[tuple[str, str]] = set()
        self._draining = False
        self._hurry = asyncio.Event()

    @property
    def address(self) -> str:
        """Where it listens: `host:port` or `unix:/path`; known after `start`."""
        return self._front.address

    async def start(self) -> None:
        """Listens at once; health says SERVING when a model is ready. OSError when the address is taken."""
        self.health.set("", False)
        self.health.set(self._service, False)
        self.models.watch(self._tell_health)
        await self._front.start()
        if self._settings.telemetry.metrics_port is not None:
            port = self.telemetry.serve_prometheus(self._settings.telemetry.metrics_port)
            log.info("metrics on http://%s:%d/metrics", self._settings.telemetry.metrics_host, port)
        await self.models.start()

    async def stop(self) -> None:
        """Drains the front, then ends models and telemetry: nothing that was accepted is lost."""
        self._draining = True
        self.health.drain()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._hurry.wait(), self._settings.drain_seconds)
        await self._front.drain(self._settings.grace_seconds)
        await self.models.stop()
        await asyncio.to_thread(self.telemetry.shutdown)

    def hurry(self) -> None:
        """`stop` does not wait, or no longer, for callers to look elsewhere; calls in flight have their grace still."""
        self._hurry.set()

    def _ready(self) -> bool:
        return not self._draining and any(model.state == "READY" for model in self.models.list())

    def _tell_health(self) -> None:
        """One model that loads or fails does not unready the others; none that is ready does."""
        if self._draining:
            return
        for name in ("", self._service):
            self.health.set(name, self._ready())
        serving = {model.name: model.state == "READY" for model in self.models.list() if model.is_default}
        for name in self._known - serving.keys():
            self.health.remove(f"models/{name}")
        for name, ready in serving.items():
            self.health.set(f"models/{name}", ready)
        self._known = set(serving)
        told = {(model.name, model.version): model for model in self.models.list()}
        for gone in self._told - told.keys():
            self.telemetry.model_state(*gone, None)
        for key, model in told.items():
            precision = model.card.precision
            self.telemetry.model_state(*key, model.state, provider=model.provider, precision=precision)
        self._told = set(told)


def main(family: Family, service: str, tasks: Tasks) -> None:
    """The command line of `python -m ortmesh_<family>`: serves until a signal. Exits 1 when it can't start, and when
    its device is lost.

    SIGTERM drains for `drain_seconds` first; SIGINT does not, and ends a drain that has begun: nobody is left to call.
    """
    settings = _settings(family, service)
    telemetry = settings.telemetry
    configure_logging(json=telemetry.log_json, level=telemetry.log_level, service=f"ortmesh-{family}")
    sys.setswitchinterval(SWITCH_INTERVAL_SECONDS)
    settle_heaps()
    compute_in_one_thread()
    if not has_device():  # what its driver reserves is no memory of this process
        bound_memory()
    try:
        lost = _runner()(_serve(settings, service, tasks))
    except (OSError, StoreError) as error:
        log.critical("%s can't start: %s", family, error)
        raise SystemExit(1) from None
    if lost:
        raise SystemExit(1)


async def _serve(settings: ServiceSettings, service: str, tasks: Tasks) -> bool:
    """Serves until a signal, or until its device is lost: then the answer is True, and whoever watches this process
    starts it anew."""
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    host = Host(settings, service, tasks)

    def end(number: signal.Signals) -> None:
        if number is signal.SIGINT:
            host.hurry()
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end, number)
    await host.start()
    log.info("%s %s listens on %s", settings.family, __version__, host.address)
    ends = [asyncio.ensure_future(stop.wait()), asyncio.ensure_future(host.models.lost.wait())]
    await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    for each in ends:
        each.cancel()
    lost = host.models.lost.is_set()
    log.log(logging.CRITICAL if lost else logging.INFO, "%s is draining%s", settings.family, LOST if lost else "")
    await host.stop()
    return lost


def _settings(family: Family, service: str) -> ServiceSettings:
    parser = argparse.ArgumentParser(
        prog=f"python -m ortmesh_{family}",
        description=f"Serves {service}. Every setting is also an environment variable, see docs/configuration.md.",
    )
    parser.add_argument("--listen", dest="address", metavar="ADDRESS", help="HOST:PORT or unix:/path")
    parser.add_argument("--models", dest="store", metavar="DIR", help="the store's folder")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="serve these models only")
    parser.add_argument("--threads", type=int, metavar="N", help="threads of a model's computation")
    parser.add_argument("--adapter", choices=("auto", "native", "grpcio"))
    parser.add_argument("--metrics-port", type=int, metavar="PORT", help="Prometheus endpoint; 0 picks a free port")
    given: dict[str, Any] = {name: value for name, value in vars(parser.parse_args()).items() if value is not None}
    metrics_port = given.pop("metrics_port", None)
    try:
        settings = ServiceSettings(family=family, **given)
        if metrics_port is not None:
            telemetry = TelemetrySettings(metrics_port=metrics_port)  # the rest comes from the environment again
            settings = ServiceSettings(family=family, telemetry=telemetry, **given)
        return settings
    except MISTAKES as mistake:
        parser.error(in_words(mistake))


def _front_limits(settings: ServiceSettings) -> FrontLimits:
    return FrontLimits(
        max_calls=settings.max_calls,
        max_bytes=settings.max_bytes,
        max_streams=settings.max_streams,
        pool_threads=settings.pool_threads,
        pool_max_bytes=settings.pool_max_bytes,
        drain_seconds=0.0,  # the host waits itself: a signal may end that
    )


def _runner() -> Callable[..., Any]:
    """uvloop where it is installed, asyncio's own loop elsewhere."""
    with contextlib.suppress(ImportError):
        import uvloop

        return uvloop.run
    return asyncio.run
