"""Exchange: the front's side of one call, from its permit to its end. Stage: front."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any

from google.protobuf.message import DecodeError

from ortmesh.errors import BadInput, MalformedMessage, MessageTooLarge, OrtmeshError
from ortmesh.front.admission import Admission
from ortmesh.front.call import Call
from ortmesh.front.methods import Method
from ortmesh.front.observer import Rpc
from ortmesh.front.requests import Requests
from ortmesh.front.utf8 import not_utf8

log = logging.getLogger("ortmesh.front")

CLOCKS_SECONDS = 0.01
"""The native server starts to count a deadline a little before we do; at its end it cancels, as a caller would."""


class Route:
    """A method together with what each of its calls needs, looked up once."""

    __slots__ = ("_decode", "enter", "leave", "method", "rpc")

    def __init__(self, method: Method, admission: Admission, rpc: Rpc) -> None:
        self.method = method
        self.rpc = rpc
        self._decode: Callable[[bytes], Any] = method.request_type.FromString
        self.enter: Callable[[int], None] = _enter_free
        """Takes the permit of one call with so many bytes. Overloaded or Draining without one."""
        self.leave: Callable[[int, float], None] = _leave_free
        """Gives the permit back, with the seconds that it was held."""
        if method.needs_permit and (method.streams or method.takes_stream):
            self.enter, self.leave = admission.enter_stream, admission.leave_stream
        elif method.needs_permit:
            self.enter, self.leave = admission.enter, admission.leave

    def check_size(self, nbytes: int) -> None:
        """MessageTooLarge for a message of more bytes than the method takes."""
        limit = self.method.max_request_bytes
        if nbytes > limit:
            text = f"the message has {nbytes} bytes; at most {limit} are taken"
            raise MessageTooLarge(text, metadata={"limit": str(limit)})

    def parse(self, payload: bytes) -> Any:
        """Parses a request. MalformedMessage when the bytes are none; BadInput for a text that is not UTF-8."""
        if self.method.check is not None:
            self.method.check(payload)
        try:
            return self._decode(payload)
        except DecodeError:
            described = self.method.request_type.DESCRIPTOR
            if (field := not_utf8(payload, described)) is not None:
                raise BadInput(field, "is not UTF-8 (in UTF-8 no surrogates, single or in pairs)") from None
            raise MalformedMessage(f"the bytes are not a message of type {described.full_name}") from None


def _enter_free(nbytes: int) -> None:
    """Health needs no permit."""


def _leave_free(nbytes: int, held_seconds: float) -> None:
    """Health had none."""


class Exchange:
    """One admitted call. It ends exactly once, whatever happens to its handler, its caller or the service."""

    __slots__ = ("call", "nbytes", "payload", "request", "requests", "route", "stopped", "task")

    def __init__(self, route: Route, call: Call, nbytes: int) -> None:
        self.route = route
        self.call = call
        self.nbytes = nbytes
        """Bytes of the request, as its permit counts them."""
        self.payload = b""
        """The request's bytes, until its coroutine decodes them: held here alone, so that they go then."""
        self.request: Any = None
        """The decoded request that a direct handler declined, until its coroutine takes it."""
        self.requests: Requests | None = None
        """The messages of a caller that sends a stream."""
        self.task: asyncio.Task[Any] | None = None
        """The task that runs the call's coroutine, once there is one."""
        self.stopped: OrtmeshError | None = None
        """Why the service itself ended the call."""

    def take_request(self) -> Any:
        """The request, parsed if it is not yet; the messages of a stream. MalformedMessage when the bytes are none."""
        if self.requests is not None:
            return self.requests
        payload, request = self.payload, self.request
        self.payload, self.request = b"", None
        return self.route.parse(payload) if request is None else request

    def stop(self, why: OrtmeshError) -> None:
        """Ends the call for the service's reasons: its caller gets this error. On the loop."""
        self.stopped = why
        self.cancel()

    def cancel(self) -> None:
        """The caller left: queued work will be dropped, the task is cancelled. On the loop."""
        self.call.cancel()
        if self.task is not None:
            self.task.cancel()

    def end(self, code: str, response_bytes: int = 0) -> None:
        """Gives back the permit and what was borrowed, and tells telemetry. Called once, from any thread."""
        call = self.call
        seconds = time.monotonic() - call.arrival
        request_bytes = self.nbytes if self.requests is None else self.requests.received_bytes
        self.route.leave(self.nbytes, seconds)
        self.route.rpc.end(code, seconds, call.span, request_bytes, response_bytes)
        try:
            call.end()
        except Exception:
            log.exception("%s: giving back what the call had borrowed", call.method)

    def end_unheard(self) -> None:
        """Ends a call whose answer nobody took: it expired, or its caller left."""
        expired = self.call.remaining() <= CLOCKS_SECONDS
        self.end("DEADLINE_EXCEEDED" if expired else "CANCELLED")
