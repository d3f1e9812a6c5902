"""MethodRoute: what the gateway must know of each rpc, read from the protos' descriptors. Stage: gateway."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor

from ortmesh import descriptors

DIRECTORY = "directory"
"""The cluster that answers for the whole mesh: the gateway's own process."""
MESH_SERVICES = (descriptors.HEALTH_SERVICE, *descriptors.REFLECTION_SERVICES)
"""Served by the directory; their protos are not ours and state neither limits nor idempotency."""
MESH_MESSAGE_BYTES = 65_536
LONGEST_UNARY_SECONDS = 600.0
"""How long a call may compute in silence when its proto's default deadline is shorter: callers may ask for more
than the default."""
LONGEST_WATCH_SECONDS = 43_200.0
"""Of health's Watch: as ModelService.WatchModels states it."""
STREAM_SILENCE_SECONDS = 30.0
"""How long a caller of reflection may be silent, and a stream that no route has matched."""
STREAM_MODEL_HEADER = "ortmesh-model"
"""By which the caller of a stream of tensors says whose it is: its messages are not looked at."""
MODEL_FIELDS = ("name", "model_name")
"""What OIP calls field 1 where it holds the model's name; RepositoryIndex has the repository's there."""


@dataclass(frozen=True, slots=True)
class MethodRoute:
    """One rpc on its way through the gateway."""

    path: str
    """`/package.Service/Method`."""
    cluster: str
    """The family, or DIRECTORY."""
    by_model: bool
    """True when a model's name, in the body or in a stream's header, picks the cluster; others go to `cluster`."""
    buffered: bool
    """False for streams from the caller: the service bounds each message."""
    max_request_bytes: int
    default_seconds: float
    """The deadline where the caller set none."""
    timed_by_service: bool
    """True where answers are a stream: when the deadline passes in the middle of it, Envoy could only break it off,
    which callers see as INTERNAL; the service ends it with DEADLINE_EXCEEDED."""
    idle_seconds: float
    """How long it may be silent."""
    retried: bool
    """True when it has no side effects and all of its request is here: what a stream has said nobody keeps."""


@cache
def families() -> tuple[str, ...]:
    """The families that have a service: those of `ortmesh.<family>.v1`, the directory's own left out."""
    names = (name.split(".") for name in descriptors.service_names() if name.startswith("ortmesh."))
    return tuple(sorted({parts[1] for parts in names} - {"models"}))


@cache
def services(family: str) -> tuple[str, ...]:
    """The full names of a family's services."""
    return tuple(name for name in descriptors.service_names() if name.startswith(f"ortmesh.{family}."))


@cache
def method_routes() -> tuple[MethodRoute, ...]:
    """Every rpc of every proto, health and reflection included."""
    names = (*descriptors.service_names(), *MESH_SERVICES)
    return tuple(_route(method) for name in names for method in descriptors.service(name).methods)


def _route(method: MethodDescriptor) -> MethodRoute:
    service = method.containing_service.full_name
    of_mesh = service in MESH_SERVICES
    max_request_bytes, default_seconds = descriptors.limits(method)
    if of_mesh and method.server_streaming:
        default_seconds = LONGEST_WATCH_SECONDS
    return MethodRoute(
        path=f"/{service}/{method.name}",
        cluster=_cluster(service),
        by_model=_names_model(method),
        buffered=not method.client_streaming,
        max_request_bytes=MESH_MESSAGE_BYTES if of_mesh else max_request_bytes,
        default_seconds=default_seconds,
        timed_by_service=method.server_streaming and not of_mesh,
        idle_seconds=_idle_seconds(method, default_seconds),
        retried=not method.client_streaming and (of_mesh or not descriptors.has_side_effects(method)),
    )


def _cluster(service: str) -> str:
    family = service.split(".")[1] if service.startswith("ortmesh.") else ""
    return family if family in families() else DIRECTORY


def _names_model(method: MethodDescriptor) -> bool:
    if method.containing_service.full_name != descriptors.OIP_SERVICE:
        return False
    first = method.input_type.fields_by_number.get(1)
    return first is not None and first.type == FieldDescriptor.TYPE_STRING and first.name in MODEL_FIELDS


def _idle_seconds(method: MethodDescriptor, default_seconds: float) -> float:
    """A call that computes is idle to Envoy, and so are a watch on which nothing changes and a caller who pauses: they
    end by their deadlines alone, or with their connections, which are pinged."""
    if method.client_streaming and method.containing_service.full_name in MESH_SERVICES:
        return STREAM_SILENCE_SECONDS
    if method.client_streaming or method.name.startswith("Watch"):
        return default_seconds
    return max(default_seconds, LONGEST_UNARY_SECONDS)
