"""docs/kubernetes.md: its commands name what is there, and kubectl understands them. No cluster runs them here."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deploy.dockerfile import read
from tests.deploy.manifests import K8S, KUBECTL, LOCAL, ROOT, Objects, render
from tests.docs.pages import DOCS, blocks

PAGE = DOCS / "kubernetes.md"
NOWHERE = "http://127.0.0.1:9"
"""The discard port, on which no cluster answers."""


def commands(program: str) -> Iterator[list[str]]:
    """The page's commands of a program, a loop's once for each of its words."""
    for block in blocks(PAGE):
        if block.language != "sh":
            continue
        loop = re.search(r"for (\w+) in ([\w ]+); do", block.text)
        for line in block.text.splitlines():
            if line.split()[:1] != [program]:
                continue
            for word in loop[2].split() if loop else [""]:
                yield shlex.split(line.replace(f"${loop[1]}", word) if loop else line)


def kubectl() -> list[list[str]]:
    return list(commands("kubectl"))


def test_every_image_is_built_and_loaded(local: Objects) -> None:
    images = {each["image"] for workload in local.workloads for each in workload.containers}
    built = list(commands("docker"))
    for command in built:
        assert command[:2] == ["docker", "build"]
        assert command[-1] == "."
        assert (ROOT / command[command.index("-f") + 1]).is_file()
        assert command[command.index("--target") + 1] in read().stages
    assert {command[command.index("-t") + 1] for command in built} == images
    (loaded,) = (set(each[3:]) for each in commands("kind") if each[1] == "load")
    assert loaded == images


def test_the_arguments_of_a_build_are_the_dockerfiles() -> None:
    named = re.findall(r"--build-arg (\w+)=", PAGE.read_text())
    assert named
    assert set(named) == read().arguments.keys()


@pytest.mark.parametrize("command", kubectl(), ids=" ".join)
def test_a_command_names_what_is_installed(local: Objects, command: list[str]) -> None:
    if "-k" in command:
        assert (ROOT / command[command.index("-k") + 1] / "kustomization.yaml").is_file()
        return
    (namespace,) = local.of("Namespace")
    assert command[command.index("-n") + 1] == namespace["metadata"]["name"]
    for kind, name in (word.split("/") for word in command if re.fullmatch(r"(deployment|service)/[\w-]+", word)):
        found = local.named(kind.capitalize(), name)
        for port in (word.split(":")[1] for word in command if re.fullmatch(r"\d+:\d+", word)):
            assert int(port) in [each["port"] for each in found["spec"]["ports"]]


@pytest.mark.parametrize("command", kubectl(), ids=" ".join)
def test_kubectl_understands_a_command(command: list[str]) -> None:
    """All that it misses is the cluster."""
    done = subprocess.run(
        [KUBECTL, *command[1:], "--server", NOWHERE],
        cwd=ROOT,
        env={**os.environ, "KUBECONFIG": os.devnull},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "refused" in done.stderr.splitlines()[-1], done.stderr


def test_every_kind_of_object_is_explained(local: Objects) -> None:
    page = PAGE.read_text()
    for kind in {each["kind"] for each in local.all}:
        assert f"\n| {kind}" in page, kind


def test_the_overlay_of_ones_own_leaves_a_family_out_and_sets_a_variable(tmp_path: Path) -> None:
    """As it stands on the page, in a copy of `overlays/local`."""
    (block,) = (each.text for each in blocks(PAGE) if each.language == "yaml")
    shutil.copytree(K8S, tmp_path / "k8s")
    mine = tmp_path / "k8s" / "overlays" / "mine"
    shutil.copytree(LOCAL, mine)
    (mine / "kustomization.yaml").write_text(block)
    rendered = render(mine)
    assert {each.name for each in rendered.workloads} == {"ortmesh-vision", "ortmesh-nlp", "ortmesh-gateway"}
    changed = rendered.environment(rendered.workload("ortmesh-nlp").container("server"))
    usual = render(LOCAL)
    before = usual.environment(usual.workload("ortmesh-nlp").container("server"))
    assert changed == before | {"ORTMESH_SERVICE_MAX_CALLS": "256"}
    told = rendered.environment(rendered.workload("ortmesh-gateway").container("proxy"))
    assert told["ORTMESH_GATEWAY_BACKENDS"] == "vision=ortmesh-vision:50051,nlp=ortmesh-nlp:50051"
    assert told["ORTMESH_GATEWAY_GRACE_SECONDS"] == "600"


def test_the_image_with_a_model_of_ones_own_goes_back_to_the_services_user() -> None:
    (lines,) = (block.text.splitlines() for block in blocks(PAGE) if block.language == "text")
    assert lines[0] == "FROM ortmesh-nlp:local"
    assert lines[-1] == f"USER {read().stages['nlp'].last('USER')}"
