"""The Prometheus endpoint: /metrics over HTTP, in a thread of its own. Stage: shared."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate, groupby
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

from prometheus_client import CollectorRegistry, ProcessCollector, make_wsgi_app
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import ThreadingWSGIServer
from prometheus_client.registry import Collector

from ortmesh.telemetry.series import Buckets, Instrument, Point, Snapshot

_UNITS = {"s": "seconds", "ms": "milliseconds", "By": "bytes", "1": "ratio"}
"""OpenTelemetry's units as suffixes of Prometheus's names; others are left out."""


class Endpoint:
    """Serves `/metrics`. OSError from the constructor when the port is taken."""

    def __init__(self, host: str, port: int, service: dict[str, str], snapshot: Callable[[], Snapshot]) -> None:
        registry = CollectorRegistry(target_info=service)
        registry.register(_Snapshots(snapshot))
        ProcessCollector(registry=registry)
        server_class = _ServerV6 if ":" in host else ThreadingWSGIServer
        self._server = make_server(host, port, _only_metrics(make_wsgi_app(registry)), server_class, _Quiet)
        self._thread = threading.Thread(target=self._server.serve_forever, name="ortmesh-prometheus", daemon=True)
        self._thread.start()
        self.port: int = self._server.server_port

    def close(self) -> None:
        """Stops listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Snapshots(Collector):
    """Gives Prometheus's library a snapshot as its metric families."""

    def __init__(self, snapshot: Callable[[], Snapshot]) -> None:
        self._snapshot = snapshot

    def collect(self) -> Iterator[Metric]:
        ordered = sorted(self._snapshot(), key=lambda point: point.instrument.name)
        for instrument, points in groupby(ordered, key=lambda point: point.instrument):
            yield _family(instrument, list(points))


def _family(instrument: Instrument, points: list[Point]) -> Metric:
    name, labels = prometheus_name(instrument), [_word(label) for label in points[0].labels]
    family: Any = {"histogram": HistogramMetricFamily, "counter": CounterMetricFamily}.get(
        instrument.kind, GaugeMetricFamily
    )(name, instrument.description, labels=labels)
    for point in points:
        values = [str(value) for value in point.labels.values()]
        if isinstance(point.value, Buckets):
            family.add_metric(values, _cumulative(instrument.bounds, point.value), point.value.sum)
        else:
            family.add_metric(values, point.value)
    made: Metric = family
    return made


def _cumulative(bounds: Iterable[float], held: Buckets) -> list[tuple[str, float]]:
    """Prometheus's buckets: each counts all values up to its bound."""
    return list(zip([*(str(float(bound)) for bound in bounds), "+Inf"], accumulate(held.counts), strict=True))


def prometheus_name(instrument: Instrument) -> str:
    """`ortmesh.queue.duration` in `s` as `ortmesh_queue_duration_seconds`; the library adds `_total` to counters."""
    suffix = _UNITS.get(instrument.unit)
    return _word(instrument.name) + (f"_{suffix}" if suffix else "")


def _word(dotted: str) -> str:
    return dotted.replace(".", "_")


def _only_metrics(application: Any) -> Any:
    """The library's application answers on every path; ours on one."""

    def answer(environ: dict[str, Any], start_response: Any) -> Any:
        if environ["PATH_INFO"] == "/metrics":
            return application(environ, start_response)
        start_response("404 Not Found", [("Content-Type", "text/plain; charset=utf-8")])
        return [b"only /metrics is here\n"]

    return answer


class _ServerV6(ThreadingWSGIServer):
    address_family = socket.AF_INET6


class _Quiet(WSGIRequestHandler):
    """Scrapes are not worth a line in the log."""

    def log_message(self, format: str, *args: Any) -> None:
        """Logs nothing."""
