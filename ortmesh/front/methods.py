"""The table of methods: what a service answers, and with which limits. Stage: front.

Both adapters serve this table, so that parsing, limits, errors, spans and metrics stand once.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

from google.protobuf import message_factory

from ortmesh import descriptors
from ortmesh.front.call import Call
from ortmesh.front.scan import check_fields


class Reply(Protocol):
    """Where a direct handler's answer goes, from any thread, exactly once."""

    def finish(self, payload: bytes) -> None:
        """Answers with a serialized message."""

    def fail(self, error: BaseException) -> None:
        """Answers with a status; an error that is no OrtmeshError becomes INTERNAL without its text."""


UnaryHandler = Callable[[Any, Call], Awaitable[Any]]
"""One request to one answer: `await handler(request, call)`."""
StreamHandler = Callable[[Any, Call], AsyncIterator[Any]]
"""One request to many answers: `async for answer in handler(request, call)`.

Where the method takes a stream, both kinds of handlers get an `AsyncIterator` of requests in place of one request
(`ortmesh/front/requests.py`)."""
DirectHandler = Callable[[Any, Call, Reply], bool]
"""Called in the receiving thread: submits the work and returns True, or False to have the coroutine called.

It must not block; it may raise an OrtmeshError instead of calling `reply.fail`."""


@dataclass(frozen=True, slots=True)
class Method:
    """One row of the table."""

    path: str
    """`/package.Service/Method`."""
    request_type: type[Any]
    """The class of the request, or of each message of a stream."""
    handler: UnaryHandler | StreamHandler
    streams: bool = False
    """True when the handler answers with many messages."""
    takes_stream: bool = False
    """True when the caller sends many messages."""
    watch: bool = False
    """True for streams that tell of changes until their callers leave: a drain ends them instead of waiting."""
    direct: DirectHandler | None = None
    check: Callable[[bytes], None] | None = None
    """Looks at the bytes before they are parsed; raises an OrtmeshError to refuse them."""
    max_request_bytes: int = descriptors.DEFAULT_MAX_REQUEST_BYTES
    """Of each message."""
    default_timeout_seconds: float = descriptors.DEFAULT_TIMEOUT_SECONDS
    needs_permit: bool = True
    """False for health, which must answer when everything else is full or drains."""


def bind(
    service: str,
    handlers: Mapping[str, UnaryHandler | StreamHandler],
    *,
    direct: Mapping[str, DirectHandler] | None = None,
    check: Mapping[str, Callable[[bytes], None]] | None = None,
    messages: Callable[[str], type[Any]],
) -> list[Method]:
    """Rows for a service's handlers, with the limits that its proto states.

    `messages` gives the class of a message by its full name. KeyError for a handler that the proto does not name:
    a typo in a binding fails at start.
    """
    described = descriptors.service(service).methods_by_name
    return [
        replace(
            _row(service, described[name], handler, messages),
            direct=(direct or {}).get(name),
            check=(check or {}).get(name, check_fields),
        )
        for name, handler in handlers.items()
    ]


def _row(service: str, method: Any, handler: Any, messages: Any) -> Method:
    max_request_bytes, timeout = descriptors.limits(method)
    return Method(
        path=f"/{service}/{method.name}",
        request_type=messages(method.input_type.full_name),
        handler=handler,
        streams=method.server_streaming,
        takes_stream=method.client_streaming,
        watch=method.server_streaming and method.name.startswith("Watch"),
        max_request_bytes=max_request_bytes,
        default_timeout_seconds=timeout,
    )


def generated(module: Any) -> Callable[[str], type[Any]]:
    """`messages` for a generated module such as `vision_pb2`: the classes that applications use too."""
    return lambda full_name: getattr(module, full_name.rsplit(".", 1)[1])


def private(full_name: str) -> type[Any]:
    """`messages` for OIP: classes from the private pool."""
    return message_factory.GetMessageClass(descriptors.pool().FindMessageTypeByName(full_name))
