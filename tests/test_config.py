"""Settings: every variable is read, arguments win, mistakes are named; and how many CPUs a process may use."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import ValidationError

from ortmesh.config import (
    GatewaySettings,
    ServiceSettings,
    Settings,
    StoreSettings,
    TelemetrySettings,
    check_address,
    cpus,
)

# class, field, variable, what the environment says, what the settings hold
TABLE: list[tuple[type[Settings], str, str, str, Any]] = [
    (StoreSettings, "models", "ORTMESH_MODELS", "/srv/models", Path("/srv/models")),
    (TelemetrySettings, "metrics_port", "ORTMESH_TELEMETRY_METRICS_PORT", "9100", 9100),
    (TelemetrySettings, "metrics_host", "ORTMESH_TELEMETRY_METRICS_HOST", "0.0.0.0", "0.0.0.0"),
    (TelemetrySettings, "log_format", "ORTMESH_TELEMETRY_LOG_FORMAT", "json", "json"),
    (TelemetrySettings, "log_level", "ORTMESH_TELEMETRY_LOG_LEVEL", "DEBUG", "DEBUG"),
    (ServiceSettings, "family", "ORTMESH_SERVICE_FAMILY", "speech", "speech"),
    (ServiceSettings, "address", "ORTMESH_SERVICE_ADDRESS", "unix:/run/a.sock", "unix:/run/a.sock"),
    (ServiceSettings, "adapter", "ORTMESH_SERVICE_ADAPTER", "grpcio", "grpcio"),
    (ServiceSettings, "store", "ORTMESH_SERVICE_STORE", "~/models", Path.home() / "models"),
    (ServiceSettings, "only", "ORTMESH_SERVICE_ONLY", "minilm, e5", ("minilm", "e5")),
    (ServiceSettings, "threads", "ORTMESH_SERVICE_THREADS", "3", 3),
    (ServiceSettings, "pool_threads", "ORTMESH_SERVICE_POOL_THREADS", "4", 4),
    (ServiceSettings, "pool_max_bytes", "ORTMESH_SERVICE_POOL_MAX_BYTES", "1000", 1000),
    (ServiceSettings, "trusts_caller", "ORTMESH_SERVICE_TRUSTS_CALLER", "true", True),
    (ServiceSettings, "max_calls", "ORTMESH_SERVICE_MAX_CALLS", "7", 7),
    (ServiceSettings, "max_bytes", "ORTMESH_SERVICE_MAX_BYTES", "8", 8),
    (ServiceSettings, "max_streams", "ORTMESH_SERVICE_MAX_STREAMS", "9", 9),
    (ServiceSettings, "drain_seconds", "ORTMESH_SERVICE_DRAIN_SECONDS", "0.5", 0.5),
    (ServiceSettings, "grace_seconds", "ORTMESH_SERVICE_GRACE_SECONDS", "60", 60.0),
    (GatewaySettings, "address", "ORTMESH_GATEWAY_ADDRESS", "0.0.0.0:443", "0.0.0.0:443"),
    (
        GatewaySettings,
        "backends",
        "ORTMESH_GATEWAY_BACKENDS",
        "nlp=unix:/run/n.sock,nlp=10.0.0.1:80",
        ("nlp=unix:/run/n.sock", "nlp=10.0.0.1:80"),
    ),
    (GatewaySettings, "envoy", "ORTMESH_GATEWAY_ENVOY", "/usr/bin/envoy", Path("/usr/bin/envoy")),
    (GatewaySettings, "runtime", "ORTMESH_GATEWAY_RUNTIME", "/run/ortmesh", Path("/run/ortmesh")),
    (GatewaySettings, "drain_seconds", "ORTMESH_GATEWAY_DRAIN_SECONDS", "0", 0.0),
    (GatewaySettings, "grace_seconds", "ORTMESH_GATEWAY_GRACE_SECONDS", "5", 5.0),
    (GatewaySettings, "workers", "ORTMESH_GATEWAY_WORKERS", "3", 3),
    (GatewaySettings, "access_log", "ORTMESH_GATEWAY_ACCESS_LOG", "true", True),
    (GatewaySettings, "max_connections", "ORTMESH_GATEWAY_MAX_CONNECTIONS", "7", 7),
    (GatewaySettings, "max_streams", "ORTMESH_GATEWAY_MAX_STREAMS", "8", 8),
    (GatewaySettings, "max_heap_bytes", "ORTMESH_GATEWAY_MAX_HEAP_BYTES", "100000000", 100_000_000),
]
CLASSES = (StoreSettings, TelemetrySettings, ServiceSettings, GatewaySettings)


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("ORTMESH_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("ORTMESH_SERVICE_FAMILY", "nlp")


@pytest.mark.parametrize(("settings", "field", "variable", "text", "value"), TABLE)
def test_each_field_is_read_from_its_variable(
    settings: type[Settings], field: str, variable: str, text: str, value: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, text)
    assert getattr(settings(), field) == value


def test_the_table_covers_every_field_of_every_class() -> None:
    derived = {(cls, field, name) for cls in CLASSES for field, name in cls.variables().items()}
    assert derived == {(cls, field, variable) for cls, field, variable, _, _ in TABLE}


def test_every_field_has_a_description() -> None:
    for cls in CLASSES:
        for name, field in cls.model_fields.items():
            assert field.description, f"{cls.__name__}.{name}"


def test_no_variable_is_one_that_kubernetes_sets() -> None:
    """A pod beside a Service `ortmesh-gateway` finds ORTMESH_GATEWAY_PORT and others in its environment."""
    ours = {name for cls in CLASSES for name in cls.variables().values()}
    for service in ("ORTMESH", "ORTMESH_GATEWAY", "ORTMESH_VISION", "ORTMESH_SPEECH", "ORTMESH_NLP"):
        assert not ours & {f"{service}_PORT", f"{service}_SERVICE_HOST", f"{service}_SERVICE_PORT"}


def test_arguments_win_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORTMESH_SERVICE_MAX_CALLS", "7")
    assert ServiceSettings(family="nlp", max_calls=5).max_calls == 5


def test_the_store_moves_for_all_services_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORTMESH_MODELS", "/srv/models")
    assert ServiceSettings(family="nlp").store == StoreSettings().models == Path("/srv/models")


@pytest.mark.parametrize(("said", "json"), [("auto", None), ("json", True), ("text", False)])
def test_the_format_of_logs_is_what_configure_logging_takes(said: Literal["auto"], json: bool | None) -> None:
    assert TelemetrySettings(log_format=said).log_json is json


def test_the_store_lies_in_the_users_cache_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert StoreSettings().models == Path("/somewhere/ortmesh/models")


def test_an_empty_variable_counts_as_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORTMESH_TELEMETRY_METRICS_PORT", "")
    assert TelemetrySettings().metrics_port is None


def test_services_carry_the_telemetry_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORTMESH_TELEMETRY_LOG_LEVEL", "ERROR")
    assert ServiceSettings(family="nlp").telemetry.log_level == "ERROR"


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("ORTMESH_SERVICE_FAMILY", "smell"),
        ("ORTMESH_SERVICE_MAX_CALLS", "0"),
        ("ORTMESH_SERVICE_DRAIN_SECONDS", "-1"),
        ("ORTMESH_SERVICE_ADDRESS", "8080"),
    ],
)
def test_a_wrong_value_names_its_field(variable: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, text)
    with pytest.raises(ValidationError, match=variable.removeprefix("ORTMESH_SERVICE_").lower()):
        ServiceSettings()  # type: ignore[call-arg]


def test_an_unknown_argument_is_an_error() -> None:
    with pytest.raises(ValidationError, match="max_cals"):
        ServiceSettings(family="nlp", max_cals=3)  # type: ignore[call-arg]


@pytest.mark.parametrize("address", ["127.0.0.1:0", "[::1]:8080", "mesh.internal:443", "unix:/run/x.sock"])
def test_good_addresses_pass(address: str) -> None:
    assert check_address(address) == address


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("8080", "neither HOST:PORT"),
        (":8080", "neither HOST:PORT"),
        ("host:http", "neither HOST:PORT"),
        ("host:70000", "neither HOST:PORT"),
        ("unix:run/x.sock", "begin with /"),
        ("unix:/" + "x" * 107, "over 107 bytes"),
    ],
)
def test_bad_addresses_are_refused_with_the_reason(address: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        check_address(address)


@pytest.mark.parametrize("backend", ["unix:/run/x.sock", "smell=127.0.0.1:1", "nlp=8080"])
def test_bad_backends_are_refused(backend: str) -> None:
    with pytest.raises(ValidationError):
        GatewaySettings(backends=(backend,))


def _cgroup(root: Path, line: str, files: dict[str, str]) -> Path:
    for name, text in {"proc/self/cgroup": line, **files}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text + "\n")
    return root


@pytest.fixture
def _affinity_of_eight(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))


@pytest.mark.usefixtures("_affinity_of_eight")
@pytest.mark.parametrize(
    ("line", "files", "count"),
    [
        ("0::/", {"sys/fs/cgroup/cpu.max": "max 100000"}, 8),
        ("0::/", {"sys/fs/cgroup/cpu.max": "300000 100000"}, 3),
        ("0::/", {"sys/fs/cgroup/cpu.max": "150000 100000"}, 1),
        ("0::/", {"sys/fs/cgroup/cpu.max": "20000 100000"}, 1),
        ("0::/", {"sys/fs/cgroup/cpu.max": "1600000 100000"}, 8),
        (
            "0::/pod/app",
            {"sys/fs/cgroup/pod/cpu.max": "200000 100000", "sys/fs/cgroup/pod/app/cpu.max": "max 100000"},
            2,
        ),
        (
            "4:memory:/x\n3:cpu,cpuacct:/docker/abc",
            {
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "400000",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000",
            },
            4,
        ),
        ("1:cpu:/", {"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000"}, 8),
        ("2:cpuset:/", {}, 8),
    ],
)
def test_cpus_are_the_lesser_of_quota_and_affinity(
    line: str, files: dict[str, str], count: int, tmp_path: Path
) -> None:
    """Version 2 and 1 of cgroups, limits of a parent, a container whose path is the host's, fractions."""
    assert cpus(_cgroup(tmp_path, line, files)) == count


def test_cpus_without_cgroups_are_the_affinity(tmp_path: Path) -> None:
    assert cpus(tmp_path) == len(os.sched_getaffinity(0))
