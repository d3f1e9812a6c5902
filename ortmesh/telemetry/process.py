"""Telemetry: all that one process tells, and the ways out. Stage: shared."""

from __future__ import annotations

import logging
from collections.abc import Callable
from threading import Lock, Thread
from typing import TYPE_CHECKING

from ortmesh import __version__
from ortmesh.config import TelemetrySettings
from ortmesh.telemetry import instruments, otlp
from ortmesh.telemetry.model import ModelMeter
from ortmesh.telemetry.rpc import Rpc
from ortmesh.telemetry.series import Point, Snapshot
from ortmesh.telemetry.traces import Traces

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import Span

    from ortmesh.telemetry.prometheus import Endpoint

SHUTDOWN_SECONDS = 5.0
"""How long a last export may hold up the end of the process."""

log = logging.getLogger(__name__)


class Telemetry:
    """Metrics and spans of one process. Thread-safe.

    OTLP export begins with it when OTEL_EXPORTER_OTLP_ENDPOINT (or its form for traces or metrics) is set.
    """

    def __init__(self, settings: TelemetrySettings, service: str, *, span_exporter: SpanExporter | None = None) -> None:
        """`service` is OpenTelemetry's `service.name`, e.g. `ortmesh-vision`; `span_exporter` is for tests."""
        self._settings = settings
        self._service = service
        self._lock = Lock()
        self._rpcs: dict[str, Rpc] = {}
        self._meters: dict[tuple[str, str], ModelMeter] = {}
        self._in_flight: Callable[[], int] = int
        self._endpoint: Endpoint | None = None
        spans, metrics = span_exporter or otlp.span_exporter(), otlp.metric_exporter()
        resource = otlp.resource(service) if spans or metrics else None
        self._traces = Traces(resource, spans)
        self._metrics = otlp.MetricsThread(metrics, resource, self.snapshot) if metrics and resource else None

    def rpc(self, path: str) -> Rpc:
        """The recorder of one method, `/package.Service/Method`; the same one for the same path."""
        with self._lock:
            return self._rpcs.setdefault(path, Rpc(path, self._traces))

    def meter(self, model: str, version: str) -> ModelMeter:
        """The meter of one model version; the same one for the same version."""
        with self._lock:
            return self._meters.setdefault((model, version), ModelMeter(model, version))

    def model_state(
        self, model: str, version: str, state: str | None, *, provider: str = "", precision: str = ""
    ) -> None:
        """Where a version stands: LOADING, READY, FAILED or UNLOADING; None once it is gone. While it is READY also on
        which of ONNX Runtime's providers it runs, and in which precision."""
        self.meter(model, version).state(state, provider, precision)

    def in_flight(self, read: Callable[[], int]) -> None:
        """Where the number of calls in flight is read: counting them here again would cost 0.5 µs a call."""
        self._in_flight = read

    def spans(
        self, span: Span | None, queue_start: float, start: float, end: float, *, model: str = "", version: str = ""
    ) -> None:
        """Children `queue` and `compute` of a call's span for one item; times are `time.monotonic()` seconds.

        Nothing without a span.
        """
        if span is not None:
            self._traces.children(span, queue_start, start, end, {"model": model, "version": version})

    def snapshot(self) -> Snapshot:
        """All series now."""
        with self._lock:
            sources: list[Rpc | ModelMeter] = [*self._rpcs.values(), *self._meters.values()]
            points = [Point(instruments.IN_FLIGHT, {}, self._in_flight())]
        return points + [point for source in sources for point in source.read()]

    def serve_prometheus(self, port: int | None) -> int | None:
        """Serves /metrics on the settings' host; 0: a free port. Returns the port; None does nothing.

        OSError when the port is taken.
        """
        if port is None:
            return None
        from ortmesh.telemetry.prometheus import Endpoint  # 65 ms of imports that most tools don't need

        about = {"service_name": self._service, "service_version": __version__}
        host = self._settings.metrics_host
        try:
            self._endpoint = Endpoint(host, port, about, self.snapshot)
        except OSError as error:
            raise OSError(error.errno, f"cannot serve metrics on {host}:{port}: {error.strerror}") from None
        return self._endpoint.port

    def shutdown(self) -> None:
        """Sends what is left, for at most 5 s each way, and closes the endpoint. The last thing a process does."""
        _bounded(self._traces.shutdown, "spans")
        if self._metrics is not None:
            _bounded(self._metrics.shutdown, "metrics")
        if self._endpoint is not None:
            self._endpoint.close()
            self._endpoint = None


def _bounded(shutdown: Callable[[], None], what: str) -> None:
    """A collector that does not answer must not hold up the process."""
    thread = Thread(target=shutdown, name=f"ortmesh-last-{what}", daemon=True)
    thread.start()
    thread.join(SHUTDOWN_SECONDS)
    if thread.is_alive():
        log.warning("the last %s were not taken by the collector", what)
