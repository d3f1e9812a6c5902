"""Spans of sampled traces: one a call, with what its items did as children. Stage: shared.

A span costs 40 to 60 µs, so it is only made where the caller's `traceparent` says that the trace is sampled, and only
exported where OpenTelemetry's environment variables name a collector.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from ortmesh.telemetry.instruments import NUMBER_OF_CODE
from ortmesh.telemetry.rpc import rpc_labels

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter

_FLAGS_DIGIT = 54
"""Where the last digit of `traceparent`'s flags stands: 00-<32 digits>-<16 digits>-<2 digits>."""
_SERVER_FAULTS = frozenset({"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"})
"""The codes by which a server's span is an error, after OpenTelemetry's conventions."""

log = logging.getLogger(__name__)


class Traces:
    """Makes and ends spans. Thread-safe. Without an exporter, spans only carry the caller's ids, for the logs."""

    def __init__(self, resource: Resource | None = None, exporter: SpanExporter | None = None) -> None:
        self._propagator = TraceContextTextMapPropagator()
        self._provider = _provider(resource, exporter) if exporter else None
        self._tracer = self._provider.get_tracer("ortmesh") if self._provider else None

    def begin(self, name: str, traceparent: str | bytes, tracestate: str | bytes | None = None) -> Span | None:
        """The service's span of a call, or None when its trace is not sampled or `traceparent` is malformed."""
        if not isinstance(traceparent, str) or traceparent[_FLAGS_DIGIT : _FLAGS_DIGIT + 1] not in set("13579bdf"):
            return None
        carrier = {"traceparent": traceparent}
        if isinstance(tracestate, str):
            carrier["tracestate"] = tracestate
        parent = self._propagator.extract(carrier, Context())
        caller = trace.get_current_span(parent)
        if not caller.get_span_context().is_valid:
            return None
        if self._tracer is None:
            return caller
        return self._tracer.start_span(name, parent, SpanKind.SERVER, attributes=rpc_labels(name))

    def end(self, span: Span, name: str, code: str) -> None:
        """Ends a call's span with its canonical code."""
        span.set_attribute("rpc.grpc.status_code", NUMBER_OF_CODE[code])
        if code in _SERVER_FAULTS:
            span.set_status(Status(StatusCode.ERROR, code))
        span.end()

    def children(self, span: Span, queued: float, taken: float, done: float, attributes: dict[str, str | int]) -> None:
        """The spans `queue` and `compute` of one item under its call's span; times are `time.monotonic()` seconds."""
        if self._tracer is None:
            return
        offset = time.time_ns() - time.monotonic_ns()
        within = trace.set_span_in_context(span, Context())
        for name, start, end in (("queue", queued, taken), ("compute", taken, done)):
            child = self._tracer.start_span(name, within, attributes=attributes, start_time=_nanoseconds(start, offset))
            child.end(_nanoseconds(end, offset))

    def shutdown(self) -> None:
        """Sends what is left."""
        if self._provider is not None:
            self._provider.shutdown()


def _provider(resource: Resource | None, exporter: SpanExporter) -> TracerProvider:
    """Imported late: the SDK costs 50 ms at start, and most processes export no spans."""
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased

    provider = TracerProvider(ParentBased(ALWAYS_OFF), resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return provider


def _nanoseconds(monotonic_seconds: float, offset: int) -> int:
    return int(monotonic_seconds * 1e9) + offset
