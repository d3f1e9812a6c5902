"""OTLP: spans and metrics sent to the collector that OpenTelemetry's environment variables name. Stage: shared."""

from __future__ import annotations

import logging
import os
import threading
import time
import uuid
from collections.abc import Callable
from itertools import groupby
from typing import TYPE_CHECKING

from ortmesh import __version__
from ortmesh.telemetry.series import Buckets, Instrument, Point, Snapshot

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics.export import (
        HistogramDataPoint,
        Metric,
        MetricExporter,
        MetricsData,
        NumberDataPoint,
    )
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace.export import SpanExporter

log = logging.getLogger(__name__)


def resource(service: str) -> Resource:
    """What the process is; OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES win."""
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource

    ours = {"service.name": service, "service.version": __version__, "service.instance.id": str(uuid.uuid4())}
    return Resource.create(ours).merge(OTELResourceDetector().detect())


def span_exporter() -> SpanExporter | None:
    """The exporter of spans, or None when the environment configures none."""
    if not _wanted("TRACES"):
        return None
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

    return OTLPSpanExporter()


def metric_exporter() -> MetricExporter | None:
    """The exporter of metrics, or None when the environment configures none."""
    if not _wanted("METRICS"):
        return None
    from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter

    return OTLPMetricExporter()


def traces_endpoint() -> str | None:
    """Where spans are sent, as the environment says; None when it configures no export of spans."""
    if not _wanted("TRACES"):
        return None
    return os.environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") or os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT")


def _wanted(signal: str) -> bool:
    """Whether the environment asks for a signal (`TRACES`, `METRICS`) over the protocol that is installed."""
    get = os.environ.get
    endpoint = get(f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT") or get("OTEL_EXPORTER_OTLP_ENDPOINT")
    off = get("OTEL_SDK_DISABLED", "").lower() == "true" or get(f"OTEL_{signal}_EXPORTER", "otlp") != "otlp"
    if not endpoint or off:
        return False
    protocol = get(f"OTEL_EXPORTER_OTLP_{signal}_PROTOCOL") or get("OTEL_EXPORTER_OTLP_PROTOCOL") or "grpc"
    if protocol != "grpc":
        log.error("no %s are exported: ortmesh speaks OTLP over grpc, not %s", signal.lower(), protocol)
        return False
    if (
        signal == "METRICS"
        and get("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "cumulative").lower() == "delta"
    ):
        log.warning("metrics are exported as cumulative values, not as deltas")
    return True


class MetricsThread:
    """Sends a snapshot every OTEL_METRIC_EXPORT_INTERVAL milliseconds (60,000), and a last one at shutdown."""

    def __init__(self, exporter: MetricExporter, resource: Resource, snapshot: Callable[[], Snapshot]) -> None:
        self._exporter = exporter
        self._resource = resource
        self._snapshot = snapshot
        self._started = time.time_ns()
        self._interval = float(os.environ.get("OTEL_METRIC_EXPORT_INTERVAL") or 60_000) / 1000
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ortmesh-otlp-metrics", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        stopping = False
        while not stopping:
            stopping = self._stop.wait(self._interval)
            try:
                self._exporter.export(metrics_data(self._snapshot(), self._resource, self._started))
            except Exception:  # the next interval tries again; a process never fails for its metrics
                log.exception("metrics could not be exported")

    def shutdown(self) -> None:
        """Sends what is left."""
        self._stop.set()
        self._thread.join()
        self._exporter.shutdown()


def metrics_data(snapshot: Snapshot, resource: Resource, started: int) -> MetricsData:
    """A snapshot as OpenTelemetry's exporters take it; cumulative since `started`, Unix nanoseconds."""
    from opentelemetry.sdk.metrics.export import MetricsData, ResourceMetrics, ScopeMetrics
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope

    now = time.time_ns()
    ordered = sorted(snapshot, key=lambda point: point.instrument.name)
    metrics = [
        _metric(instrument, list(points), started, now)
        for instrument, points in groupby(ordered, key=lambda point: point.instrument)
    ]
    scope = ScopeMetrics(InstrumentationScope("ortmesh", __version__), metrics, "")
    return MetricsData([ResourceMetrics(resource, [scope], "")])


def _metric(instrument: Instrument, points: list[Point], started: int, now: int) -> Metric:
    from opentelemetry.sdk.metrics.export import AggregationTemporality, Gauge, Histogram, Metric, Sum

    cumulative = AggregationTemporality.CUMULATIVE
    data: Gauge | Histogram | Sum
    if instrument.kind == "histogram":
        data = Histogram([_histogram_point(point, started, now) for point in points], cumulative)
    elif instrument.kind == "gauge":
        data = Gauge([_number_point(point, started, now) for point in points])
    else:
        data = Sum([_number_point(point, started, now) for point in points], cumulative, instrument.kind == "counter")
    return Metric(instrument.name, instrument.description, instrument.unit, data)


def _number_point(point: Point, started: int, now: int) -> NumberDataPoint:
    from opentelemetry.sdk.metrics.export import NumberDataPoint

    assert not isinstance(point.value, Buckets)
    return NumberDataPoint(point.labels, started, now, point.value)


def _histogram_point(point: Point, started: int, now: int) -> HistogramDataPoint:
    from opentelemetry.sdk.metrics.export import HistogramDataPoint

    held = point.value
    assert isinstance(held, Buckets)
    bounds = point.instrument.bounds
    return HistogramDataPoint(
        point.labels, started, now, held.count, held.sum, held.counts, bounds, held.low, held.high
    )
