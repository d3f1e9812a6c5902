"""What the gateway reads from the protos about each method."""

from __future__ import annotations

import pytest

from ortmesh import descriptors
from ortmesh_gateway.methods import DIRECTORY, MESH_SERVICES, families, method_routes

ROUTES = {method.path: method for method in method_routes()}
OIP = f"/{descriptors.OIP_SERVICE}"
MIB = 1024 * 1024
STREAMING = [
    method
    for name in descriptors.service_names()
    for method in descriptors.service(name).methods
    if method.client_streaming
]


def test_every_method_of_every_proto_has_its_row() -> None:
    """A new rpc needs no change here, and none can be forgotten."""
    names = (*descriptors.service_names(), *MESH_SERVICES)
    assert set(ROUTES) == {f"/{name}/{method.name}" for name in names for method in descriptors.service(name).methods}


def test_size_limits_and_deadlines_are_those_of_the_protos() -> None:
    for name in descriptors.service_names():
        for method in descriptors.service(name).methods:
            row = ROUTES[f"/{name}/{method.name}"]
            assert (row.max_request_bytes, row.default_seconds) == descriptors.limits(method)


@pytest.mark.parametrize(
    ("path", "cluster", "max_bytes", "seconds"),
    [
        ("/ortmesh.nlp.v1.NlpService/Embed", "nlp", 4 * MIB, 60),
        ("/ortmesh.vision.v1.VisionService/Classify", "vision", 32 * MIB, 60),
        ("/ortmesh.speech.v1.SpeechService/Recognize", "speech", 32 * MIB, 600),
        ("/ortmesh.speech.v1.SpeechService/DetectSpeech", "speech", 32 * MIB, 300),
        ("/ortmesh.speech.v1.SpeechService/Synthesize", "speech", MIB, 43_200),
        ("/ortmesh.models.v1.ModelService/ListModels", DIRECTORY, 65536, 10),
        (f"{OIP}/ModelInfer", DIRECTORY, 32 * MIB, 60),
        ("/grpc.health.v1.Health/Check", DIRECTORY, 65536, 60),
    ],
)
def test_a_family_answers_its_methods_and_the_directory_the_rest(
    path: str, cluster: str, max_bytes: int, seconds: float
) -> None:
    row = ROUTES[path]
    assert (row.cluster, row.max_request_bytes, row.default_seconds) == (cluster, max_bytes, seconds)


def test_only_oip_methods_that_name_a_model_are_routed_by_it() -> None:
    """RepositoryIndex has the repository's name in the same field, and typed methods go to their family."""
    by_model = {path for path, row in ROUTES.items() if row.by_model}
    named = ("ModelInfer", "ModelReady", "ModelMetadata", "ModelStreamInfer")
    assert by_model == {f"{OIP}/{name}" for name in named}


def test_a_call_may_compute_in_silence_for_its_whole_deadline() -> None:
    assert all(row.idle_seconds >= row.default_seconds for row in ROUTES.values() if row.buffered)


def test_watches_may_be_silent_as_long_as_nothing_changes() -> None:
    for path in ("/ortmesh.models.v1.ModelService/WatchModels", "/grpc.health.v1.Health/Watch"):
        assert ROUTES[path].idle_seconds == 12 * 3600


def test_streams_from_the_caller_are_not_buffered() -> None:
    streaming = {f"/{method.containing_service.full_name}/{method.name}" for method in STREAMING}
    reflection = {f"/{service}/ServerReflectionInfo" for service in descriptors.REFLECTION_SERVICES}
    assert {path for path, row in ROUTES.items() if not row.buffered} == streaming | reflection


def test_a_caller_who_streams_may_pause_for_hours_and_is_never_repeated() -> None:
    for method in STREAMING:
        row = ROUTES[f"/{method.containing_service.full_name}/{method.name}"]
        assert (row.default_seconds, row.idle_seconds, row.retried) == (12 * 3600, 12 * 3600, False)


def test_the_families_are_those_of_the_protos() -> None:
    assert families() == ("nlp", "speech", "vision")
