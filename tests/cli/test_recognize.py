"""`ortmesh call speech recognize`: what it asks for, and the forms of what it shows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ortmesh.speech.v1 import speech_pb2
from ortmesh.speech.v1.speech_pb2 import Alternative, Diarization, Phrase, RecognitionOptions, Segment, Word
from tests.cli.conftest import Mesh, Run, bad, segment, status, version


@pytest.fixture
def talk(tmp_path: Path) -> Path:
    (tmp_path / "talk.wav").write_bytes(b"RIFF")
    return tmp_path / "talk.wav"


@pytest.fixture
def answered(mesh: Mesh) -> Mesh:
    """A mesh that hears two people."""
    first, second = segment("Good [b]morning.", 0, 1.5), segment("How are you?", 61.25, 62)
    first.speaker, second.speaker = "1", "2"
    first.alternatives.append(Alternative(transcript="Good mourning.", confidence=0.25))
    for place, text in enumerate(("How", "are", "you?")):
        word = Word(text=text, confidence=0.75, speaker="2")
        word.start.FromMilliseconds(61_250 + 200 * place)
        word.end.FromMilliseconds(61_450 + 200 * place)
        second.words.append(word)
    answer = speech_pb2.RecognizeResponse(model=version("whisper"), transcript="x", segments=[first, second])
    mesh.answers["Recognize"] = answer
    return mesh


def test_every_option_reaches_the_mesh(answered: Mesh, run: Run, talk: Path) -> None:
    said = ("--words", "--language", "en", "--phrase", "Kowalski", "--phrase", "ortmesh", "--boost", 3, "--beam", 6)
    more = ("--prompt", "A talk.", "--alternatives", 2, "--speakers", "2-4", "--model", "whisper@1")
    assert run("call", "speech", "recognize", talk, *said, *more).exit_code == 0
    (request,) = answered.requests
    assert (request.model, request.beam_width, request.audio.encoded) == ("whisper@1", 6, b"RIFF")
    assert request.options == RecognitionOptions(
        language="en",
        word_times=True,
        max_alternatives=2,
        phrases=[Phrase(text="Kowalski", boost=3), Phrase(text="ortmesh", boost=3)],
        initial_prompt="A talk.",
        diarization=Diarization(min_speakers=2, max_speakers=4),
    )


def test_nothing_is_asked_for_by_default(answered: Mesh, run: Run, talk: Path) -> None:
    run("call", "speech", "recognize", talk)
    assert answered.requests[0].options == RecognitionOptions()


def test_the_table_has_speakers_words_and_alternatives(answered: Mesh, run: Run, talk: Path) -> None:
    rows = [line.split() for line in run("call", "speech", "recognize", talk).stdout.splitlines()]
    assert ["whisper@1"] in rows
    assert ["FROM", "TO", "CONFIDENCE", "SPEAKER", "TRANSCRIPT"] in rows
    assert ["0:00.0", "0:01.5", "0.90", "1", "Good", "[b]morning."] in rows
    assert ["0.25", "or:", "Good", "mourning."] in rows
    assert ["1:01.2", "1:02.0", "0.90", "2", "How", "are", "you?"] in rows
    assert ["0.75", "you?"] in [row[2:] for row in rows]


def test_text_is_the_transcript_a_line_a_segment(answered: Mesh, run: Run, talk: Path) -> None:
    shown = run("call", "speech", "recognize", talk, "--format", "text").stdout
    assert shown == "Speaker 1: Good [b]morning.\nSpeaker 2: How are you?\n"
    for each in answered.answers["Recognize"].segments:
        each.speaker = ""
    shown = run("call", "speech", "recognize", talk, "--format", "text").stdout
    assert shown == "Good [b]morning.\nHow are you?\n"


@pytest.mark.parametrize("asked", [["--format", "json"], ["--json"], ["--json", "--format", "json"]])
def test_json_is_the_answer(answered: Mesh, run: Run, talk: Path, asked: list[str]) -> None:
    answer = json.loads(run("call", "speech", "recognize", talk, *asked).stdout)
    assert answer["segments"][1]["words"][2]["text"] == "you?"


@pytest.mark.parametrize(
    ("form", "begins", "holds"),
    [
        ("srt", "1\n00:00:00,000 --> 00:00:01,500\n", "2\n00:01:01,250 --> 00:01:02,250\nSpeaker 2: How are you?\n"),
        ("vtt", "WEBVTT\n\n00:00:00.000 --> ", "00:01:01.250 --> 00:01:02.250\n<v Speaker 2>How are you?\n"),
    ],
)
def test_subtitles_have_the_words_times(
    answered: Mesh, run: Run, talk: Path, form: str, begins: str, holds: str
) -> None:
    shown = run("call", "speech", "recognize", talk, "--format", form).stdout
    assert shown.startswith(begins)
    assert holds in shown
    assert answered.requests[0].options.word_times


def test_subtitles_of_a_model_that_can_t_time_words(answered: Mesh, run: Run, talk: Path) -> None:
    run("call", "speech", "recognize", talk, "--format", "srt", "--no-words")
    assert not answered.requests[0].options.word_times


def test_nothing_said_is_said(mesh: Mesh, run: Run, talk: Path) -> None:
    mesh.answers["Recognize"] = speech_pb2.RecognizeResponse(model=version("whisper"))
    assert "nothing was said" in run("call", "speech", "recognize", talk).stdout
    assert run("call", "speech", "recognize", talk, "--format", "text").stdout == ""
    assert run("call", "speech", "recognize", talk, "--format", "srt").stdout == ""
    assert run("call", "speech", "recognize", talk, "--format", "vtt").stdout == "WEBVTT\n"


@pytest.mark.parametrize("speakers", ["two", "1-", "-2", "1..2"])
def test_speakers_that_are_no_number_are_a_mistake_of_usage(run: Run, talk: Path, speakers: str) -> None:
    result = run("call", "speech", "recognize", talk, f"--speakers={speakers}")
    assert result.exit_code == 2
    assert "expected a number as 2, or a range as 1-8" in " ".join(result.stderr.replace("│", " ").split())


def test_json_and_subtitles_exclude_each_other(run: Run, talk: Path) -> None:
    result = run("call", "speech", "recognize", talk, "--json", "--format", "srt")
    assert result.exit_code == 2


def test_what_the_mesh_refuses_is_told_with_its_field(mesh: Mesh, run: Run, talk: Path) -> None:
    reason = "'xx': whisper@1 knows en"
    mesh.answers["Recognize"] = status(
        "INVALID_ARGUMENT", f"options.language: {reason}", bad("options.language", reason)
    )
    result = run("call", "speech", "recognize", talk, "--language", "xx")
    assert result.exit_code == 1
    assert "options.language: 'xx': whisper@1 knows en" in result.stderr


def test_a_segment_without_anything_is_shown_too(mesh: Mesh, run: Run, talk: Path) -> None:
    mesh.answers["Recognize"] = speech_pb2.RecognizeResponse(model=version("whisper"), segments=[Segment()])
    for form in ("table", "text", "srt", "vtt", "json"):
        assert run("call", "speech", "recognize", talk, "--format", form).exit_code == 0
