"""Pods meet Kubernetes' standard `restricted`, and hold no more than they need."""

from __future__ import annotations

import pytest

from tests.deploy.manifests import Json, Objects, Workload, quantity

VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}
"""The kinds of volumes that `restricted` allows."""


@pytest.fixture
def workloads(everything: Objects) -> list[Workload]:
    return everything.workloads


def test_the_namespace_refuses_what_is_not_restricted(local: Objects) -> None:
    (namespace,) = local.of("Namespace")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


def test_every_pod_is_restricted(workloads: list[Workload]) -> None:
    """What https://kubernetes.io/docs/concepts/security/pod-security-standards lists, point for point."""
    for workload in workloads:
        pod = workload.pod
        assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] > 0
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert "sysctls" not in pod["securityContext"]
        for volume in pod.get("volumes", []):
            assert volume.keys() - {"name"} <= VOLUMES
        for container in [*workload.containers, *pod.get("initContainers", [])]:
            _is_restricted(container)


def _is_restricted(container: Json) -> None:
    context = container["securityContext"]
    assert context["allowPrivilegeEscalation"] is False
    assert context["capabilities"] == {"drop": ["ALL"]}
    assert not {"privileged", "procMount", "runAsUser", "runAsNonRoot", "seccompProfile"} & context.keys()
    assert not any("hostPort" in port for port in container.get("ports", []))


def test_nobody_writes_to_the_image(workloads: list[Workload]) -> None:
    for workload in workloads:
        assert all(each["securityContext"]["readOnlyRootFilesystem"] is True for each in workload.containers)


def test_nobody_holds_a_token_of_the_cluster(everything: Objects, workloads: list[Workload]) -> None:
    assert all(workload.pod["automountServiceAccountToken"] is False for workload in workloads)
    assert all(each["automountServiceAccountToken"] is False for each in everything.of("ServiceAccount"))


def test_kubernetes_adds_no_variables_that_settings_could_be_taken_for(workloads: list[Workload]) -> None:
    """A Service of the name ortmesh-gateway would set ORTMESH_GATEWAY_PORT in every pod."""
    assert all(workload.pod["enableServiceLinks"] is False for workload in workloads)


def test_every_container_has_its_share(workloads: list[Workload]) -> None:
    for workload in workloads:
        for container in workload.containers:
            asked, most = container["resources"]["requests"], container["resources"]["limits"]
            assert asked.keys() == most.keys() == {"cpu", "memory"}, f"{workload} {container['name']}"
            assert all(quantity(asked[name]) <= quantity(most[name]) for name in most), f"{workload}"


def test_a_store_is_read_by_services_and_written_by_the_job_alone(everything: Objects) -> None:
    for workload in everything.workloads:
        mounts = [mount for each in workload.containers for mount in each.get("volumeMounts", [])]
        for mount in mounts:
            if mount["name"] == "store":
                assert mount.get("readOnly", False) is (workload.kind == "Deployment")
