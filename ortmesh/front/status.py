"""Errors as google.rpc.Status: the one place where an exception becomes a gRPC code with details. Stage: front."""

from __future__ import annotations

from dataclasses import dataclass

from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2, status_pb2

from ortmesh.errors import DOMAIN, Internal, OrtmeshError

DETAILS_KEY = "grpc-status-details-bin"
"""The trailer that carries the serialized google.rpc.Status, as all gRPC libraries read it."""

# Trailers over 8 KiB are dropped by many clients, and with them the status itself. Details travel base64-encoded
# beside the message, so that everything together must stay under about 5 KB of bytes.
MAX_TEXT = 1000
MAX_VIOLATIONS = 8
MAX_VIOLATION_TEXT = 300

INTERNAL = Internal("internal error")
"""What a caller sees of a bug: nothing."""


def status_of(error: BaseException) -> status_pb2.Status:
    """The status of an error, with its details.

    An exception that is no OrtmeshError is a bug: it becomes INTERNAL without its text, and whoever caught it logs it.
    """
    known = error if isinstance(error, OrtmeshError) else INTERNAL
    status = status_pb2.Status(code=code_pb2.Code.Value(known.code), message=_cut(known.message, MAX_TEXT))
    status.details.extend(_packed(detail) for detail in _details(known))
    return status


@dataclass(frozen=True, slots=True)
class Failure:
    """A status as the adapters send it."""

    code: int
    name: str
    """The code's canonical name, e.g. `NOT_FOUND`."""
    message: str
    trailers: list[tuple[str, str | bytes]]
    """The trailing metadata that carries the details."""

    @classmethod
    def of(cls, error: BaseException) -> Failure:
        """What is sent for an error."""
        status = status_of(error)
        name = code_pb2.Code.Name(status.code)
        return cls(status.code, name, status.message, [(DETAILS_KEY, status.SerializeToString())])


def _details(error: OrtmeshError) -> list[Message]:
    info = error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=error.metadata)
    details: list[Message] = [info]
    if error.violations:
        details.append(
            error_details_pb2.BadRequest(
                field_violations=[
                    error_details_pb2.BadRequest.FieldViolation(
                        field=_cut(violation.field, MAX_VIOLATION_TEXT),
                        description=_cut(violation.description, MAX_VIOLATION_TEXT),
                    )
                    for violation in error.violations[:MAX_VIOLATIONS]
                ]
            )
        )
    if error.retry_after_seconds is not None:
        delay = duration_pb2.Duration()
        delay.FromNanoseconds(int(max(error.retry_after_seconds, 0.0) * 1e9))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    if error.resource is not None:
        kind, name = error.resource
        details.append(
            error_details_pb2.ResourceInfo(
                resource_type=kind, resource_name=_cut(name, MAX_TEXT), description=_cut(error.message, MAX_TEXT)
            )
        )
    return details


def _packed(detail: Message) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(detail)
    return packed


def _cut(text: str, length: int) -> str:
    """Cuts a text for the wire; what UTF-8 can't carry (lone surrogates) is replaced."""
    clean = text.encode("utf-8", "replace").decode("utf-8")
    return clean if len(clean) <= length else clean[: length - 1] + "…"
