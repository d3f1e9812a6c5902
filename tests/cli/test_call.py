"""`ortmesh call`: readable answers, JSON for machines, errors in words."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from google.rpc.error_details_pb2 import ResourceInfo
from PIL import Image

from ortmesh.cli.answers import bar
from ortmesh.cli.cosines import cosine
from ortmesh.common.v1.common_pb2 import Box, Point
from ortmesh.nlp.v1 import nlp_pb2
from ortmesh.speech.v1 import speech_pb2
from ortmesh.vision.v1 import vision_pb2
from tests.cli.conftest import Mesh, Run, bad, info, pictures, retry, segment, status, texts, version


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    Image.new("RGB", (60, 40), "white").save(tmp_path / "page.png")
    return tmp_path / "page.png"


def test_embed_shows_the_cosines_of_all_pairs(mesh: Mesh, run: Run) -> None:
    mesh.answers["nlp.Embed"] = texts([1, 0], [0.6, 0.8], [0, 1])
    result = run("call", "nlp", "embed", "one", "two", "three", "--model", "minilm")
    assert result.exit_code == 0
    assert mesh.requests == [nlp_pb2.EmbedRequest(model="minilm", texts=["one", "two", "three"])]
    lines = [line.split() for line in result.stdout.splitlines()]
    assert lines[0] == ["minilm@1"]
    assert lines[2:] == [
        ["1", "one", "1.000", "0.600", "0.000"],
        ["2", "two", "0.600", "1.000", "0.800"],
        ["3", "three", "0.000", "0.800", "1.000"],
    ]


def test_many_texts_each_get_their_nearest(mesh: Mesh, run: Run) -> None:
    mesh.answers["nlp.Embed"] = texts([1, 0], [0.9, 0.1], *([0.0, 1.0] for _ in range(8)))
    result = run("call", "nlp", "embed", *(f"text{number}" for number in range(10)))
    assert ["1", "text0", "0.994", "text1"] in [line.split() for line in result.stdout.splitlines()]


def test_one_text_shows_the_beginning_of_its_vector(mesh: Mesh, run: Run) -> None:
    mesh.answers["nlp.Embed"] = texts([0.5] * 384)
    assert "384 numbers: 0.5000, 0.5000" in run("call", "nlp", "embed", "one").stdout


def test_a_text_without_a_vector_and_a_cut_one_are_named(mesh: Mesh, run: Run) -> None:
    answer = texts([1, 0], [0, 1])
    answer.results[0].truncated, answer.results[0].tokens = True, 256
    answer.results.add().error.CopyFrom(status("INVALID_ARGUMENT", "texts[2]: no text"))
    mesh.answers["nlp.Embed"] = answer
    shown = run("call", "nlp", "embed", "long", "two", "").stdout
    assert "cut after 256 tokens: 'long'" in shown
    assert "no vector for '': texts[2]: no text" in shown
    assert "–" in shown


def test_json_is_the_answer_with_all_its_fields(mesh: Mesh, run: Run) -> None:
    mesh.answers["nlp.Embed"] = texts([1, 0])
    answer = json.loads(run("call", "nlp", "embed", "one", "--json").stdout)
    assert answer["model"] == {"name": "minilm", "version": "1"}
    assert answer["results"][0]["embedding"]["values"] == [1.0, 0.0]
    assert answer["results"][0]["truncated"] is False


def test_a_vector_is_one_line_of_json(mesh: Mesh, run: Run) -> None:
    answer = texts([0.5, -1.25e-7, 0.0, 3.0], [])
    answer.model.name = "[\n  1\n]"
    mesh.answers["nlp.Embed"] = answer
    shown = run("call", "nlp", "embed", "one", "two", "--json").stdout
    assert '"values": [0.5, -1.25e-07, 0.0, 3.0],' in shown
    assert json.loads(shown)["results"][0]["embedding"]["values"] == [0.5, -1.25e-07, 0.0, 3.0]
    assert json.loads(shown)["model"]["name"] == "[\n  1\n]"


def test_languages_are_listed_most_probable_first(mesh: Mesh, run: Run) -> None:
    norwegian = nlp_pb2.DetectedLanguage(code="no", name="Norwegian", score=0.75)
    danish = nlp_pb2.DetectedLanguage(code="da", name="Danish", score=0.25)
    detected = nlp_pb2.DetectedLanguages(languages=[norwegian, danish])
    results = [nlp_pb2.DetectLanguageResult(detected=detected), nlp_pb2.DetectLanguageResult()]
    results[1].error.CopyFrom(status("INVALID_ARGUMENT", "texts[1]: expected a text that is not empty"))
    mesh.answers["DetectLanguage"] = nlp_pb2.DetectLanguageResponse(model=version("lid-176"), results=results)
    shown = run("call", "nlp", "detect-language", "God [b]morgen", " ", "--max", 2).stdout
    assert mesh.requests == [nlp_pb2.DetectLanguageRequest(texts=["God [b]morgen", " "], max_results=2)]
    rows = [line.split() for line in shown.splitlines()]
    assert ["no", "Norwegian", "0.750", "███████▌", "God", "[b]morgen"] in rows
    assert ["da", "Danish", "0.250", "██▌"] in rows
    assert "no language for ' ': texts[1]: expected a text that is not empty" in shown


def test_entities_are_listed_and_marked_in_their_text(mesh: Mesh, run: Run) -> None:
    name = nlp_pb2.Entity(type="GIVEN_NAME", text="[Ada]", start=3, end=8, score=0.9, source="ENTITY_SOURCE_MODEL")
    mail = nlp_pb2.Entity(type="EMAIL", text="a@b.org", start=9, end=16, score=1, source="ENTITY_SOURCE_PATTERN")
    mesh.answers["FindEntities"] = nlp_pb2.FindEntitiesResponse(model=version("rampart"), entities=[name, mail])
    arguments = ("Hi [Ada] a@b.org", "--type", "GIVEN_NAME", "--type", "EMAIL", "--min-score", 0.25)
    shown = run("call", "nlp", "find-entities", *arguments).stdout
    asked = nlp_pb2.FindEntitiesRequest(text="Hi [Ada] a@b.org", types=["GIVEN_NAME", "EMAIL"], min_score=0.25)
    assert mesh.requests == [asked]
    assert "Hi [Ada] a@b.org" in shown.splitlines()
    rows = [line.split() for line in shown.splitlines()]
    assert ["GIVEN_NAME", "3", "8", "0.90", "model", "[Ada]"] in rows
    assert ["EMAIL", "9", "16", "1.00", "pattern", "a@b.org"] in rows


def test_a_text_without_entities_says_so(mesh: Mesh, run: Run) -> None:
    mesh.answers["FindEntities"] = nlp_pb2.FindEntitiesResponse(model=version("rampart"))
    assert "nothing was found" in run("call", "nlp", "find-entities", "soup").stdout


def test_classify_lists_labels_best_first(mesh: Mesh, run: Run, picture: Path) -> None:
    mesh.answers["Classify"] = vision_pb2.ClassifyResponse(
        model=version("lite0"),
        labels=[
            vision_pb2.Label(name="espresso", score=0.95),
            vision_pb2.Label(name="cup [of] tea", score=0.05),
        ],
        image=vision_pb2.ImageInfo(frames=3),
    )
    result = run("call", "vision", "classify", picture, "--max", 2)
    assert result.exit_code == 0
    (request,) = mesh.requests
    assert request.max_results == 2
    assert request.image.encoded == picture.read_bytes()
    assert result.stdout.index("espresso") < result.stdout.index("cup [of] tea")
    assert "0.950" in result.stdout
    assert "3 frames or pages" in result.stdout


def test_a_picture_comes_from_standard_input_too(mesh: Mesh, run: Run) -> None:
    mesh.answers["Classify"] = vision_pb2.ClassifyResponse(model=version("lite0"))
    assert run("call", "vision", "classify", "-", stdin=b"bytes").exit_code == 0
    assert mesh.requests[0].image.encoded == b"bytes"


def test_pictures_are_compared(mesh: Mesh, run: Run, picture: Path) -> None:
    mesh.answers["vision.Embed"] = pictures([1, 0], [0.6, 0.8])
    shown = run("call", "vision", "embed", picture, picture).stdout
    assert ["1", "page.png", "1.000", "0.600"] in [line.split() for line in shown.splitlines()]


def test_read_text_lists_lines_and_draws_their_outlines(mesh: Mesh, run: Run, picture: Path, tmp_path: Path) -> None:
    corners = [Point(x=10, y=10), Point(x=50, y=10), Point(x=50, y=30), Point(x=10, y=30)]
    line = vision_pb2.TextLine(text="Hello", score=0.98, corners=corners, box=Box(x_min=10, y_min=10))
    mesh.answers["ReadText"] = vision_pb2.ReadTextResponse(model=version("ocr"), lines=[line])
    out = tmp_path / "out.png"
    shown = run("call", "vision", "read-text", picture, "--save", out).stdout
    assert ["0.98", "10", "10", "Hello"] in [line.split() for line in shown.splitlines()]
    with Image.open(out) as drawn:
        assert drawn.size == (60, 40)
        assert drawn.getpixel((30, 10)) == (220, 30, 60)
        assert drawn.getpixel((30, 20)) == (255, 255, 255)


def test_detect_lists_things_and_draws_them(mesh: Mesh, run: Run, picture: Path, tmp_path: Path) -> None:
    box = Box(x_min=10, y_min=12, x_max=50, y_max=32)
    face = vision_pb2.Detection(name="face", score=0.93, box=box, landmarks=[Point(x=30, y=20)])
    mesh.answers["Detect"] = vision_pb2.DetectResponse(model=version("faces"), detections=[face])
    out = tmp_path / "out.png"
    shown = run("call", "vision", "detect", picture, "--save", out, "--max", 7, "--min-score", 0.25).stdout
    assert (mesh.requests[0].max_results, mesh.requests[0].min_score) == (7, 0.25)
    assert ["face", "0.93", "10", "12", "40", "20"] in [line.split() for line in shown.splitlines()]
    with Image.open(out) as drawn:
        assert [drawn.getpixel(place) for place in ((10, 22), (30, 32), (30, 20))] == [(220, 30, 60)] * 3
        assert drawn.getpixel((40, 25)) == (255, 255, 255)


def test_nothing_found_is_said(mesh: Mesh, run: Run, picture: Path) -> None:
    mesh.answers["Detect"] = vision_pb2.DetectResponse(model=version("faces"))
    assert "nothing was found" in run("call", "vision", "detect", picture).stdout


def test_outlines_that_cannot_be_saved_are_an_error(mesh: Mesh, run: Run, picture: Path, tmp_path: Path) -> None:
    mesh.answers["ReadText"] = vision_pb2.ReadTextResponse(model=version("ocr"))
    result = run("call", "vision", "read-text", picture, "--save", tmp_path / "out.what")
    assert result.exit_code == 1
    assert "could not be written" in result.stderr


def test_recognize_shows_who_said_what_when(mesh: Mesh, run: Run, tmp_path: Path) -> None:
    (tmp_path / "talk.wav").write_bytes(b"RIFF")
    segments = [segment("good morning", 0, 1.5), segment("how are you", 61.25, 62)]
    mesh.answers["Recognize"] = speech_pb2.RecognizeResponse(model=version("whisper"), segments=segments)
    shown = run("call", "speech", "recognize", tmp_path / "talk.wav", "--beam", 1).stdout
    assert mesh.requests[0].beam_width == 1
    rows = [line.split() for line in shown.splitlines()]
    assert ["0:00.0", "0:01.5", "0.90", "good", "morning"] in rows
    assert ["1:01.2", "1:02.0", "0.90", "how", "are", "you"] in rows


def test_detect_speech_shows_when_somebody_speaks(mesh: Mesh, run: Run, tmp_path: Path) -> None:
    (tmp_path / "talk.wav").write_bytes(b"RIFF")
    interval = speech_pb2.SpeechInterval(confidence=0.9)
    interval.start.FromMilliseconds(61_250)
    interval.end.FromMilliseconds(63_000)
    mesh.answers["DetectSpeech"] = speech_pb2.DetectSpeechResponse(model=version("vad"), intervals=[interval])
    shown = run("call", "speech", "detect-speech", tmp_path / "talk.wav", "--min-silence", 0.5).stdout
    (request,) = mesh.requests
    assert request.min_silence.ToMilliseconds() == 500
    assert not request.HasField("min_speech")
    assert ["1:01.2", "1:03.0", "1.8", "0.90"] in [line.split() for line in shown.splitlines()]


def test_a_recording_without_speech_is_said_to_be_one(mesh: Mesh, run: Run) -> None:
    mesh.answers["DetectSpeech"] = speech_pb2.DetectSpeechResponse(model=version("vad"))
    assert "nobody speaks" in run("call", "speech", "detect-speech", "-", stdin=b"RIFF").stdout


def voice(*numbers: float, milliseconds: int = 4000) -> speech_pb2.EmbedSpeakerResponse:
    answer = speech_pb2.EmbedSpeakerResponse(model=version("voices"))
    answer.embedding.values.extend(numbers)
    answer.embedding.dimension = len(numbers)
    answer.speech.FromMilliseconds(milliseconds)
    return answer


@pytest.fixture
def voices(tmp_path: Path) -> list[Path]:
    files = [tmp_path / name for name in ("known.wav", "caller.wav", "other.wav")]
    for file in files:
        file.write_bytes(b"RIFF" + file.name.encode())
    return files


def test_embed_speaker_shows_whose_voices_are_alike(mesh: Mesh, run: Run, voices: list[Path]) -> None:
    mesh.answers["EmbedSpeaker"] = [voice(1, 0), voice(0.8, 0.6, milliseconds=900), voice(0, 1)]
    shown = run("call", "speech", "embed-speaker", *voices, "--model", "voices").stdout
    assert [(request.model, request.audio.encoded[4:]) for request in mesh.requests] == [
        ("voices", file.name.encode()) for file in voices
    ]
    rows = [line.split() for line in shown.splitlines()]
    assert ["known.wav", "4.0", "s"] in rows
    assert ["caller.wav", "0.9", "s", "(little)"] in rows
    assert ["1", "known.wav", "1.000", "0.800", "0.000"] in rows


def test_one_voice_shows_the_beginning_of_its_vector(mesh: Mesh, run: Run, voices: list[Path]) -> None:
    mesh.answers["EmbedSpeaker"] = [voice(0.5, 0.25), voice(0.5, 0.25)]
    assert "2 numbers: 0.5000, 0.2500" in run("call", "speech", "embed-speaker", voices[0]).stdout
    printed = json.loads(run("call", "speech", "embed-speaker", voices[0], "--json").stdout)
    assert printed["embedding"]["values"] == [0.5, 0.25]


def test_of_several_recordings_the_one_without_a_voice_is_named(mesh: Mesh, run: Run, voices: list[Path]) -> None:
    nobody = status("FAILED_PRECONDITION", "nobody speaks in the 5.00 s of audio", info("NO_SPEECH"))
    mesh.answers["EmbedSpeaker"] = nobody
    result = run("call", "speech", "embed-speaker", *voices[:2])
    assert result.exit_code == 1
    assert "known.wav:\nerror: FAILED_PRECONDITION: nobody speaks" in result.stderr
    assert "known.wav" not in run("call", "speech", "embed-speaker", voices[0]).stderr


def test_identify_language_shows_the_most_probable_first(mesh: Mesh, run: Run, tmp_path: Path) -> None:
    (tmp_path / "talk.wav").write_bytes(b"RIFF")
    told = [
        speech_pb2.SpokenLanguage(code="de", confidence=0.75),
        speech_pb2.SpokenLanguage(code="yue", confidence=0.2),
    ]
    mesh.answers["IdentifyLanguage"] = speech_pb2.IdentifyLanguageResponse(model=version("whisper"), languages=told)
    shown = run("call", "speech", "identify-language", tmp_path / "talk.wav", "--max", 2).stdout
    assert mesh.requests == [speech_pb2.IdentifyLanguageRequest(audio=speech_pb2.Audio(encoded=b"RIFF"), max_results=2)]
    rows = [line.split()[:2] for line in shown.splitlines()]
    assert rows[-2:] == [["de", "0.750"], ["yue", "0.200"]]


def test_silence_has_no_language(mesh: Mesh, run: Run) -> None:
    mesh.answers["IdentifyLanguage"] = speech_pb2.IdentifyLanguageResponse(model=version("whisper"))
    assert "nobody speaks" in run("call", "speech", "identify-language", "-", stdin=b"RIFF").stdout


def test_an_error_is_told_with_each_field(mesh: Mesh, run: Run) -> None:
    message = "texts[0]: no text"
    mesh.answers["nlp.Embed"] = status(
        "INVALID_ARGUMENT", message, info("INVALID_FIELD"), bad("texts[0]", "must have 1 to 100,000 characters")
    )
    result = run("call", "nlp", "embed", "")
    assert result.exit_code == 1
    assert "error: INVALID_ARGUMENT: texts[0]: no text" in result.stderr
    assert "  texts[0]: must have 1 to 100,000 characters" in result.stderr
    assert not result.stdout


def test_a_field_that_the_message_names_is_not_said_twice(mesh: Mesh, run: Run) -> None:
    mesh.answers["nlp.Embed"] = status("INVALID_ARGUMENT", "texts[0]: no text", bad("texts[0]", "no text"))
    assert run("call", "nlp", "embed", "").stderr == "error: INVALID_ARGUMENT: texts[0]: no text\n"


def test_a_long_description_whose_end_the_server_cut_is_not_said_twice(mesh: Mesh, run: Run) -> None:
    message = f"texts[0]: {'too long ' * 40}"
    mesh.answers["nlp.Embed"] = status("INVALID_ARGUMENT", message, bad("texts[0]", f"{'too long ' * 20}…"))
    assert run("call", "nlp", "embed", "").stderr.count("texts[0]") == 1


def test_an_overloaded_mesh_says_when_to_come_back(mesh: Mesh, run: Run) -> None:
    mesh.answers["nlp.Embed"] = status("RESOURCE_EXHAUSTED", "the queue is full", info("OVERLOADED"), retry(0.5))
    assert "Try again in 0.5 s." in run("call", "nlp", "embed", "x").stderr


def test_a_model_that_loads_is_not_taken_for_an_absent_mesh(mesh: Mesh, run: Run) -> None:
    mesh.answers["nlp.Embed"] = status("UNAVAILABLE", "minilm is loading", info("MODEL_NOT_READY"))
    shown = run("call", "nlp", "embed", "x").stderr
    assert "UNAVAILABLE: minilm is loading" in shown
    assert "try again in a moment" in shown


@pytest.mark.parametrize(
    "message",
    [
        "no healthy upstream",
        "upstream connect error or disconnect/reset before headers. reset reason: remote connection failure",
    ],
)
def test_a_service_that_is_down_is_not_taken_for_an_absent_mesh(mesh: Mesh, run: Run, message: str) -> None:
    """The gateway's proxy answers without any details."""
    mesh.answers["nlp.Embed"] = status("UNAVAILABLE", message)
    shown = run("call", "nlp", "embed", "x").stderr
    assert f"error: UNAVAILABLE: {message}" in shown
    assert "nothing answers" not in shown


