"""What the manifests tell the processes is what the code reads: modules, variables, ports, times, sizes."""

from __future__ import annotations

import importlib.util

import pytest

from ortmesh.config import (
    GatewaySettings,
    ServiceSettings,
    Settings,
    StoreSettings,
    TelemetrySettings,
)
from ortmesh_gateway.methods import method_routes
from ortmesh_gateway.process import KILL_SECONDS
from tests.deploy.manifests import FAMILIES, Json, Objects, Workload, quantity

DEPLOYMENTS = [f"ortmesh-{name}" for name in (*FAMILIES, "gateway")]
MIB = 1024 * 1024
EXTRA_SECONDS = 15
"""Between a process's own end, however late, and the kill: models and the last telemetry end in it."""
KEEPER_BYTES = 256 * MIB
"""For Envoy's keeper, and what Envoy takes beside its heap."""
READ_BY: dict[str, tuple[type[Settings], ...]] = {
    **{f"ortmesh_{family}": (ServiceSettings, TelemetrySettings, StoreSettings) for family in FAMILIES},
    "ortmesh_gateway": (GatewaySettings, TelemetrySettings),
    "ortmesh_gateway.proxy": (GatewaySettings, TelemetrySettings),
    "ortmesh.cli": (StoreSettings,),
}
"""Each module that a container may run, and the settings that it reads."""


def module(container: Json) -> str:
    return str(container["args"][0])


def seconds(workload: Workload, objects: Objects, name: str) -> float:
    """A time from the workload's environment, else the settings' default: the longest of its containers."""
    prefix, settings = ("GATEWAY", GatewaySettings) if "gateway" in workload.name else ("SERVICE", ServiceSettings)
    default = settings.model_fields[f"{name}_seconds"].default
    return max(
        float(objects.environment(each).get(f"ORTMESH_{prefix}_{name.upper()}_SECONDS", default))
        for each in workload.containers
    )


@pytest.fixture(params=DEPLOYMENTS)
def deployment(everything: Objects, request: pytest.FixtureRequest) -> Workload:
    return everything.workload(str(request.param))


def test_every_container_runs_a_module_that_there_is(everything: Objects) -> None:
    """The images' entry point is `python -P -m`."""
    for workload in everything.workloads:
        for container in workload.containers:
            assert "command" not in container
            found = importlib.util.find_spec(module(container))
            assert found is not None
            if found.submodule_search_locations is not None:
                assert importlib.util.find_spec(f"{module(container)}.__main__")


def test_every_variable_is_one_that_its_process_reads(everything: Objects) -> None:
    for workload in everything.workloads:
        for container in workload.containers:
            known = {name for each in READ_BY[module(container)] for name in each.variables().values()}
            assert everything.environment(container).keys() <= known, f"{workload} {container['name']}"


def test_every_value_is_one_that_its_process_takes(everything: Objects, monkeypatch: pytest.MonkeyPatch) -> None:
    for workload in everything.workloads:
        for container in workload.containers:
            with monkeypatch.context() as patch:
                patch.setenv("ORTMESH_SERVICE_FAMILY", module(container).removeprefix("ortmesh_"))
                for name, value in everything.environment(container).items():
                    patch.setenv(name, value)
                for settings in READ_BY[module(container)]:
                    settings()


def test_a_service_is_configured_for_the_network_that_it_is_in(deployment: Workload, everything: Objects) -> None:
    """It takes the adapter that may meet strangers, and believes its caller because the policy lets in one alone."""
    if "gateway" in deployment.name:
        return
    environment = everything.environment(deployment.container("server"))
    assert environment["ORTMESH_SERVICE_ADAPTER"] == "grpcio"
    assert environment["ORTMESH_SERVICE_TRUSTS_CALLER"] == "true"
    assert everything.named("NetworkPolicy", deployment.name)


