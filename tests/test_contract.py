"""The contract: every method of every proto is commented, bounded, bound to a task, and tested."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from pathlib import Path

import google.api
import grpc_tools
import pytest
from google.protobuf import descriptor_pb2

from ortmesh import descriptors
from ortmesh.front.methods import Method
from ortmesh.serving import model_service, oip
from ortmesh.serving.models import Models
from ortmesh.serving.store import Store
from ortmesh.serving.types import NoMeter

ROOT = Path(__file__).parents[1]
FAMILIES = ("vision", "speech", "nlp")
METHODS = [
    (service, method.name) for service in descriptors.service_names() for method in descriptors.service(service).methods
]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Method]:
    """The rows that services bind, by path."""
    store = Store(tmp_path_factory.mktemp("store"))
    rows: list[Method] = []
    for family in FAMILIES:
        models = Models(store, family, threads=1, meter=lambda *_: NoMeter())
        rows += importlib.import_module(f"ortmesh_{family}.service").methods(models)
        rows += oip.methods(models, family=family)
        rows += model_service.methods(models)
    return {row.path: row for row in rows}


@pytest.mark.parametrize(("service", "method"), METHODS)
def test_every_method_is_bound_with_its_limits(served: dict[str, Method], service: str, method: str) -> None:
    row = served[f"/{service}/{method}"]
    described = descriptors.service(service).methods_by_name[method]
    assert (row.max_request_bytes, row.default_timeout_seconds) == descriptors.limits(described)
    assert row.request_type.DESCRIPTOR.full_name == described.input_type.full_name
    repeatable = described.client_streaming or not descriptors.has_side_effects(described)
    assert repeatable, "every method so far may be repeated; it must say so"


@pytest.mark.parametrize(("service", "method"), [pair for pair in METHODS if pair[0].startswith("ortmesh")])
def test_every_typed_method_has_a_test_that_calls_it(service: str, method: str) -> None:
    """In the tests of its own family: an Embed of pictures does not prove an Embed of texts."""
    family = service.split(".")[1]
    folders = {"models": ["serving", "gateway"]}.get(family, [family])
    request = re.compile(rf"\b{method}Request\(")
    tests = [path for folder in folders for path in (ROOT / "tests" / folder).rglob("test_*.py")]
    assert any(request.search(path.read_text()) for path in tests)


@pytest.mark.parametrize("family", FAMILIES)
def test_field_one_of_every_task_is_the_model(family: str) -> None:
    """The gateway may route by it. A stream's first message is its configuration, and the model is there."""
    for method in descriptors.service(f"ortmesh.{family}.v1.{family.capitalize()}Service").methods:
        first = method.input_type.fields_by_number[1]
        if method.client_streaming:
            assert first.name == "config"
            first = first.message_type.fields_by_number[1]
        assert first.name == "model"


def test_every_element_of_the_protos_has_a_comment(tmp_path: Path) -> None:
    """A caller in Java sees the protos and nothing else."""
    protos = ROOT / "protos"
    includes = [protos, Path(grpc_tools.__path__[0]) / "_proto", Path(google.api.__path__[0]).parents[1]]
    out = tmp_path / "set"
    flags = [f"--proto_path={path}" for path in includes] + [f"--descriptor_set_out={out}", "--include_source_info"]
    subprocess.run([sys.executable, "-m", "grpc_tools.protoc", *flags, *map(str, protos.rglob("*.proto"))], check=True)
    bare = [
        f"{file.name}:{location.span[0] + 1}"
        for file in descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes()).file
        for location in file.source_code_info.location
        if _names_an_element(list(location.path)) and not location.leading_comments.strip()
    ]
    assert not bare


def _names_an_element(path: list[int]) -> bool:
    """True for messages, fields, enums, values, services and methods; a oneof is described by its fields."""
    kinds = {(4,): "message", (4, 2): "field", (4, 3): "message", (4, 3, 2): "field", (4, 4): "enum"}
    kinds |= {(5,): "enum", (5, 2): "value", (6,): "service", (6, 2): "method"}
    return len(path) % 2 == 0 and tuple(path[::2]) in kinds
