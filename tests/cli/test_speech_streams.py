"""`ortmesh call speech stream-…`: a file in chunks, and what comes back as it comes."""

from __future__ import annotations

import io
import json
import struct
import time
import wave
from pathlib import Path

import pytest
from google.protobuf.duration_pb2 import Duration

from ortmesh.common.v1.common_pb2 import ModelVersion
from ortmesh.speech.v1 import speech_pb2
from tests.cli.conftest import Mesh, Run, status

Detected = speech_pb2.StreamingDetectSpeechResponse
Recognized = speech_pb2.StreamingRecognizeResponse
SILERO = ModelVersion(name="silero-vad", version="1")
WHISPER = ModelVersion(name="whisper-tiny-en", version="1")
START, END = Duration(seconds=1, nanos=200_000_000), Duration(seconds=4)


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """Half a second of WAV."""
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setparams((1, 2, 16_000, 0, "NONE", ""))
        writer.writeframes(bytes(range(256)) * 63)
    (tmp_path / "talk.wav").write_bytes(file.getvalue())
    return tmp_path / "talk.wav"


def detected(mesh: Mesh) -> None:
    mesh.answers["StreamingDetectSpeech"] = [
        [
            Detected(model=SILERO),
            Detected(started=START),
            Detected(interval=speech_pb2.SpeechInterval(start=START, end=END, confidence=0.93)),
            Detected(duration=Duration(seconds=5)),
        ]
    ]


def recognized(mesh: Mesh) -> None:
    mesh.answers["StreamingRecognize"] = [
        [
            Recognized(models=speech_pb2.StreamingModels(model=WHISPER)),
            Recognized(speech_started=START),
            Recognized(interim=speech_pb2.InterimResult(transcript="so far", stable="so", start=START, heard=END)),
            Recognized(result=speech_pb2.Segment(transcript="What was [said].", start=START, end=END)),
            Recognized(result=speech_pb2.Segment(start=START, end=END)),
            Recognized(duration=Duration(seconds=5)),
        ]
    ]


def test_speech_is_listed_as_it_is_found(mesh: Mesh, run: Run, recording: Path) -> None:
    detected(mesh)
    result = run("call", "speech", "stream-detect-speech", recording, "--threshold", "0.4", "--min-silence", "0.5")
    assert result.exit_code == 0, result.output
    ((first, *others),) = mesh.requests
    assert first.config.format.container
    assert first.config.threshold == pytest.approx(0.4)
    assert (first.config.min_silence.nanos, first.config.HasField("min_speech")) == (500_000_000, False)
    assert b"".join(other.audio for other in others) == recording.read_bytes()
    assert len(others) >= 5, "a tenth of a second each"
    assert result.stdout.splitlines() == [
        "silero-vad@1",
        "0:01.2  somebody speaks",
        "0:04.0  somebody has spoken from 0:01.2, confidence 0.93",
        "0:05.0  the end",
    ]


def test_what_is_said_is_written_line_by_line(mesh: Mesh, run: Run, recording: Path) -> None:
    recognized(mesh)
    result = run(
        "call", "speech", "stream-recognize", recording, "--end-silence", "1", "--beam", "3", "--language", "en"
    )
    assert result.exit_code == 0, result.output
    ((first, *_),) = mesh.requests
    assert (first.config.interim_results, first.config.beam_width, first.config.end_silence.seconds) == (True, 3, 1)
    assert first.config.options.language == "en"
    lines = [line.rstrip() for line in result.stdout.splitlines() if line.strip()]
    assert lines == ["whisper-tiny-en@1", "0:01.2  What was [said].", "0:05.0  the end"]


def test_whatever_a_recording_may_be_asked_for_a_stream_may_be_too(mesh: Mesh, run: Run, recording: Path) -> None:
    """But for who speaks."""
    word = speech_pb2.Word(text="[said].", start=START, end=END, confidence=0.91)
    other = speech_pb2.Alternative(transcript="What was sad.", confidence=0.5)
    result = speech_pb2.Segment(transcript="[said].", start=START, end=END, words=[word], alternatives=[other])
    mesh.answers["StreamingRecognize"] = [[Recognized(result=result)]]
    arguments = ["--words", "--phrase", "Kowalski", "--phrase", "Gdansk", "--boost", "3", "--prompt", "A meeting."]
    arguments += ["--alternatives", "2", "--interim-model", "moonshine-tiny-en"]
    shown = run("call", "speech", "stream-recognize", recording, *arguments)
    assert shown.exit_code == 0, shown.output
    config = mesh.requests[0][0].config
    assert config.interim_model == "moonshine-tiny-en"
    assert config.options == speech_pb2.RecognitionOptions(
        word_times=True,
        max_alternatives=2,
        phrases=[speech_pb2.Phrase(text=text, boost=3) for text in ("Kowalski", "Gdansk")],
        initial_prompt="A meeting.",
    )
    lines = [line.rstrip() for line in shown.stdout.splitlines() if line.strip()]
    assert lines == ["0:01.2  [said].", "        or: What was sad.", "0:01.2  0.91  [said]."]


