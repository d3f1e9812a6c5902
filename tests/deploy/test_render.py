"""Every overlay, with every choice of components, is something that Kubernetes takes, and holds together."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import kubernetes_validate  # type: ignore[import-untyped]
import pytest

from tests.deploy.manifests import (
    APPLICATIONS,
    COMPONENTS,
    K8S,
    OVERLAYS,
    Objects,
    render,
    selects,
    subsets,
    with_components,
)

VERSIONS = ("1.30", "1.37")
"""The oldest that has all that is used (an HPA's ContainerResource), and the newest that the schemas know."""
COMMON_LABELS = {"app.kubernetes.io/name", "app.kubernetes.io/part-of"}


def choice(value: object) -> str:
    """A test's name: the overlay, or the components that are added to it."""
    return value.name if isinstance(value, Path) else "+".join(each.name for each in value) or "alone"  # type: ignore[attr-defined]


every_choice = pytest.mark.parametrize("components", list(subsets(COMPONENTS)), ids=choice)
every_overlay = pytest.mark.parametrize("overlay", OVERLAYS, ids=choice)


@every_overlay
@every_choice
def test_kubernetes_takes_it(overlay: Path, components: tuple[Path, ...], tmp_path: Path) -> None:
    """Against the schemas, where a key that is not known is an error."""
    rendered = render(with_components(overlay, components, tmp_path))
    for each in rendered.all:
        for version in VERSIONS:
            kubernetes_validate.validate(each, version, strict=True)
    names = Counter((each["kind"], each["metadata"]["name"]) for each in rendered.all)
    assert set(names.values()) == {1}


@every_overlay
@every_choice
def test_it_holds_together(overlay: Path, components: tuple[Path, ...], tmp_path: Path) -> None:
    rendered = render(with_components(overlay, components, tmp_path))
    _references_lead_somewhere(rendered)
    _selectors_find_one_application(rendered)
    _everything_is_labelled_and_in_the_namespace(rendered)


@pytest.mark.parametrize("application", APPLICATIONS)
def test_each_application_is_deployed_alone_too(application: str) -> None:
    rendered = render(K8S / application)
    for each in rendered.all:
        kubernetes_validate.validate(each, VERSIONS[-1], strict=True)
    assert [each.name for each in rendered.workloads] == [f"ortmesh-{application}"]
    _references_lead_somewhere(rendered)
    _selectors_find_one_application(rendered)


def test_one_kind_a_file() -> None:
    for path in K8S.rglob("*.yaml"):
        documents = [text for text in path.read_text().split("\n---") if text.strip()]
        assert len(documents) == 1, path


def test_every_component_says_when_to_use_it() -> None:
    for folder in COMPONENTS:
        lines = (folder / "README.md").read_text().splitlines()
        assert lines[0].startswith("# "), folder


def _references_lead_somewhere(rendered: Objects) -> None:
    for workload in rendered.workloads:
        if account := workload.pod.get("serviceAccountName"):
            assert rendered.named("ServiceAccount", account)
        volumes = {each["name"]: each for each in workload.pod.get("volumes", [])}
        for volume in volumes.values():
            if claim := volume.get("persistentVolumeClaim"):
                assert rendered.named("PersistentVolumeClaim", claim["claimName"])
        for container in workload.containers:
            assert {each["name"] for each in container.get("volumeMounts", [])} <= volumes.keys()
            assert rendered.environment(container) is not None
    for scaler in rendered.of("HorizontalPodAutoscaler"):
        target = rendered.workload(scaler["spec"]["scaleTargetRef"]["name"])
        assert "replicas" not in target.spec, "each time it is applied it would undo what the HPA did"
        for metric in scaler["spec"]["metrics"]:
            if "containerResource" in metric:
                assert target.container(metric["containerResource"]["container"])


def _selectors_find_one_application(rendered: Objects) -> None:
    """Its own pods, and no other's."""
    for kind, path in {
        "Deployment": ("selector",),
        "Service": (),
        "PodDisruptionBudget": ("selector",),
        "NetworkPolicy": ("podSelector",),
    }.items():
        for each in rendered.of(kind):
            spec = each["spec"]
            selector = {"matchLabels": spec["selector"]} if kind == "Service" else spec[path[0]]
            assert selector["matchLabels"], f"{kind} {each['metadata']['name']} means every pod"
            found = [workload.name for workload in rendered.workloads if selects(selector, workload.labels)]
            assert found == [each["metadata"]["name"]], kind
    for workload in rendered.workloads:
        for constraint in workload.pod.get("topologySpreadConstraints", []):
            assert constraint["labelSelector"]["matchLabels"]
            assert selects(constraint["labelSelector"], workload.labels)


def _everything_is_labelled_and_in_the_namespace(rendered: Objects) -> None:
    (namespace,) = rendered.of("Namespace")
    for each in rendered.all:
        if each is not namespace:
            assert each["metadata"].get("namespace") == namespace["metadata"]["name"], each
            assert each["metadata"]["labels"].keys() >= COMMON_LABELS, each
