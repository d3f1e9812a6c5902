"""The mesh as its callers see it: every task through the gateway, any ONNX file, one directory for all models."""

from __future__ import annotations

import io
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np
import pytest
import skimage
import soundfile
import tritonclient.grpc as triton
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from PIL import Image as Pillow
from PIL import ImageDraw, ImageFont

from ortmesh import descriptors
from ortmesh.client import Client, violations
from ortmesh.models.v1.models_pb2 import GetModelRequest, ListModelsRequest, ModelState, WatchModelsRequest
from ortmesh.nlp.v1.nlp_pb2 import EmbedRequest
from ortmesh.speech.v1.speech_pb2 import Audio, RecognizeRequest
from ortmesh.vision.v1.vision_pb2 import ClassifyRequest, DetectRequest, Image, ReadTextRequest
from ortmesh.vision.v1.vision_pb2 import EmbedRequest as EmbedPicturesRequest
from tests.mesh.conftest import RunningMesh
from tests.serving import graphs

PICTURES = Path(skimage.__file__).parent / "data"


def picture(name: str) -> Image:
    return Image(encoded=(PICTURES / name).read_bytes())


def add(mesh: RunningMesh, file: Path, name: str, family: str = "nlp") -> None:
    """`ortmesh models add`, as a user types it."""
    command = [sys.executable, "-m", "ortmesh.cli", "models", "add", str(file), "--name", name, "--family", family]
    subprocess.run(command, env={"ORTMESH_MODELS": str(mesh.store), "PATH": "/usr/bin:/bin"}, check=True)


def until_ready(client: Client, name: str) -> None:
    """Returns when the mesh's directory says that a model is ready; told by its stream, not asked for."""
    for answer in client.models.WatchModels(WatchModelsRequest(), timeout=60):
        if any(model.name == name and model.state == ModelState.MODEL_STATE_READY for model in answer.models):
            return
    raise AssertionError(f"{name} never became ready")


# Tasks


def test_a_picture_of_coffee_is_classified(client: Client) -> None:
    answer = client.vision.Classify(ClassifyRequest(image=picture("coffee.png")))
    assert answer.labels[0].name == "espresso"
    assert answer.labels[0].score > 0.9


def test_pictures_are_embedded(client: Client) -> None:
    names = ["chelsea.png", "coffee.png"]
    answer = client.vision.Embed(EmbedPicturesRequest(images=[picture(name) for name in names]))
    vectors = np.array([result.embedding.values for result in answer.results])
    assert vectors.shape == (2, 1280)
    assert vectors[0] @ vectors[1] < 0.5


def test_a_face_is_found(client: Client) -> None:
    (face,) = client.vision.Detect(DetectRequest(image=picture("astronaut.png"))).detections
    assert (face.name, len(face.landmarks)) == ("face", 5)
    assert face.box.x_min < 226 < face.box.x_max


def test_a_printed_page_is_read(client: Client) -> None:
    lines = ["Invoice No. 48213", "Total due: $1,249.50", "Thank you for your business!"]
    page = Pillow.new("RGB", (700, 220), "white")
    for number, line in enumerate(lines):
        ImageDraw.Draw(page).text((30, 20 + 60 * number), line, fill="black", font=ImageFont.load_default(32))
    file = io.BytesIO()
    page.save(file, "PNG")
    answer = client.vision.ReadText(ReadTextRequest(image=Image(encoded=file.getvalue())))
    assert answer.text.splitlines() == lines


def test_speech_is_recognized(client: Client) -> None:
    from hibari import Hibari

    file = io.BytesIO()
    samples = Hibari(threads=1)("Please schedule a meeting for tomorrow morning.", seed=0)
    soundfile.write(file, samples, 24_000, format="WAV", subtype="PCM_16")
    answer = client.speech.Recognize(RecognizeRequest(audio=Audio(encoded=file.getvalue())))
    assert answer.transcript.lower().strip(" .") == "please schedule a meeting for tomorrow morning"


def test_texts_are_embedded(client: Client) -> None:
    answer = client.nlp.Embed(EmbedRequest(texts=["a dog barks", "a hound is barking", "tax return"]))
    vectors = np.array([result.embedding.values for result in answer.results])
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2] + 0.3


def test_a_wrong_field_is_named_through_the_gateway(client: Client) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        client.vision.Classify(ClassifyRequest(image=Image(encoded=b"no picture")))
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert violations(refused.value)[0][0] == "image.encoded"


def test_an_unknown_model_is_not_found_with_near_names(client: Client) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        client.nlp.Embed(EmbedRequest(texts=["x"], model="all-minilm"))
    assert refused.value.code() is grpc.StatusCode.NOT_FOUND
    assert "all-minilm-l6-v2" in (refused.value.details() or "")


# Any ONNX file


