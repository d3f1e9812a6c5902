"""A collector of OpenTelemetry, for tests: real port, real protocol."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2, metrics_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc


class Collector(trace_service_pb2_grpc.TraceServiceServicer, metrics_service_pb2_grpc.MetricsServiceServicer):
    """A collector: keeps what the OTLP exporters send over a real port."""

    def __init__(self) -> None:
        self.spans: list[Any] = []
        self.services: dict[str, str] = {}
        """The service of each span, by the span's id."""
        self.metrics: dict[str, Any] = {}
        self.resource: dict[str, str] = {}
        self._server = grpc.server(ThreadPoolExecutor(2))
        traces, metrics = trace_service_pb2_grpc, metrics_service_pb2_grpc
        traces.add_TraceServiceServicer_to_server(self, self._server)  # type: ignore[no-untyped-call]
        metrics.add_MetricsServiceServicer_to_server(self, self._server)  # type: ignore[no-untyped-call]
        self.endpoint = f"http://127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def Export(self, request: Any, context: Any) -> Any:  # noqa: N802
        if isinstance(request, metrics_service_pb2.ExportMetricsServiceRequest):
            for batch in request.resource_metrics:
                self.resource = attributes(batch.resource.attributes)
                self.metrics = {metric.name: metric for scope in batch.scope_metrics for metric in scope.metrics}
            return metrics_service_pb2.ExportMetricsServiceResponse()
        for each in request.resource_spans:
            service = attributes(each.resource.attributes)["service.name"]
            for span in (span for scope in each.scope_spans for span in scope.spans):
                self.services[span.span_id.hex()] = service
                self.spans.append(span)
        return trace_service_pb2.ExportTraceServiceResponse()

    def close(self) -> None:
        self._server.stop(None).wait()


def attributes(pairs: Any) -> dict[str, Any]:
    return {pair.key: pair.value.string_value or pair.value.int_value for pair in pairs}
