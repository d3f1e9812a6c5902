"""Every error that ortmesh answers with, and the arrow of the path on which it arises.

    client ──①──► gateway ──②──► front ──③──► task ──④──► batcher ──⑤──► executor
                                                                            │
    client ◄──────────────────────────── answer ◄───────────────────────────┘

    ①    Unreachable, Overloaded (the gateway's bounds)
    ① ②  MalformedMessage, MessageTooLarge, Overloaded (admission), Draining, Expired, Cancelled
    ③    BadInput, OutOfRange, NotFound (the request's own fields, found by the task), NoSpeech
    ④    NotFound (model), NotReady, ModelFailed, Overloaded (the model's queue), Expired, Cancelled
    ⑤    BadInput (the graph refuses a caller's own tensors), ExecutorFailed
    answer  ReaderStalled

Each error carries the name of its canonical gRPC code; `ortmesh.front.status` turns it into a status with
google.rpc details. This module must not import grpc: the batcher raises these errors too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

DOMAIN = "ortmesh"


@dataclass(frozen=True, slots=True)
class Violation:
    """One field that was wrong: its path in the request (e.g. `images[2].encoded`) and what was expected."""

    field: str
    description: str


class OrtmeshError(Exception):
    """An expected error: its text and details are meant for the caller."""

    code = "INTERNAL"
    """The canonical gRPC code's name."""
    reason = "INTERNAL"
    """google.rpc.ErrorInfo.reason: stable, listed in docs/errors.md."""

    def __init__(
        self,
        message: str,
        *,
        violations: Sequence[Violation] = (),
        retry_after_seconds: float | None = None,
        resource: tuple[str, str] | None = None,
        metadata: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.violations = tuple(violations)
        self.retry_after_seconds = retry_after_seconds
        """google.rpc.RetryInfo, when a retry makes sense."""
        self.resource = resource
        """google.rpc.ResourceInfo as (type, name), when one is concerned."""
        self.metadata = metadata or {}
        """google.rpc.ErrorInfo.metadata."""


class BadInput(OrtmeshError):
    """A field of the request is wrong, whatever the state of the service."""

    code = "INVALID_ARGUMENT"
    reason = "INVALID_FIELD"

    def __init__(self, field: str, description: str) -> None:
        super().__init__(
            f"{field}: {description}" if field else description, violations=[Violation(field, description)]
        )


class OutOfRange(OrtmeshError):
    """A field is beyond a documented limit of what can be processed (the length of audio)."""

    code = "OUT_OF_RANGE"
    reason = "OUT_OF_RANGE"

    def __init__(self, field: str, description: str) -> None:
        super().__init__(f"{field}: {description}", violations=[Violation(field, description)])


class MalformedMessage(OrtmeshError):
    """The bytes are not a message of the method's request type."""

    code = "INVALID_ARGUMENT"
    reason = "MALFORMED_MESSAGE"


class MessageTooLarge(OrtmeshError):
    """The message is over the method's size limit."""

    code = "RESOURCE_EXHAUSTED"
    reason = "MESSAGE_TOO_LARGE"


class NotFound(OrtmeshError):
    """A model, version or method that is not served; the message lists near names."""

    code = "NOT_FOUND"
    reason = "MODEL_NOT_FOUND"


class UnknownService(OrtmeshError):
    """Health was asked about a name that nothing here has."""

    code = "NOT_FOUND"
    reason = "UNKNOWN_SERVICE"


class NotReady(OrtmeshError):
    """The model is being loaded. Work has not begun: the call may be repeated."""

    code = "UNAVAILABLE"
    reason = "MODEL_NOT_READY"


class ModelFailed(OrtmeshError):
    """The model is not served because it failed to load; the message says why. A retry does not help."""

    code = "FAILED_PRECONDITION"
    reason = "MODEL_FAILED"


class NoSpeech(OrtmeshError):
    """A recording in which nobody speaks was sent to a method that is about whoever speaks in it."""

    code = "FAILED_PRECONDITION"
    reason = "NO_SPEECH"


class Draining(OrtmeshError):
    """The service is shutting down. Work has not begun: the call may be repeated elsewhere."""

    code = "UNAVAILABLE"
    reason = "DRAINING"


class Unreachable(OrtmeshError):
    """The gateway has no service that answers, or lost the one that did; RetryInfo says when to come back."""

    code = "UNAVAILABLE"
    reason = "UNREACHABLE"


class Overloaded(OrtmeshError):
    """A bound in calls, items or bytes is reached; RetryInfo says when to come back."""

    code = "RESOURCE_EXHAUSTED"
    reason = "OVERLOADED"


class ReaderStalled(OrtmeshError):
    """The caller of a stream took no message for too long."""

    code = "RESOURCE_EXHAUSTED"
    reason = "READER_STALLED"


class Expired(OrtmeshError):
    """The call's deadline passed, or would pass before the answer could be there."""

    code = "DEADLINE_EXCEEDED"
    reason = "DEADLINE_EXCEEDED"


class Cancelled(OrtmeshError):
    """The caller left."""

    code = "CANCELLED"
    reason = "CANCELLED"


class Unimplemented(OrtmeshError):
    """The model or the server does not do this."""

    code = "UNIMPLEMENTED"
    reason = "UNIMPLEMENTED"


class ExecutorFailed(OrtmeshError):
    """The runtime failed on this item alone; the service's log has the cause."""

    code = "INTERNAL"
    reason = "EXECUTOR_FAILED"


class Internal(OrtmeshError):
    """A bug of ours. The caller gets no text of the exception; the service's log has it."""

    code = "INTERNAL"
    reason = "INTERNAL"
