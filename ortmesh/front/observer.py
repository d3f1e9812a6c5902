"""What the front tells about its calls, as Protocols: `ortmesh.telemetry` in a service. Stage: front."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from opentelemetry.trace import Span


class Rpc(Protocol):
    """The instruments of one method, made once. Thread-safe and cheap: they run for every call."""

    def begin(self, metadata: Mapping[str, str | bytes]) -> Span | None:
        """The span of a call whose `traceparent` is sampled, or None."""

    def end(self, code: str, seconds: float, span: Span | None, request_bytes: int, response_bytes: int) -> None:
        """A call ended with this canonical code's name (`OK` too) after so many seconds."""


class Telemetry(Protocol):
    """Where a front's instruments come from."""

    def rpc(self, path: str) -> Rpc:
        """The instruments of the method at `/package.Service/Method`."""

    def in_flight(self, read: Callable[[], int]) -> None:
        """Where the number of calls in flight is read whenever somebody asks for it."""


class NoTelemetry:
    """Forgets everything: for tests and tools."""

    def rpc(self, path: str) -> NoTelemetry:
        """Itself."""
        return self

    def begin(self, metadata: Mapping[str, str | bytes]) -> None:
        """No span."""

    def end(self, code: str, seconds: float, span: object, request_bytes: int, response_bytes: int) -> None:
        """Forgets."""

    def in_flight(self, read: Callable[[], int]) -> None:
        """Forgets."""
