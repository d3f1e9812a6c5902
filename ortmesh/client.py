"""The client: typed stubs of every service over one channel to the mesh, synchronous and asyncio.

    from ortmesh.client import Client
    from ortmesh.nlp.v1.nlp_pb2 import EmbedRequest

    with Client("127.0.0.1:8080") as mesh:
        answer = mesh.nlp.Embed(EmbedRequest(texts=["good morning"]))

Errors are `grpc.RpcError` with the canonical code; `violations(error)` and `retry_after_seconds(error)` read their
details. A unary call without `timeout` gets the client's `timeout_seconds`, else the one that the method's proto
states (60 s, EmbedSpeaker and IdentifyLanguage 120 s, DetectSpeech 300 s, Recognize 600 s), so that no call waits for
ever.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import grpc
import grpc.aio
from google.protobuf import descriptor_pool
from google.rpc import error_details_pb2, status_pb2

from ortmesh.common.v1 import common_pb2
from ortmesh.models.v1.models_pb2_grpc import ModelServiceStub
from ortmesh.nlp.v1.nlp_pb2_grpc import NlpServiceStub
from ortmesh.speech.v1.speech_pb2_grpc import SpeechServiceStub
from ortmesh.vision.v1.vision_pb2_grpc import VisionServiceStub

if TYPE_CHECKING:  # the asyncio stubs exist for type checkers only
    from ortmesh.models.v1.models_pb2_grpc import ModelServiceAsyncStub
    from ortmesh.nlp.v1.nlp_pb2_grpc import NlpServiceAsyncStub
    from ortmesh.speech.v1.speech_pb2_grpc import SpeechServiceAsyncStub
    from ortmesh.vision.v1.vision_pb2_grpc import VisionServiceAsyncStub

DEFAULT_ADDRESS = "127.0.0.1:8080"
DEFAULT_TIMEOUT_SECONDS = 60.0
MAX_MESSAGE_BYTES = 32 * 1024 * 1024 + 64 * 1024
"""The mesh's largest message and its wrapping; gRPC's own default of 4 MiB is less than a picture needs."""
DETAILS_KEY = "grpc-status-details-bin"
MAX_PORT = 65_535
SCHEMES = ("dns:", "ipv4:", "ipv6:", "unix:", "unix-abstract:", "vsock:", "xds:")
"""How the targets begin that gRPC knows beside HOST:PORT; what they mean is its business."""


def channel_options(max_message_bytes: int = MAX_MESSAGE_BYTES) -> list[tuple[str, Any]]:
    """Options of a channel to the mesh: room for large messages, pings that find a dead connection in 40 s."""
    return [
        ("grpc.max_send_message_length", max_message_bytes),
        ("grpc.max_receive_message_length", max_message_bytes),
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.http2.ping_timeout_ms", 10_000),  # grpcio waits for the longer of the two
    ]


def check_target(address: str) -> str:
    """Returns the address when it is HOST:PORT, unix:/path or another target of gRPC's.

    ValueError for the rest: gRPC would take a lone host for its port 443, and a port that is none for another one.
    """
    if address.startswith(SCHEMES):
        return address
    found = re.fullmatch(r"(?:[^:/\s]+|\[[0-9A-Fa-f:.]+(?:%\w+)?\]):([0-9]{1,5})", address)
    if found is None or not 0 < int(found[1]) <= MAX_PORT:
        scheme = re.match(r"\w+://", address)
        hint = f": leave out {scheme[0]}" if scheme else ""
        raise ValueError(f"{address!r} is neither HOST:PORT nor unix:/path{hint}")
    return address


class Client:
    """A mesh, called synchronously; thread-safe. Close it, or use it in a `with`.

    ValueError for an address that is none.
    """

    def __init__(
        self,
        address: str = DEFAULT_ADDRESS,
        *,
        timeout_seconds: float | None = None,
        credentials: grpc.ChannelCredentials | None = None,
    ) -> None:
        check_target(address)
        options = channel_options()
        self.channel = (
            grpc.insecure_channel(address, options)
            if credentials is None
            else grpc.secure_channel(address, credentials, options)
        )
        timed = grpc.intercept_channel(self.channel, _Deadline(timeout_seconds))
        self.vision = VisionServiceStub(timed)
        self.speech = SpeechServiceStub(timed)
        self.nlp = NlpServiceStub(timed)
        self.models = ModelServiceStub(timed)

    def close(self) -> None:
        """Closes the channel; calls in flight are cancelled."""
        self.channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class AsyncClient:
    """A mesh, called from asyncio. Close it, or use it in an `async with`.

    ValueError for an address that is none.
    """

    def __init__(
        self,
        address: str = DEFAULT_ADDRESS,
        *,
        timeout_seconds: float | None = None,
        credentials: grpc.ChannelCredentials | None = None,
    ) -> None:
        check_target(address)
        options = channel_options()
        interceptors = [_AsyncDeadline(timeout_seconds)]
        self.channel = (
            grpc.aio.insecure_channel(address, options, interceptors=interceptors)
            if credentials is None
            else grpc.aio.secure_channel(address, credentials, options, interceptors=interceptors)
        )
        self.vision: VisionServiceAsyncStub = VisionServiceStub(self.channel)
        self.speech: SpeechServiceAsyncStub = SpeechServiceStub(self.channel)
        self.nlp: NlpServiceAsyncStub = NlpServiceStub(self.channel)
        self.models: ModelServiceAsyncStub = ModelServiceStub(self.channel)

    async def close(self) -> None:
        """Closes the channel; calls in flight are cancelled."""
        await self.channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


def status_of(error: grpc.RpcError) -> status_pb2.Status:
    """The rich status of an error that a stub raised; without details when the server sent none."""
    metadata: Any = error.trailing_metadata() or ()
    trailing = dict(metadata)
    if DETAILS_KEY in trailing:
        return status_pb2.Status.FromString(trailing[DETAILS_KEY])
    return status_pb2.Status(code=error.code().value[0], message=error.details() or "")


def violations(error: grpc.RpcError) -> Sequence[tuple[str, str]]:
    """The fields of the request that were wrong and what was expected: (field, description)."""
    details = error_details_pb2.BadRequest()
    for detail in status_of(error).details:
        if detail.Unpack(details):
            return [(violation.field, violation.description) for violation in details.field_violations]
    return []


def retry_after_seconds(error: grpc.RpcError) -> float | None:
    """When the mesh asks to come back; None when it does not say."""
    details = error_details_pb2.RetryInfo()
    for detail in status_of(error).details:
        if detail.Unpack(details):
            return float(details.retry_delay.ToTimedelta().total_seconds())
    return None


@cache
def _default_timeout(path: str) -> float:
    """The deadline that a method's proto states for callers who set none; `path` is `/package.Service/Method`."""
    service, _, method = path.lstrip("/").partition("/")
    try:
        described = descriptor_pool.Default().FindServiceByName(service).methods_by_name[method]
    except KeyError:
        return DEFAULT_TIMEOUT_SECONDS
    limits = described.GetOptions().Extensions[common_pb2.limits]
    seconds = limits.default_timeout.ToTimedelta().total_seconds()
    return float(seconds) or DEFAULT_TIMEOUT_SECONDS


