"""The manifests as Kubernetes gets them: rendered by kubectl, and what is looked for in them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import chain, combinations
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
K8S = ROOT / "deploy" / "k8s"
LOCAL = K8S / "overlays" / "local"
FAMILIES = ("vision", "speech", "nlp")
APPLICATIONS = (*FAMILIES, "gateway")
OVERLAYS = tuple(sorted(path.parent for path in K8S.glob("overlays/*/kustomization.yaml")))
COMPONENTS = tuple(sorted(path.parent for path in K8S.glob("components/*/kustomization.yaml")))
KUBECTL = Path(sys.executable).with_name("kubectl")

UNITS = {"": 1.0, "m": 0.001, "Mi": 2.0**20, "Gi": 2.0**30}

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Workload:
    """What makes pods: a Deployment or a Job."""

    name: str
    kind: str
    spec: Json

    @property
    def pod(self) -> Json:
        """The pods' spec."""
        return dict(self.spec["template"]["spec"])

    @property
    def labels(self) -> dict[str, str]:
        """The pods' labels."""
        return dict(self.spec["template"]["metadata"]["labels"])

    @property
    def containers(self) -> list[Json]:
        return list(self.pod["containers"])

    def container(self, name: str) -> Json:
        return next(each for each in self.containers if each["name"] == name)

    def __str__(self) -> str:
        return f"{self.kind}/{self.name}"


class Objects:
    """The objects of one rendering."""

    def __init__(self, objects: Iterable[Json]) -> None:
        self.all = list(objects)

    def of(self, kind: str) -> list[Json]:
        return [each for each in self.all if each["kind"] == kind]

    def named(self, kind: str, name: str) -> Json:
        return next(each for each in self.of(kind) if each["metadata"]["name"] == name)

    @property
    def workloads(self) -> list[Workload]:
        return [
            Workload(each["metadata"]["name"], each["kind"], each["spec"])
            for each in self.all
            if each["kind"] in ("Deployment", "Job")
        ]

    def workload(self, name: str) -> Workload:
        return next(each for each in self.workloads if each.name == name)

    def environment(self, container: Json) -> dict[str, str]:
        """What a container's process finds in its environment, of ours."""
        found: dict[str, str] = {}
        for source in container.get("envFrom", []):
            found |= self.named("ConfigMap", source["configMapRef"]["name"])["data"]
        return found | {each["name"]: each["value"] for each in container.get("env", [])}


def render(folder: Path) -> Objects:
    """What `kubectl apply -k` would send; fails with kubectl's words."""
    return Objects(yaml.safe_load_all(_rendered(folder)))


@cache
def _rendered(folder: Path) -> str:
    done = subprocess.run([KUBECTL, "kustomize", folder], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not done.stderr, done.stderr  # it warns of what is deprecated
    return done.stdout


def subsets(components: Sequence[Path]) -> Iterator[tuple[Path, ...]]:
    """All choices of components, the empty one first."""
    return chain.from_iterable(combinations(components, size) for size in range(len(components) + 1))


def with_components(overlay: Path, components: Sequence[Path], folder: Path) -> Path:
    """A kustomization in `folder` that adds components to an overlay, as a user's own would; without any, the overlay
    itself."""
    if not components:
        return overlay
    listed = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "namespace": "ortmesh",
        "resources": [os.path.relpath(overlay, folder)],
        "components": [os.path.relpath(each, folder) for each in components],
    }
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(listed))
    return folder


def quantity(text: str) -> float:
    """Kubernetes' quantities: `250m` of a CPU, `2Gi` of bytes."""
    unit = text.lstrip("0123456789.")
    return float(text.removesuffix(unit)) * UNITS[unit]


def selects(selector: Json, labels: dict[str, str]) -> bool:
    """Whether a LabelSelector means what has the labels; an empty one means all."""
    pairs = selector.get("matchLabels") or {}
    return all(labels.get(key) == value for key, value in pairs.items()) and all(
        _meets(each, labels) for each in selector.get("matchExpressions") or []
    )


def _meets(expression: Json, labels: dict[str, str]) -> bool:
    key, values = expression["key"], expression.get("values", [])
    return {
        "In": labels.get(key) in values,
        "NotIn": labels.get(key) not in values,
        "Exists": key in labels,
        "DoesNotExist": key not in labels,
    }[str(expression["operator"])]