def test_raw_samples_from_standard_input(mesh: Mesh, run: Run) -> None:
    recognized(mesh)
    arguments = ("--format", "mulaw", "--rate", "8000", "--channels", "2", "--no-interim")
    result = run("call", "speech", "stream-recognize", "-", *arguments, stdin=bytes(3000))
    assert result.exit_code == 0, result.output
    ((first, *others),) = mesh.requests
    raw = first.config.format.raw
    assert (raw.sample_rate_hertz, raw.channels, raw.format) == (8000, 2, speech_pb2.SAMPLE_FORMAT_MULAW)
    assert not first.config.interim_results
    assert sum(len(other.audio) for other in others) == 3000


def test_json_is_one_message_after_another(mesh: Mesh, run: Run, recording: Path) -> None:
    detected(mesh)
    shown = run("call", "speech", "stream-detect-speech", recording, "--json").stdout
    decoder, messages = json.JSONDecoder(), []
    while shown.strip():
        message, end = decoder.raw_decode(shown.strip())
        messages.append(next(iter(message)))
        shown = shown.strip()[end:]
    assert messages == ["model", "started", "interval", "duration"]


def test_a_paced_file_takes_as_long_as_it_is(mesh: Mesh, run: Run, recording: Path) -> None:
    detected(mesh)
    started = time.monotonic()
    assert run("call", "speech", "stream-detect-speech", recording, "--pace").exit_code == 0
    assert time.monotonic() - started > 0.4


def test_what_can_not_be_paced_and_formats_that_are_none_are_told(mesh: Mesh, run: Run, tmp_path: Path) -> None:
    (tmp_path / "talk.ogg").write_bytes(b"OggS" + bytes(100))
    for command in ("stream-detect-speech", "stream-recognize"):
        result = run("call", "speech", command, tmp_path / "talk.ogg", "--pace")
        assert result.exit_code == 2
        assert "raw samples and WAV" in result.output
        result = run("call", "speech", command, tmp_path / "talk.ogg", "--format", "mp3")
        assert result.exit_code == 2
        assert "s16le" in result.output


def test_numbers_that_are_none_are_told_and_large_ones_are_the_service_s_to_refuse(
    mesh: Mesh, run: Run, recording: Path
) -> None:
    for command, option in (("stream-recognize", "--end-silence"), ("stream-detect-speech", "--min-speech")):
        for seconds in ("nan", "inf", "1e30"):
            result = run("call", "speech", command, recording, option, seconds)
            assert result.exit_code == 2
            assert "expected seconds" in result.output
    recognized(mesh)
    assert run("call", "speech", "stream-recognize", recording, "--beam", 10**12).exit_code == 0
    assert mesh.requests[0][0].config.beam_width == 2**31 - 1


def test_messages_keep_to_the_limit_whatever_a_header_says(mesh: Mesh, run: Run, tmp_path: Path) -> None:
    """A tenth of a second is more than that, of eight channels at 384 kHz."""
    header = b"RIFF" + struct.pack("<I4s4sIHHIIHH", 0, b"WAVE", b"fmt ", 16, 3, 8, 384_000, 12_288_000, 32, 32)
    (tmp_path / "loud.wav").write_bytes(header + b"data" + struct.pack("<I", 3 << 20) + bytes(3 << 20))
    detected(mesh)
    assert run("call", "speech", "stream-detect-speech", tmp_path / "loud.wav").exit_code == 0
    ((_, *others),) = mesh.requests
    assert sum(len(other.audio) for other in others) == 44 + (3 << 20)
    assert max(len(other.audio) for other in others) <= 1 << 20


def test_errors_are_told_in_words(mesh: Mesh, run: Run, recording: Path) -> None:
    mesh.answers["StreamingRecognize"] = status("INVALID_ARGUMENT", "audio: is damaged before byte 77")
    result = run("call", "speech", "stream-recognize", recording)
    assert result.exit_code == 1
    assert "byte 77" in result.stderr