def triton_infer(address: str, model: str, x: np.ndarray) -> np.ndarray:  # type: ignore[type-arg]
    with triton.InferenceServerClient(address) as remote:
        given = triton.InferInput("x", list(x.shape), "FP32")
        given.set_data_from_numpy(x)
        result: np.ndarray = remote.infer(model, [given], client_timeout=60).as_numpy("y")  # type: ignore[type-arg]
    return result


def test_an_added_model_is_served_without_a_restart(mesh: RunningMesh, client: Client, tmp_path: Path) -> None:
    add(mesh, graphs.double(tmp_path), "doubler", "speech")
    until_ready(client, "doubler")
    x = np.arange(8, dtype=np.float32).reshape(2, 4)
    np.testing.assert_array_equal(triton_infer(mesh.address, "doubler", x), x * 2)


def test_the_batch_mean_graph_answers_right_under_load(mesh: RunningMesh, client: Client, tmp_path: Path) -> None:
    """It looks batchable and is not: warm-up finds out, and no caller gets a neighbour's mean."""
    add(mesh, graphs.batch_mean(tmp_path), "mean")
    until_ready(client, "mean")
    shown = client.models.GetModel(GetModelRequest(model="mean"))
    assert "one at a time" in shown.state_reason
    with ThreadPoolExecutor(16) as callers:
        rows = [np.full((1, 4), number, np.float32) for number in range(160)]
        for answer in callers.map(lambda x: triton_infer(mesh.address, "mean", x), rows):
            np.testing.assert_array_equal(answer, np.zeros((1, 4)))


def test_a_file_that_is_no_model_says_why(mesh: RunningMesh, tmp_path: Path) -> None:
    bad = tmp_path / "bad.onnx"
    bad.write_bytes(b"no graph")
    command = [sys.executable, "-m", "ortmesh.cli", "models", "add", str(bad), "--name", "bad", "--family", "nlp"]
    done = subprocess.run(command, env={"ORTMESH_MODELS": str(mesh.store)}, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "bad.onnx" in done.stderr
    assert "Traceback" not in done.stderr


def test_tritonclient_infers_on_a_service_directly(store: object, tmp_path: Path, direct: str) -> None:
    x = np.ones((3, 4), np.float32)
    np.testing.assert_array_equal(triton_infer(direct, "doubler", x), x * 2)


@pytest.fixture(scope="module", params=["native", "grpcio"])
def direct(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A language service by itself on TCP, with one added model."""
    from ortmesh.serving.add import add as add_to
    from ortmesh.serving.store import Store

    folder = tmp_path_factory.mktemp("direct")
    store = Store(folder / "models")
    add_to(graphs.double(folder), "doubler", "nlp", store)
    command = [sys.executable, "-m", "ortmesh_nlp", "--listen", "127.0.0.1:0", "--models", str(store.root)]
    process = subprocess.Popen([*command, "--adapter", request.param], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    address = ""
    for line in process.stderr:
        if "listens on " in line:
            address = line.split("listens on ")[1].split('"')[0].strip()
            break
    drained = threading.Thread(target=process.stderr.read)
    drained.start()
    with grpc.insecure_channel(address) as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(), timeout=60)
        next(answer for answer in watch if answer.status == health_pb2.HealthCheckResponse.SERVING)
    yield address
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0
    drained.join()
    process.stderr.close()


# The directory


def test_the_directory_lists_the_models_of_all_services(client: Client) -> None:
    listed = client.models.ListModels(ListModelsRequest()).models
    assert {"efficientnet-lite0", "whisper-tiny-en", "all-minilm-l6-v2"} <= {model.name for model in listed}
    assert {model.family for model in listed} == {"vision", "speech", "nlp"}


def test_reflection_lists_every_service_through_the_gateway(mesh: RunningMesh) -> None:
    with grpc.insecure_channel(mesh.address) as channel:
        listed = set(ProtoReflectionDescriptorDatabase(channel).get_services())
    assert {*descriptors.service_names(), "grpc.health.v1.Health"} <= listed


@pytest.mark.parametrize(
    "service", ["", "ortmesh.vision.v1.VisionService", "ortmesh.speech.v1.SpeechService", "models/all-minilm-l6-v2"]
)
def test_the_meshs_health_is_answered_by_the_gateway(mesh: RunningMesh, service: str) -> None:
    with grpc.insecure_channel(mesh.address) as channel:
        answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service=service), timeout=60)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_the_meshs_tensor_server_is_live_and_ready(mesh: RunningMesh) -> None:
    with triton.InferenceServerClient(mesh.address) as remote:
        assert remote.is_server_live()
        assert remote.is_server_ready()
        assert {model.name for model in remote.get_model_repository_index().models} >= {"all-minilm-l6-v2"}
        with pytest.raises(triton.InferenceServerException, match="all-minilm-l6-v2"):
            remote.get_model_metadata("all-minilm-l6-v3")