@pytest.mark.parametrize("address", ["nowhere.invalid:80", "unix:/nowhere/mesh.sock"])
def test_a_wrong_address_is_told_as_an_absent_mesh(run: Run, address: str) -> None:
    assert f"nothing answers at {address}" in run("call", "nlp", "embed", "x", "--address", address).stderr


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("http://127.0.0.1:8181", "leave out http://"),
        ("127.0.0.1", "is neither HOST:PORT nor unix:/path"),
        ("127.0.0.1:99999", "is neither HOST:PORT nor unix:/path"),
    ],
)
def test_an_address_that_is_none_is_a_mistake_of_usage(
    run: Run, address: str, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ORTMESH_ADDRESS", address)
    for command in (("call", "nlp", "embed", "x"), ("models", "list")):
        result = run(*command)
        assert result.exit_code == 2
        assert why in result.stderr
        assert "ORTMESH_ADDRESS" in result.stderr


def test_an_absent_mesh_is_told_with_what_to_do(run: Run) -> None:
    result = run("call", "nlp", "embed", "x", "--address", "127.0.0.1:9")
    assert result.exit_code == 1
    assert "nothing answers at 127.0.0.1:9" in result.stderr
    assert "ortmesh up" in result.stderr


def test_errors_are_json_for_machines(mesh: Mesh, run: Run) -> None:
    mesh.answers["nlp.Embed"] = status("NOT_FOUND", "no model 'x'", info("MODEL_NOT_FOUND"))
    result = run("call", "nlp", "embed", "x", "--json")
    assert result.exit_code == 1
    error = json.loads(result.stderr)
    assert error["code"] == 5
    assert error["details"][0]["reason"] == "MODEL_NOT_FOUND"


@pytest.mark.parametrize("arguments", [("nlp", "detect-language"), ("vision", "classify"), ("vision", "detect")])
def test_the_service_says_which_numbers_are_out_of_range(
    arguments: tuple[str, ...], mesh: Mesh, run: Run, picture: Path
) -> None:
    for method in ("DetectLanguage", "Classify", "Detect"):
        mesh.answers[method] = status("INVALID_ARGUMENT", "max_results: out of range")
    result = run("call", *arguments, picture, "--max", 99999999999)
    assert "error: INVALID_ARGUMENT: max_results: out of range" in result.stderr


@pytest.mark.parametrize(
    ("task", "advice"),
    [
        ("speech.identify_language", "`ortmesh pull whisper-base` brings one."),
        ("nlp.embed", "`ortmesh pull all-minilm-l6-v2` brings one."),
        ("nlp.classify", None),
    ],
)
def test_a_task_that_no_model_does_is_told_with_the_catalogues_model(
    task: str, advice: str | None, mesh: Mesh, run: Run
) -> None:
    missing = ResourceInfo(resource_type="task", resource_name=task)
    mesh.answers["IdentifyLanguage"] = status("NOT_FOUND", "no model of this service does it", missing)
    result = run("call", "speech", "identify-language", "-", stdin=b"RIFF")
    told = ["error: NOT_FOUND: no model of this service does it", *([advice] if advice else [])]
    assert result.stderr.splitlines() == told


def test_a_file_that_is_not_there_is_a_mistake_of_usage(run: Run) -> None:
    result = run("call", "vision", "classify", "/nowhere.jpg")
    assert result.exit_code == 2
    assert "nowhere.jpg" in result.stderr


def test_help_teaches_with_an_example(run: Run) -> None:
    for command in (
        ["vision", "classify"],
        ["vision", "embed"],
        ["vision", "detect"],
        ["vision", "read-text"],
        ["speech", "recognize"],
        ["nlp", "embed"],
    ):
        shown = run("call", *command, "--help").stdout
        assert f"ortmesh call {' '.join(command)}" in shown


def test_a_cosine_is_that_of_the_angle() -> None:
    assert cosine([3, 0], [2, 0]) == pytest.approx(1)
    assert cosine([1, 0], [1, 1]) == pytest.approx(2**-0.5)
    assert cosine([0, 0], [1, 1]) == 0


@pytest.mark.parametrize(("share", "drawn"), [(0, ""), (1, "████"), (0.5, "██"), (0.53, "██▏"), (7, "████")])
def test_a_bar_is_as_long_as_its_share(share: float, drawn: str) -> None:
    assert bar(share, 4) == drawn
