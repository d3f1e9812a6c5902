"""Envoy's bootstrap: listener, filters, limits, admin. Each limit answers an attack that Envoy's defaults fail.

With Envoy's defaults 300 readers that never open their window hold 4.6 GB, a 500 MB message 1.0 GB. Stage: gateway.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from ortmesh.config import MIB, GatewaySettings
from ortmesh.front.dispatch import CALLER_KEY
from ortmesh_gateway import tracing
from ortmesh_gateway.addresses import Address, by_family
from ortmesh_gateway.clusters import cluster
from ortmesh_gateway.methods import DIRECTORY, STREAM_SILENCE_SECONDS
from ortmesh_gateway.replies import local_replies
from ortmesh_gateway.routes import ROUTES_NAME, seconds

Json = dict[str, Any]

NOT_FROM_CALLERS: tuple[Json, ...] = (
    {"prefix": "x-ortmesh-"},
    {"prefix": "x-envoy-"},
    {"suffix": "-bin"},
    {"safe_regex": {"regex": "grpc-[^ate].*"}},
)
"""Headers that are removed before routing. By ours services know caller and model, by Envoy's a caller would set
retries and timeouts of its own. Binary ones and gRPC's own (but for timeout, encoding and accept-encoding) no service
reads, and grpcio fails on malformed ones: not that call alone, but every later one of anybody that has the same header
on the same connection, since it keeps the failure in HTTP/2's table of headers."""
MAX_HEADERS = 256
"""Beyond, HTTP/2 has no answer but a reset, which callers see as INTERNAL."""
RUNTIME: Json = {
    # A connection's next call is looked at after everybody else had a turn. Of calls that come and are cancelled in one
    # packet (5,000 a second) one in a hundred reaches a service; a caller of 64 at once pays 5 us of CPU for each.
    "http.max_requests_per_io_cycle": 1,
    # Never. By default a connection ends at its 250th call that was left within two seconds, however long that took;
    # and that is what a library does with a call whose deadline passes. The pace is bounded instead, below.
    "overload.premature_reset_total_stream_count": 1_000_000_000,
}
RESETS_A_SECOND = 2_000
"""How many calls a connection may leave in a second; at more it ends. A caller may have a hundred calls at once: that
is what it leaves when all have deadlines of 50 ms, which pass. Envoy's own limit is 33, after a first 1,000."""
READ_BYTES = 16 * 1024
"""How much of a connection is looked at in one go, in which nothing is bounded yet (Envoy reads in pieces of up to
128 KiB). With 1 MiB ten connections that leave 10,000 calls each at once took 590 MB and held up all others for 2.8 s;
so they take 26 MB, and others wait 0.07 s. A body of 30 MB, there and back, costs 29 ms of CPU instead of 24."""
CALLER = "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%"
"""Who calls, as far as the gateway knows: the address of the connection's other end."""
CONNECTION_WINDOW = MIB
STREAM_WINDOW = 256 * 1024
KEPT_BYTES = 96 * MIB
"""Beyond it, free memory goes back to the system. Envoy would keep for ever what an attack made it take; while more
than this is in use, a body of 30 MB costs 25 to 30 ms of CPU instead of 11."""


def _typed(kind: str, **fields: Any) -> Json:
    return {"@type": f"type.googleapis.com/envoy.{kind}", **fields}


def bootstrap(settings: GatewaySettings, *, listen: Address, directory: Address, admin: Path, routes: Json) -> Json:
    """The whole configuration. `routes` is `watched(path)` or, for validation, `{"route_config": …}`."""
    families = [cluster(name, addresses) for name, addresses in sorted(by_family(settings.backends).items())]
    collector = tracing.endpoint()
    return {
        "node": {"id": "gateway", "cluster": "ortmesh"},
        "static_resources": {
            "listeners": [_listener(settings, listen, routes, traced=collector is not None)],
            "clusters": [
                *families,
                cluster(DIRECTORY, (directory,), checked=False),
                *([tracing.cluster(*collector)] if collector else []),
            ],
        },
        # Whoever reaches admin rules the gateway: a socket that only this user opens.
        "admin": {"address": {"pipe": {"path": str(admin), "mode": 0o600}}},
        "layered_runtime": {"layers": [{"name": "limits", "static_layer": RUNTIME}]},
        "overload_manager": _overload(settings),
        "memory_allocator_manager": {"soft_memory_limit_bytes": KEPT_BYTES},
    }


