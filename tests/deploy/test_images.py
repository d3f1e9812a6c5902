"""The images: each that the manifests name is a target, runs as the user of the manifests, and is pinned."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
import tomllib
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.deploy.dockerfile import PATH, Dockerfile, read
from tests.deploy.manifests import APPLICATIONS, FAMILIES, ROOT, Objects

SCRIPT = PATH.with_name("requirements.py")
COMPILERS = re.compile(r"\b(gcc|g\+\+|build-essential|python3-dev|cmake)\b")


@pytest.fixture(scope="module")
def dockerfile() -> Dockerfile:
    return read()


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    content: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return content


def test_every_image_of_the_manifests_is_a_target(dockerfile: Dockerfile, everything: Objects) -> None:
    images = {each["image"] for workload in everything.workloads for each in workload.containers}
    assert images == {f"ortmesh-{target}:local" for target in APPLICATIONS}
    assert set(APPLICATIONS) <= dockerfile.stages.keys()


def test_no_image_is_whatever_is_the_latest(everything: Objects) -> None:
    for workload in everything.workloads:
        for each in workload.containers:
            _, colon, tag = each["image"].rpartition(":")
            assert colon, each["image"]
            assert tag != "latest"


@pytest.mark.parametrize("target", APPLICATIONS)
def test_a_target_runs_its_module_as_the_user_of_the_manifests(
    dockerfile: Dockerfile, everything: Objects, target: str
) -> None:
    workload = everything.workload(f"ortmesh-{target}")
    context = workload.pod["securityContext"]
    assert dockerfile.stages[target].last("USER") == f"{context['runAsUser']}:{context['runAsGroup']}"
    assert json.loads(dockerfile.find(target, "ENTRYPOINT") or "") == ["python", "-P", "-m"]
    (command,) = json.loads(dockerfile.find(target, "CMD") or "")
    assert command in [each["args"][0] for each in workload.containers]
    created = re.search(r"useradd --uid (\d+)", " ".join(text for _, text in dockerfile.stages["base"].instructions))
    assert created
    assert int(created[1]) == context["runAsUser"]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_familys_image_has_its_models(dockerfile: Dockerfile, family: str) -> None:
    """They are where its environment says, so that a pod downloads nothing."""
    stage = dockerfile.stages[family]
    assert ("COPY", f"--from={family}-models /models /models") in stage.instructions
    assert stage.last("ENV") == "ORTMESH_MODELS=/models"
    pull = dockerfile.stages[f"{family}-models"].last("RUN") or ""
    assert f"ortmesh pull --family {family} --models /models" in pull


def test_nothing_is_reported_to_the_makers_of_the_runtime(dockerfile: Dockerfile) -> None:
    assert "ORT_DISABLE_TELEMETRY=1" in (dockerfile.find("libraries", "ENV") or "").split()


def test_no_stage_has_a_compiler(dockerfile: Dockerfile) -> None:
    for stage in dockerfile.stages.values():
        assert not any(COMPILERS.search(text) for _, text in stage.instructions)


def test_stages_are_above_those_that_they_take_from(dockerfile: Dockerfile) -> None:
    known: list[str] = ["${BASE}"]
    for stage in dockerfile.stages.values():
        taken = re.findall(r"(?:--from=|[,]from=)([\w-]+)", " ".join(text for _, text in stage.instructions))
        assert {stage.base, *taken} <= set(known), stage.name
        known.append(stage.name)


@pytest.mark.parametrize(
    "extras", [["serving", "cli", "native", "cpu"], ["serving", "cli", "native", "gpu"], *[[a] for a in APPLICATIONS]]
)
def test_every_requirement_of_an_image_is_pinned(extras: list[str]) -> None:
    pinned = {
        canonicalize_name(line.partition("==")[0])
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if "==" in line
    }
    named = [Requirement(line) for line in requirements(*extras)]
    assert {canonicalize_name(each.name) for each in named} <= pinned


@pytest.mark.parametrize("family", FAMILIES)
def test_the_layers_of_an_image_hold_all_that_its_extras_say(
    dockerfile: Dockerfile, project: dict[str, Any], family: str
) -> None:
    """What `pip install 'ortmesh[nlp,cli,native,cpu]'` would bring, from the stages' own lists."""
    installed: set[str] = set()
    lists = dockerfile.stages["requirements"].last("RUN") or ""
    shared = re.search(r"requirements\.py ([\w ]+) \$\{RUNTIME\}", lists)
    assert shared
    installed |= set(requirements(*shared[1].split(), dockerfile.arguments["RUNTIME"]))
    installed |= set(requirements(family))
    assert installed >= set(requirements(family, "cli", "native", "cpu"))
    assert family in lists
    texts = [text for stage in dockerfile.chain(family) for _, text in stage.instructions]
    for name in ("libraries", family):
        assert any(f"-r /requirements/{name}.txt" in text for text in texts)


def test_an_extra_that_does_not_exist_is_refused() -> None:
    done = subprocess.run([sys.executable, SCRIPT, "none"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "KeyError" in done.stderr


def test_the_build_gets_what_it_copies() -> None:
    """The wheel's sources and the requirements' files, and not whatever else lies in the checkout."""
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    kept = {line[1:] for line in lines if line.startswith("!")}
    assert lines[1] == "*"
    assert kept >= {"pyproject.toml", "constraints.txt", "hatch_build.py", "README.md", "LICENSE", "protos"}
    assert kept >= {"ortmesh", "services", "gateway", str(SCRIPT.relative_to(ROOT))}
    assert all((ROOT / each).exists() for each in kept)


def requirements(*extras: str) -> list[str]:
    done = subprocess.run([sys.executable, SCRIPT, *extras], cwd=ROOT, capture_output=True, text=True, check=True)
    assert importlib.util.find_spec("packaging")
    return done.stdout.splitlines()
