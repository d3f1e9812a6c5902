"""The gateway's span of a sampled trace: Envoy sends it where OpenTelemetry's variables say. Stage: gateway."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from ortmesh.telemetry import traces_endpoint

Json = dict[str, Any]

COLLECTOR = "collector"
SERVICE = "ortmesh-gateway"
DEFAULT_PORT = 4317


def endpoint() -> tuple[str, int, bool] | None:
    """(host, port, whether over TLS) of the collector; None when the environment names none."""
    found = traces_endpoint()
    if found is None:
        return None
    parts = urlsplit(found if "//" in found else f"//{found}")
    return parts.hostname or "localhost", parts.port or DEFAULT_PORT, parts.scheme == "https"


def tracing() -> Json:
    """What makes the connection manager tell spans: only those of callers whose `traceparent` is sampled."""
    never = _sampler("trace_id_ratio_based", "TraceIdRatioBased", sampling_percentage={"numerator": 0})
    config = {
        "@type": "type.googleapis.com/envoy.config.trace.v3.OpenTelemetryConfig",
        "grpc_service": {"envoy_grpc": {"cluster_name": COLLECTOR}, "timeout": "5s"},
        "service_name": SERVICE,
        "sampler": _sampler("parent_based", "ParentBased", wrapped_sampler=never),
    }
    return {
        "provider": {"name": "envoy.tracers.opentelemetry", "typed_config": config},
        # All go to the sampler: Envoy's own shares would overwrite what the caller decided.
        "random_sampling": {"value": 100},
        "overall_sampling": {"value": 100},
    }


def _sampler(name: str, kind: str, **fields: Any) -> Json:
    type_url = f"type.googleapis.com/envoy.extensions.tracers.opentelemetry.samplers.v3.{kind}SamplerConfig"
    return {
        "name": f"envoy.tracers.opentelemetry.samplers.{name}",
        "typed_config": {"@type": type_url, **fields},
    }


def cluster(host: str, port: int, tls: bool) -> Json:
    """The collector as Envoy calls it. One that is away costs nothing but the spans."""
    made: Json = {
        "name": COLLECTOR,
        "type": "STRICT_DNS",
        "connect_timeout": "1s",
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {"http2_protocol_options": {}},
            }
        },
        "load_assignment": {
            "cluster_name": COLLECTOR,
            "endpoints": [
                {"lb_endpoints": [{"endpoint": {"address": {"socket_address": {"address": host, "port_value": port}}}}]}
            ],
        },
    }
    if tls:
        made["transport_socket"] = {
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
                "sni": host,
                "common_tls_context": {"validation_context": {"system_root_certs": {}}},
            },
        }
    return made