def watched(routes: Path) -> Json:
    """Routes from a file that is replaced by rename."""
    source = {"path_config_source": {"path": str(routes)}, "resource_api_version": "V3"}
    return {"rds": {"route_config_name": ROUTES_NAME, "config_source": source}}


def _listener(settings: GatewaySettings, listen: Address, routes: Json, *, traced: bool) -> Json:
    return {
        "name": "mesh",
        "address": listen.for_envoy(),
        "per_connection_buffer_limit_bytes": READ_BYTES,
        # With it two gateways would share one port silently, each with its own backends.
        "enable_reuse_port": False,
        # Channels live long and carry thousands of calls: each goes to the worker with the fewest.
        "connection_balance_config": {"exact_balance": {}},
        "filter_chains": [
            {
                "filters": [
                    {
                        "name": "envoy.filters.network.http_connection_manager",
                        "typed_config": _connection_manager(settings, listen, routes, traced=traced),
                    }
                ]
            }
        ],
    }


def _connection_manager(settings: GatewaySettings, listen: Address, routes: Json, *, traced: bool) -> Json:
    return _typed(
        "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix="mesh",
        server_header_transformation="PASS_THROUGH",
        local_reply_config=local_replies(),
        http_filters=_http_filters(),
        access_log=_access_log() if settings.access_log else [],
        # Envoy traces only requests that have an id.
        generate_request_id=traced,
        **({"tracing": tracing.tracing()} if traced else {}),
        **_connections(settings),
        **_headers(listen),
        **routes,
    )


def _connections(settings: GatewaySettings) -> Json:
    """What a connection and its streams may take, and how long they may be silent."""
    return {
        "codec_type": "HTTP2",
        # For a stream that no route has matched; each route states its own.
        "stream_idle_timeout": seconds(STREAM_SILENCE_SECONDS),
        "request_headers_timeout": "5s",
        "max_request_headers_kb": 16,
        "drain_timeout": "5s",
        "common_http_protocol_options": {
            "idle_timeout": "300s",
            "max_headers_count": MAX_HEADERS,
            "headers_with_underscores_action": "ALLOW",
        },
        "http2_protocol_options": {
            "max_concurrent_streams": settings.max_streams,
            "initial_stream_window_size": STREAM_WINDOW,
            "initial_connection_window_size": CONNECTION_WINDOW,
            "connection_keepalive": {"interval": "30s", "timeout": "5s", "connection_idle_interval": "30s"},
            "stream_reset_burst": RESETS_A_SECOND,
            "stream_reset_rate": RESETS_A_SECOND,
        },
    }


def _headers(listen: Address) -> Json:
    """What is believed of a request's headers, and what is made of them before its route is looked for."""
    mutations: list[Json] = [{"remove_on_match": {"key_matcher": matcher}} for matcher in NOT_FROM_CALLERS]
    # The other end of a Unix socket has no address; Envoy would name all callers by our own.
    if not listen.path:
        header = {"key": CALLER_KEY, "value": CALLER}
        mutations.append({"append": {"header": header, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}})
    return {
        "path_with_escaped_slashes_action": "REJECT_REQUEST",
        "normalize_path": True,
        "merge_slashes": False,
        # The peer is the caller, whatever x-forwarded-for says, and no caller is internal.
        "use_remote_address": True,
        "skip_xff_append": True,
        "internal_address_config": {"cidr_ranges": [{"address_prefix": "255.255.255.255", "prefix_len": 32}]},
        "early_header_mutation_extensions": [
            {
                "name": "envoy.http.early_header_mutation.header_mutation",
                "typed_config": _typed(
                    "extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation", mutations=mutations
                ),
            }
        ],
    }


