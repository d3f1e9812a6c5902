"""The wheel holds everything: an editable install would find the checkout by accident."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODULES = [
    "ortmesh.client",
    "ortmesh.descriptors",
    "ortmesh.cli",
    "ortmesh.catalogue.recipes.minilm_l6_v2",
    "ortmesh_vision.service",
    "ortmesh_speech.service",
    "ortmesh_nlp.service",
    "ortmesh_gateway.gateway",
]


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", folder, ROOT]
    subprocess.run(build, check=True, env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"})
    [wheel] = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


@pytest.mark.parametrize("module", MODULES)
def test_modules_import_from_the_wheel(unpacked: Path, module: str) -> None:
    code = f"import {module} as m; print(m.__file__)"
    environment = {**os.environ, "PYTHONPATH": str(unpacked)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd="/", env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith(str(unpacked))


def test_the_wheel_has_cards_descriptors_and_types(unpacked: Path) -> None:
    assert (unpacked / "ortmesh" / "descriptors.binpb").is_file()
    assert (unpacked / "ortmesh" / "py.typed").is_file()
    assert list((unpacked / "ortmesh" / "catalogue" / "cards").glob("*.yaml"))
    assert (unpacked / "ortmesh" / "nlp" / "v1" / "nlp_pb2.pyi").is_file()


def test_nothing_but_our_packages_is_in_the_wheel(unpacked: Path) -> None:
    ours = {"ortmesh", "ortmesh_vision", "ortmesh_speech", "ortmesh_nlp", "ortmesh_gateway"}
    assert {path.name for path in unpacked.iterdir() if not path.name.endswith(".dist-info")} == ours
