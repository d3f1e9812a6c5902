"""Build hook: stubs, their type stubs and the descriptor set, made from protos/. Also run by scripts/generate."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import google.api
import grpc_tools
from hatchling.builders.hooks.plugin.interface import BuildHookInterface

STUBS = ("common", "vision", "speech", "nlp", "models")
DESCRIPTORS = Path("ortmesh/descriptors.binpb")


class StubsHook(BuildHookInterface[Any]):
    """Makes the stubs before the wheel or the editable install is put together."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Generates into the source tree and tells hatchling to take the git-ignored files along."""
        generate(Path(self.root))
        build_data["artifacts"] += [f"/ortmesh/{name}/**" for name in STUBS] + [f"/{DESCRIPTORS}"]


def generate(root: Path) -> None:
    """Writes `ortmesh/<package>/v1/*_pb2*.py`, their `.pyi`, `__init__.py` files and the descriptor set.

    OIP's messages (protos/inference) get no stubs: they live in a private pool, see `ortmesh.descriptors`.
    Raises CalledProcessError when protoc refuses a file; its message says where.
    """
    protos = root / "protos"
    files = sorted(path.relative_to(protos).as_posix() for path in protos.rglob("*.proto"))
    stubbed = [name for name in files if name.startswith("ortmesh/")]
    for name in STUBS:
        shutil.rmtree(root / "ortmesh" / name, ignore_errors=True)
    plugins = [_plugin("protoc-gen-mypy"), _plugin("protoc-gen-mypy_grpc")]
    _protoc(
        protos, plugins, [f"--{kind}_out={root}" for kind in ("python", "grpc_python", "mypy", "mypy_grpc")], stubbed
    )
    _protoc(protos, [], [f"--descriptor_set_out={root / DESCRIPTORS}", "--include_imports"], files)
    for name in STUBS:
        for folder in (root / "ortmesh" / name, root / "ortmesh" / name / "v1"):
            (folder / "__init__.py").write_text('"""Generated from protos/ by the build hook."""\n')


def _protoc(protos: Path, plugins: list[str], outputs: list[str], files: list[str]) -> None:
    includes = [protos, Path(grpc_tools.__path__[0]) / "_proto", Path(google.api.__path__[0]).parents[1]]
    flags = [f"--proto_path={path}" for path in includes] + plugins + outputs
    subprocess.run([sys.executable, "-m", "grpc_tools.protoc", *flags, *files], check=True)


def _plugin(name: str) -> str:
    """The plugin of this interpreter's environment: build isolation does not put it on the PATH."""
    found = shutil.which(name) or shutil.which(name, path=sysconfig.get_path("scripts"))
    if found is None:
        beside = Path(sys.executable).with_name(name)
        raise FileNotFoundError(f"{name} is missing beside {beside}: install mypy-protobuf")
    return f"--plugin={name}={found}"


if __name__ == "__main__":
    generate(Path(__file__).resolve().parent)