def _timed(details: Any, timeout_seconds: float | None) -> Any:
    """Call details with a timeout: the caller's, else the client's, else the method's own."""
    if details.timeout is not None:
        return details
    path = details.method.decode() if isinstance(details.method, bytes) else details.method
    timeout = _default_timeout(path) if timeout_seconds is None else timeout_seconds
    if hasattr(details, "_replace"):
        return details._replace(timeout=timeout)
    return _Details(details, timeout)


class _Details:
    """grpc's call details, which its synchronous half does not let change, with a timeout."""

    def __init__(self, details: Any, timeout: float) -> None:
        self.timeout = timeout
        self._details = details

    def __getattr__(self, name: str) -> Any:
        return getattr(self._details, name)


class _Deadline(grpc.UnaryUnaryClientInterceptor):
    """Gives unary calls without a timeout one."""

    def __init__(self, timeout_seconds: float | None) -> None:
        self._timeout = timeout_seconds

    def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        """Calls on with a timeout."""
        return continuation(_timed(client_call_details, self._timeout), request)


class _AsyncDeadline(grpc.aio.UnaryUnaryClientInterceptor):
    """Gives unary calls without a timeout one."""

    def __init__(self, timeout_seconds: float | None) -> None:
        self._timeout = timeout_seconds

    async def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        """Calls on with a timeout."""
        return await continuation(_timed(client_call_details, self._timeout), request)
