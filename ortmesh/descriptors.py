"""The descriptors of all our protos in one private pool, and OIP's message classes made from it. Stage: shared.

OIP's messages must not enter protobuf's default pool: a caller's process may hold tritonclient, whose copy of
`package inference` collides with any other (docs/decisions/0004-stubs-and-pools.md). The client never imports
this module.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from ortmesh.common.v1 import common_pb2

OIP_SERVICE = "inference.GRPCInferenceService"
HEALTH_SERVICE = "grpc.health.v1.Health"
REFLECTION_SERVICES = ("grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection")
DEFAULT_MAX_REQUEST_BYTES = 4 * 1024 * 1024
DEFAULT_TIMEOUT_SECONDS = 60.0


@cache
def pool() -> descriptor_pool.DescriptorPool:
    """All our protos with their imports, health and reflection: what reflection answers from."""
    made = descriptor_pool.DescriptorPool()
    shipped = descriptor_pb2.FileDescriptorSet.FromString(files("ortmesh").joinpath("descriptors.binpb").read_bytes())
    for file in shipped.file:
        made.Add(file)
    for module in (health_pb2, reflection_pb2):
        made.AddSerializedFile(module.DESCRIPTOR.serialized_pb)
    made.Add(_reflection_v1())
    return made


def _reflection_v1() -> descriptor_pb2.FileDescriptorProto:
    """`grpc.reflection.v1`, which current tools ask first: v1alpha under another name, equal on the wire."""
    file = descriptor_pb2.FileDescriptorProto()
    reflection_pb2.DESCRIPTOR.CopyToProto(file)
    file.name, file.package = "grpc/reflection/v1/reflection.proto", "grpc.reflection.v1"
    for message in file.message_type:
        for field in (field for field in message.field if field.type_name):
            field.type_name = field.type_name.replace(".v1alpha.", ".v1.")
    for method in (method for service in file.service for method in service.method):
        method.input_type = method.input_type.replace(".v1alpha.", ".v1.")
        method.output_type = method.output_type.replace(".v1alpha.", ".v1.")
    return file


@cache
def oip(message: str) -> type[Any]:
    """The class of a message of the Open Inference Protocol, e.g. `oip("ModelInferRequest")`.

    The result is typed Any because the classes are made at run time.
    """
    return message_factory.GetMessageClass(pool().FindMessageTypeByName(f"inference.{message}"))


def service(full_name: str) -> ServiceDescriptor:
    """The descriptor of a service, e.g. `ortmesh.nlp.v1.NlpService`. KeyError when there is none."""
    return pool().FindServiceByName(full_name)


def service_names() -> list[str]:
    """Every service of the mesh by its full name: the families', ModelService and OIP."""
    shipped = descriptor_pb2.FileDescriptorSet.FromString(files("ortmesh").joinpath("descriptors.binpb").read_bytes())
    return sorted(f"{file.package}.{service.name}" for file in shipped.file for service in file.service)


def limits(method: MethodDescriptor) -> tuple[int, float]:
    """(largest request in bytes, default deadline in seconds) that the method states in its proto."""
    options = common_pb2.MethodLimits()
    raw = descriptor_pb2.MethodOptions.FromString(method.GetOptions().SerializeToString())
    if raw.HasExtension(common_pb2.limits):
        options = raw.Extensions[common_pb2.limits]
    timeout = options.default_timeout.ToTimedelta().total_seconds() if options.HasField("default_timeout") else 0.0
    return options.max_request_bytes or DEFAULT_MAX_REQUEST_BYTES, timeout or DEFAULT_TIMEOUT_SECONDS


def has_side_effects(method: MethodDescriptor) -> bool:
    """False for methods that may be repeated: `idempotency_level` is NO_SIDE_EFFECTS."""
    level = descriptor_pb2.MethodOptions.FromString(method.GetOptions().SerializeToString()).idempotency_level
    return bool(level != descriptor_pb2.MethodOptions.NO_SIDE_EFFECTS)