def test_ports_are_those_on_which_the_processes_listen(deployment: Workload, everything: Objects) -> None:
    """On all of the pod's addresses; the kubelet and the other pods come from outside of it."""
    listening: dict[str, int] = {}
    declared: dict[str, int] = {}
    for container in deployment.containers:
        environment = everything.environment(container)
        declared |= {port["name"]: port["containerPort"] for port in container.get("ports", [])}
        if container["name"] in ("server", "proxy"):
            address = environment.get("ORTMESH_SERVICE_ADDRESS") or environment["ORTMESH_GATEWAY_ADDRESS"]
            host, _, port = address.rpartition(":")
            assert host == "0.0.0.0"
            listening["grpc"] = int(port)
        if port := environment.get("ORTMESH_TELEMETRY_METRICS_PORT", ""):
            assert environment["ORTMESH_TELEMETRY_METRICS_HOST"] == "0.0.0.0"
            listening["metrics"] = int(port)
    assert declared == listening
    annotations = deployment.spec["template"]["metadata"]["annotations"]
    assert annotations["prometheus.io/port"] == str(listening["metrics"])


def test_probes_ask_where_the_process_listens(deployment: Workload) -> None:
    ports = {port["name"]: port["containerPort"] for each in deployment.containers for port in each.get("ports", [])}
    for container in deployment.containers:
        probes = [container[kind] for kind in container if kind.endswith("Probe")]
        assert probes
        for probe in probes:
            asked = probe["grpc"]["port"] if "grpc" in probe else ports[probe["tcpSocket"]["port"]]
            assert asked == ports["grpc"]


def test_nothing_is_killed_before_its_calls_had_their_grace(deployment: Workload, everything: Objects) -> None:
    own = seconds(deployment, everything, "drain") + seconds(deployment, everything, "grace")
    ends = KILL_SECONDS if "gateway" in deployment.name else 0
    assert deployment.pod["terminationGracePeriodSeconds"] >= own + ends + EXTRA_SECONDS


def test_the_grace_is_the_longest_default_deadline(deployment: Workload, everything: Objects) -> None:
    """So that a rollout ends no call that could still be in time."""
    family = deployment.name.removeprefix("ortmesh-")
    deadlines = [
        route.default_seconds
        for route in method_routes()
        if (family == "gateway" or route.cluster == family or route.by_model) and "Watch" not in route.path
    ]
    longest = max(each for each in deadlines if each < 3600)  # reflection is a stream without an end of its own
    assert seconds(deployment, everything, "grace") == longest


def test_a_rollout_takes_no_pod_away_before_another_is_there(deployment: Workload) -> None:
    assert deployment.spec["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}


def test_an_old_service_stays_until_the_gateway_knows_the_new_one(deployment: Workload) -> None:
    """Envoy asks the DNS every 5 s, whose answers may be 30 s old."""
    if "gateway" not in deployment.name:
        assert deployment.spec["minReadySeconds"] >= 35


def test_both_of_the_gateways_processes_are_told_the_same(everything: Objects) -> None:
    gateway = everything.workload("ortmesh-gateway")
    told = [
        {name: value for name, value in everything.environment(each).items() if "_TELEMETRY_" not in name}
        for each in gateway.containers
    ]
    assert told[0] == told[1]
    (volume,) = gateway.pod["volumes"]
    for container in gateway.containers:
        mounted = {"name": volume["name"], "mountPath": told[0]["ORTMESH_GATEWAY_RUNTIME"]}
        assert container["volumeMounts"] == [mounted]
    assert len({each["image"] for each in gateway.containers}) == 1


def test_the_bounds_of_memory_fit_into_the_limits(deployment: Workload, everything: Objects) -> None:
    for container in deployment.containers:
        environment = everything.environment(container)
        limit = quantity(container["resources"]["limits"]["memory"])
        if container["name"] == "proxy":
            heap = GatewaySettings.model_fields["max_heap_bytes"].default
            assert limit >= int(environment.get("ORTMESH_GATEWAY_MAX_HEAP_BYTES", heap)) + KEEPER_BYTES
        if container["name"] == "server":
            calls = ServiceSettings.model_fields["max_bytes"].default
            assert limit >= 2 * int(environment.get("ORTMESH_SERVICE_MAX_BYTES", calls))


def test_a_service_has_whole_cpus_for_its_threads(deployment: Workload) -> None:
    """1.5 would be one thread, and half a CPU for nobody."""
    if "gateway" not in deployment.name:
        assert deployment.container("server")["resources"]["limits"]["cpu"].isdecimal()
