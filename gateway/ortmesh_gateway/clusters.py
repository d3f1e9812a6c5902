"""One cluster: a family's replicas as Envoy sees them, how they are checked, balanced and spared. Stage: gateway."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ortmesh.config import MIB
from ortmesh_gateway.addresses import Address
from ortmesh_gateway.methods import services

Json = dict[str, Any]

CALLS_A_REPLICA = 1024
"""In flight, as a service's front bounds them itself."""
IDLE_SECONDS = 5
"""How long a connection to a replica waits for its caller's next call. It outlives its caller: Envoy would keep it for
an hour, and callers that come and go would leave more and more of them."""
NAMED_REPLICAS = 32
"""How many a name may stand for, where Envoy's limits multiply by them."""


def cluster(name: str, addresses: Sequence[Address], *, checked: bool = True) -> Json:
    """A cluster of replicas; `checked` is False for the directory, which lives and dies with the gateway."""
    named = any(address.is_name for address in addresses)
    made: Json = {
        "name": name,
        "type": "STRICT_DNS" if named else "STATIC",
        "connect_timeout": "0.5s",
        # A caller's calls share no connection with anybody else's, so that what it does to its own harms nobody: after
        # twenty cancelled calls in one read the native server ends a connection, and shared ones took a fifth of all
        # neighbours' calls with them. A caller's connection costs 45 KB here and 55 KB in the services.
        "connection_pool_per_downstream_connection": True,
        "per_connection_buffer_limit_bytes": MIB,
        # The least busy of four draws, not of all: a replica that just died answers nothing, looks idle, and would be
        # chosen again by every retry.
        "lb_policy": "LEAST_REQUEST",
        "least_request_lb_config": {"choice_count": 4},
        # Replicas that are not healthy are asked only where none is: a service whose models all load or failed says
        # that itself, better than Envoy's "no healthy upstream". Envoy would ask them below half.
        "common_lb_config": {
            "healthy_panic_threshold": {"value": 1},
            # What health checks and failures say counts at once; Envoy would else gather it for a second, in which
            # every call goes to a replica that is known to be dead.
            "update_merge_window": "0s",
        },
        "circuit_breakers": {"thresholds": [_thresholds(NAMED_REPLICAS if named else len(addresses))]},
        "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": _protocol()},
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [_endpoint(address) for address in addresses]}],
        },
    }
    if checked:
        made |= {
            "health_checks": [_health_check(name)],
            "ignore_health_on_host_removal": True,
            "outlier_detection": _outliers(),
        }
    if named:
        made["dns_lookup_family"] = "V4_PREFERRED"
    return made


def _endpoint(address: Address) -> Json:
    return {"endpoint": {"address": address.for_envoy()}}


def _thresholds(replicas: int) -> Json:
    """For the whole cluster. Calls wait only while connections are made: at the start that may be all of them."""
    return {
        "max_connections": 64 * replicas,
        "max_requests": CALLS_A_REPLICA * replicas,
        "max_pending_requests": CALLS_A_REPLICA * replicas,
        # A connection that ends takes up to a hundred calls with it, all of which try once more, each at most twice.
        "retry_budget": {"budget_percent": {"value": 100}, "min_retry_concurrency": 256},
        "track_remaining": True,
    }


def _health_check(family: str) -> Json:
    """Asks for the family's own service: an address may have become another family's pod.

    A process that dies is seen by its connections; the timeout is for one that hangs, and must not take a busy one
    for it."""
    return {
        "timeout": "2s",
        "interval": "1s",
        # Until it is well: a call that comes right after the start must not meet an unknown replica.
        "no_traffic_interval": "0.25s",
        "no_traffic_healthy_interval": "1s",
        "unhealthy_interval": "0.25s",
        "unhealthy_threshold": 2,
        "healthy_threshold": 1,
        "grpc_health_check": {"service_name": services(family)[0]},
    }


def _outliers() -> Json:
    """Only what the connection says ejects a replica.

    Not its answers: one model that loads answers UNAVAILABLE and one caller may provoke INTERNAL, while every other
    call on that replica goes well.
    """
    return {
        "split_external_local_origin_errors": True,
        "consecutive_local_origin_failure": 5,
        "enforcing_consecutive_local_origin_failure": 100,
        "enforcing_local_origin_success_rate": 0,
        "enforcing_consecutive_5xx": 0,
        "enforcing_consecutive_gateway_failure": 0,
        "enforcing_success_rate": 0,
        "interval": "0.5s",
        "base_ejection_time": "1s",
        "max_ejection_time": "10s",
        "max_ejection_percent": 50,
    }


def _protocol() -> Json:
    http2: Json = {
        "max_concurrent_streams": 100,
        "initial_stream_window_size": 256 * 1024,
        "initial_connection_window_size": 32 * MIB,
        # A machine may vanish without a word, and a process that hangs says none: calls in it go elsewhere.
        "connection_keepalive": {"interval": "10s", "timeout": "5s"},
    }
    return {
        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        "common_http_protocol_options": {"idle_timeout": f"{IDLE_SECONDS}s"},
        "explicit_http_config": {"http2_protocol_options": http2},
    }
