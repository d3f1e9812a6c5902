"""The routes: the file that Envoy watches, made from the protos' descriptors and the models known. Stage: gateway.

Order: what is refused outright, then each method by its path, then UNIMPLEMENTED. A route that matched never falls
through, so every method's limits stand on its own routes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from ortmesh_gateway.methods import DIRECTORY, STREAM_MODEL_HEADER, MethodRoute, method_routes

Json = dict[str, Any]

ROUTES_NAME = "mesh"
MODEL_HEADER = "x-ortmesh-model"
GRPC_PREFIX_BYTES = 5
"""A message's flag and length on the wire: a body may be that much longer than the message."""
IDLE_GRACE_SECONDS = 2.0
"""Beyond the longest silence, so that the call's own deadline ends it first."""
FLUSH_SECONDS = 30.0
"""How long a caller may leave an answer unread that is complete."""
RETRIES = 2
"""The second and third replica are asked. No more: a request that ends the process it runs in would end them all."""
RETRY_ON = "connect-failure,refused-stream,reset,unavailable"
"""Only for methods that may be repeated. Services answer UNAVAILABLE before work began; a reset means that a replica
died in the middle of it."""

HOST_DRAWS = 100
"""How often a retry draws again to find a replica that was not asked yet: with two of them, one of which looks idle
because it is dead, sixteen draws on average."""

NOT_SERVED = 404
"""gRPC callers see UNIMPLEMENTED."""


def route_configuration(models: Mapping[str, str], clusters: Collection[str]) -> Json:
    """Envoy's RouteConfiguration. `models` gives each known model's cluster, `clusters` the families with a backend."""
    served = [route for method in _busiest_first() for route in routes_of(method, models, clusters)]
    return {
        "name": ROUTES_NAME,
        "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [*_refusals(), *served, _unknown()]}],
    }


def discovery_file(configuration: Json, version: str) -> Json:
    """The same as the file that Envoy watches holds it; Envoy reports the version once it uses the routes."""
    kind = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"
    return {"version_info": version, "resources": [{"@type": kind, **configuration}]}


def routed_models(routes: Iterable[Json]) -> dict[str, str]:
    """Each model that these routes name, and its cluster: what `route_configuration` was given."""
    return {
        header["string_match"]["exact"]: route["route"]["cluster"]
        for route in routes
        for header in route["match"].get("headers", ())
        if header["name"] == MODEL_HEADER
    }


def _busiest_first() -> list[MethodRoute]:
    """Envoy reads routes in order: few and large methods first, those with a route a model last."""
    return sorted(method_routes(), key=lambda method: (method.by_model, -method.max_request_bytes, method.path))


def _refusals() -> list[Json]:
    """Before anything else: a body that unpacks without bound, other verbs, deadlines and paths that servers read
    differently from Envoy."""
    compressed = {
        "name": "grpc-encoding",
        "string_match": {"exact": "identity"},
        "invert_match": True,
        "treat_missing_header_as_empty": False,
    }
    verb = {"name": ":method", "string_match": {"exact": "POST"}, "invert_match": True}
    deadline = {
        "name": "grpc-timeout",
        "string_match": {"safe_regex": {"regex": "[0-9]{1,8}[HMSmun]"}},
        "invert_match": True,
        "treat_missing_header_as_empty": False,
    }
    query = {"name": ":path", "string_match": {"contains": "?"}}
    identity = {"header": {"key": "grpc-accept-encoding", "value": "identity"}}
    return [
        _refusal(compressed, NOT_SERVED, "compressed requests are not accepted")
        | {"response_headers_to_add": [identity]},
        _refusal(verb, 405, "gRPC calls are POST requests"),
        _refusal(deadline, 400, "grpc-timeout is malformed"),
        _refusal(query, NOT_SERVED, "a method's path has no query"),
    ]


def _refusal(header: Json, status: int, text: str) -> Json:
    return {
        "match": {"prefix": "/", "headers": [header]},
        "direct_response": {"status": status, "body": {"inline_string": text}},
    }


def _unknown() -> Json:
    body = {"inline_string": "the mesh has no such method"}
    return {"match": {"prefix": "/"}, "direct_response": {"status": NOT_SERVED, "body": body}}


def routes_of(method: MethodRoute, models: Mapping[str, str], clusters: Collection[str]) -> Iterator[Json]:
    """A method's routes: one a model where the model chooses, then the one for all other calls."""
    match = {"path": method.path, "grpc": {}}
    if method.cluster != DIRECTORY and method.cluster not in clusters:
        body = {"inline_string": f"this mesh runs no {method.cluster} service"}
        yield {"match": match, "direct_response": {"status": NOT_SERVED, "body": body}}
        return
    if method.by_model:
        for name, cluster in sorted(models.items()):
            header = MODEL_HEADER if method.buffered else STREAM_MODEL_HEADER
            named = {"name": header, "string_match": {"exact": name}}
            yield _route(method, match | {"headers": [named]}, cluster)
    yield _route(method, match, method.cluster)


def _route(method: MethodRoute, match: Json, cluster: str) -> Json:
    return {
        "match": match,
        "route": _action(method, cluster),
        "typed_per_filter_config": _filters(method),
        "metadata": {"filter_metadata": {"ortmesh": {"max_request_bytes": method.max_request_bytes}}},
    }


def _action(method: MethodRoute, cluster: str) -> Json:
    """The caller's `grpc-timeout` counts, uncapped and passed on as it came, also to the second replica that is asked;
    where there is none Envoy sends the method's default deadline along, or the service takes it by itself."""
    ours = {"max_stream_duration": seconds(method.default_seconds), "grpc_timeout_header_max": "0s"}
    action: Json = {
        "cluster": cluster,
        "timeout": "0s",
        "idle_timeout": seconds(method.idle_seconds + IDLE_GRACE_SECONDS),
        "flush_timeout": seconds(FLUSH_SECONDS),
        "max_stream_duration": {"max_stream_duration": "0s"} if method.timed_by_service else ours,
    }
    return action | {"retry_policy": _retries()} if method.retried else action


def _retries() -> Json:
    previous_hosts = {
        "name": "envoy.retry_host_predicates.previous_hosts",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"
        },
    }
    return {
        "retry_on": RETRY_ON,
        "num_retries": RETRIES,
        "retry_back_off": {"base_interval": "0.01s", "max_interval": "0.1s"},
        "retry_host_predicate": [previous_hosts],
        "host_selection_retry_max_attempts": HOST_DRAWS,
    }


def _filters(method: MethodRoute) -> Json:
    buffer_type = "type.googleapis.com/envoy.extensions.filters.http.buffer.v3.BufferPerRoute"
    limit = {"max_request_bytes": method.max_request_bytes + GRPC_PREFIX_BYTES}
    filters: Json = {}
    if method.buffered:
        filters["envoy.filters.http.buffer"] = {"@type": buffer_type, "buffer": limit}
    if method.by_model and method.buffered:
        filters["envoy.filters.http.lua"] = {
            "@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig",
            "config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.lua.v3.LuaPerRoute"},
        }
    return filters


def seconds(value: float) -> str:
    """A protobuf Duration in JSON."""
    return f"{value:g}s"
