"""Errors as google.rpc.Status: the one place where an exception becomes a gRPC code with details. Stage: front."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2, status_pb2

from ortmesh.errors import DOMAIN, Internal, OrtmeshError, Violation

DETAILS_KEY = "grpc-status-details-bin"
"""The trailer that carries the serialized google.rpc.Status, as all gRPC libraries read it."""

# Trailers over 8 KiB are dropped by many clients, and with them the code itself. Details travel as base64 and the
# message percent-encoded, so that everything together must stay under about 5,000 bytes.
MAX_MESSAGE_BYTES = 800
MAX_NAME_BYTES = 300
MAX_VIOLATIONS = 8
MAX_FIELD_BYTES = 100
MAX_DESCRIPTION_BYTES = 250

INTERNAL = Internal("internal error")
"""What a caller sees of a bug: nothing."""


def status_of(error: BaseException) -> status_pb2.Status:
    """The status of an error, with its details.

    An exception that is no OrtmeshError is a bug: it becomes INTERNAL without its text, and whoever caught it has
    logged it. The places that the error came through are forgotten.
    """
    _forget_places(error)
    known = error if isinstance(error, OrtmeshError) else INTERNAL
    status = status_pb2.Status(code=code_pb2.Code.Value(known.code), message=_cut(known.message, MAX_MESSAGE_BYTES))
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


def _forget_places(error: BaseException | None) -> None:
    """Lets go of an error's tracebacks, and of those behind it.

    Their frames hold the request and its tensors, and the future that brought the error: a circle that only the
    garbage collector breaks. Twenty failed requests of 2 MiB held 80 MiB for as long as it took to come.
    """
    seen: set[int] = set()
    behind = [error]
    while behind:
        error = behind.pop()
        if error is not None and id(error) not in seen:
            seen.add(id(error))
            error.__traceback__ = None
            behind += (error.__cause__, error.__context__)


def _details(error: OrtmeshError) -> Iterator[Message]:
    metadata = {key: _cut(value, MAX_NAME_BYTES) for key, value in error.metadata.items()}
    yield error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=metadata)
    if error.violations:
        violations = [_violation(violation) for violation in error.violations[:MAX_VIOLATIONS]]
        yield error_details_pb2.BadRequest(field_violations=violations)
    if error.retry_after_seconds is not None:
        delay = duration_pb2.Duration()
        delay.FromNanoseconds(int(max(error.retry_after_seconds, 0.0) * 1e9))
        yield error_details_pb2.RetryInfo(retry_delay=delay)
    if error.resource is not None:
        kind, name = error.resource
        yield error_details_pb2.ResourceInfo(resource_type=kind, resource_name=_cut(name, MAX_NAME_BYTES))


def _violation(violation: Violation) -> Message:
    made: Message = error_details_pb2.BadRequest.FieldViolation(
        field=_cut(violation.field, MAX_FIELD_BYTES), description=_cut(violation.description, MAX_DESCRIPTION_BYTES)
    )
    return made


def _packed(detail: Message) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(detail)
    return packed


def _cut(text: str, length: int) -> str:
    """Cuts a text to so many bytes of UTF-8; what UTF-8 can't carry (lone surrogates) is replaced."""
    encoded = text.encode("utf-8", "replace")
    if len(encoded) <= length:
        return encoded.decode("utf-8")
    return encoded[: length - 3].decode("utf-8", "ignore") + "…"
