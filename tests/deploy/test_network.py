"""The network policies, worked out: who may connect to whom, and on which port."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.deploy.manifests import FAMILIES, Objects, Workload
from tests.deploy.policies import Pod, allowed

NAMESPACE = "ortmesh"
GRPC, METRICS, GATEWAY = 50051, 9090, 8080
STRANGER = Pod("default", {"app": "shop"})
MONITORING = Pod("monitoring", {"app.kubernetes.io/name": "prometheus"})
DNS = Pod("kube-system", {"k8s-app": "kube-dns"}, ports={"dns": 53})
OUTSIDE = Pod("", {}, address="203.0.113.7")


def pod_of(workload: Workload) -> Pod:
    ports = {port["name"]: port["containerPort"] for each in workload.containers for port in each.get("ports", [])}
    return Pod(NAMESPACE, workload.labels, ports)


@pytest.fixture
def gateway(everything: Objects) -> Pod:
    return pod_of(everything.workload("ortmesh-gateway"))


@pytest.fixture(params=FAMILIES)
def service(everything: Objects, request: pytest.FixtureRequest) -> Pod:
    return pod_of(everything.workload(f"ortmesh-{request.param}"))


def test_the_gateway_reaches_the_services(everything: Objects, gateway: Pod, service: Pod) -> None:
    assert allowed(everything, gateway, service, GRPC)


def test_nobody_else_reaches_the_services(everything: Objects, gateway: Pod, service: Pod) -> None:
    """They believe what their caller says of itself."""
    namesake = replace(gateway, namespace="default")
    neighbour = Pod(NAMESPACE, {"app": "shell"})
    for caller in (STRANGER, MONITORING, OUTSIDE, namesake, neighbour, service):
        assert not allowed(everything, caller, service, GRPC), caller


def test_every_pod_of_the_cluster_reaches_the_gateway(everything: Objects, gateway: Pod) -> None:
    assert allowed(everything, STRANGER, gateway, GATEWAY)
    assert not allowed(everything, OUTSIDE, gateway, GATEWAY)


def test_the_monitoring_alone_reads_the_metrics(everything: Objects, gateway: Pod, service: Pod) -> None:
    for each in (gateway, service):
        assert allowed(everything, MONITORING, each, METRICS)
        assert not allowed(everything, STRANGER, each, METRICS)
    assert not allowed(everything, gateway, service, METRICS)


def test_the_gateway_asks_the_dns(everything: Objects, gateway: Pod) -> None:
    node_local = Pod("", {}, address="169.254.20.10")
    for server in (DNS, node_local):
        assert allowed(everything, gateway, server, 53, "UDP")
        assert allowed(everything, gateway, server, 53, "TCP")


def test_the_services_and_the_gateway_reach_nothing_else(everything: Objects, gateway: Pod, service: Pod) -> None:
    for target in (STRANGER, OUTSIDE, DNS):
        assert not allowed(everything, service, target, 443)
        assert not allowed(everything, gateway, target, 443)
    assert not allowed(everything, service, DNS, 53, "UDP")
    assert not allowed(everything, service, gateway, GATEWAY)


def test_the_job_that_pulls_reaches_registries_and_is_reached_by_nobody(everything: Objects) -> None:
    job = pod_of(everything.workload("ortmesh-store"))
    assert allowed(everything, job, OUTSIDE, 443)
    assert not allowed(everything, STRANGER, job, 443)


def test_ports_of_services_are_ports_of_containers(local: Objects) -> None:
    """And what the gateway calls is a headless Service, whose name means all pods."""
    for service in local.of("Service"):
        ports = pod_of(local.workload(service["metadata"]["name"])).ports
        for port in service["spec"]["ports"]:
            assert ports[port["targetPort"]] == port["port"]
    backends = local.environment(local.workload("ortmesh-gateway").container("proxy"))["ORTMESH_GATEWAY_BACKENDS"]
    addresses = dict(each.split("=") for each in backends.split(","))
    assert set(addresses) == set(FAMILIES)
    for family, address in addresses.items():
        name, _, port = address.partition(":")
        service = local.named("Service", name)
        assert name == f"ortmesh-{family}"
        assert service["spec"]["clusterIP"] == "None"
        assert int(port) in [each["port"] for each in service["spec"]["ports"]]