def _http_filters() -> list[Json]:
    """Both only where a route asks. Buffer before Lua: alone, Lua fails at the connection's buffer limit. Lua costs
    28 µs; a buffer would hold a refusal back until the caller had said all, which a stream's caller never does."""
    default_limit = _typed("extensions.filters.http.buffer.v3.Buffer", max_request_bytes=4 * MIB)
    script = _typed("extensions.filters.http.lua.v3.Lua", default_source_code={"inline_string": model_name_script()})
    router = _typed("extensions.filters.http.router.v3.Router", suppress_envoy_headers=True)
    return [
        {"name": "envoy.filters.http.buffer", "disabled": True, "typed_config": default_limit},
        {"name": "envoy.filters.http.lua", "disabled": True, "typed_config": script},
        {"name": "envoy.filters.http.router", "typed_config": router},
    ]


@cache
def model_name_script() -> str:
    """The Lua that reads the model's name from a body."""
    return files("ortmesh_gateway").joinpath("model_name.lua").read_text(encoding="utf-8")


def _access_log() -> list[Json]:
    fields = {
        "time": "%START_TIME%",
        "method": "%REQ(:PATH)%",
        "model": "%REQ(X-ORTMESH-MODEL)%",
        "caller": CALLER,
        "status": "%GRPC_STATUS(SNAKE_STRING)%",
        "details": "%RESPONSE_CODE_DETAILS%",
        "flags": "%RESPONSE_FLAGS%",
        "request_bytes": "%BYTES_RECEIVED%",
        "response_bytes": "%BYTES_SENT%",
        "milliseconds": "%DURATION%",
        "cluster": "%UPSTREAM_CLUSTER%",
        "host": "%UPSTREAM_HOST%",
        "attempts": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
        "traceparent": "%REQ(TRACEPARENT)%",
    }
    log = _typed("extensions.access_loggers.stream.v3.StdoutAccessLog", log_format={"json_format": fields})
    return [{"name": "envoy.access_loggers.stdout", "typed_config": log}]


def _overload(settings: GatewaySettings) -> Json:
    """Connections are bounded, and so is the heap: buffered requests of 32 MiB add up."""
    heap = "envoy.resource_monitors.fixed_heap"
    connections = "envoy.resource_monitors.global_downstream_max_connections"

    def at(share: float) -> list[Json]:
        return [{"name": heap, "threshold": {"value": share}}]

    scaled = {"scaled": {"scaling_threshold": 0.85, "saturation_threshold": 0.95}}
    return {
        "refresh_interval": "0.1s",
        "resource_monitors": [
            {
                "name": heap,
                "typed_config": _typed(
                    "extensions.resource_monitors.fixed_heap.v3.FixedHeapConfig",
                    max_heap_size_bytes=settings.max_heap_bytes,
                ),
            },
            {
                "name": connections,
                "typed_config": _typed(
                    "extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig",
                    max_active_downstream_connections=settings.max_connections,
                ),
            },
        ],
        "actions": [
            {"name": "envoy.overload_actions.shrink_heap", "triggers": at(0.8)},
            {"name": "envoy.overload_actions.stop_accepting_requests", "triggers": at(0.9)},
            {"name": "envoy.overload_actions.reset_high_memory_stream", "triggers": [{"name": heap, **scaled}]},
        ],
        # The actions come between turns of a worker's loop, and one turn may begin 100,000 calls of 15 KB each: this
        # is asked at every call.
        "loadshed_points": [
            {"name": "envoy.load_shed_points.http_connection_manager_decode_headers", "triggers": at(0.9)}
        ],
        # Streams that hold at least 1 MiB are counted, those with the most end first.
        "buffer_factory_config": {"minimum_account_to_track_power_of_two": 20},
    }
