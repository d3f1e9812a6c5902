"""`ortmesh call speech synthesize`: where the audio goes, and what is said of it."""

from __future__ import annotations

import json
import os
import threading
import wave
from pathlib import Path

import numpy as np
import pytest
import soundfile
from google.rpc import code_pb2, status_pb2

from ortmesh.common.v1.common_pb2 import ModelVersion
from ortmesh.speech.v1 import speech_pb2
from ortmesh_speech.encoders import OggOpus, wav_header
from tests.cli.conftest import Mesh, Run

RATE = 24_000
SAMPLES = np.zeros(RATE * 2, np.int16)


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mesh: Mesh) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ORTMESH_ADDRESS", mesh.address)


def speaks(mesh: Mesh, content: bytes) -> None:
    """The mesh answers with these bytes, in two messages."""
    first = speech_pb2.SynthesizeResponse(
        model=ModelVersion(name="voice", version="1"), sample_rate_hertz=RATE, audio=content[:5], sentence="Hello."
    )
    mesh.answers["Synthesize"] = (first, speech_pb2.SynthesizeResponse(audio=content[5:]))


def test_a_file_has_its_true_length_and_is_told_of(mesh: Mesh, run: Run) -> None:
    speaks(mesh, wav_header(RATE) + SAMPLES.tobytes())
    shown = run("call", "speech", "synthesize", "Hello.", "--speed", 1.5, "--seed", 7, "--voice", "heart").stdout
    assert mesh.requests == [
        speech_pb2.SynthesizeRequest(
            text="Hello.", speed=1.5, seed=7, voice="heart", format=speech_pb2.AUDIO_FORMAT_WAV
        )
    ]
    assert "voice@1" in shown
    assert "speech.wav: 2.0 s, 24,000 samples a second, 96,044 bytes" in shown
    with wave.open("speech.wav") as file:
        assert (file.getnframes(), file.getframerate()) == (RATE * 2, RATE)


def test_raw_samples_go_through_a_pipe_and_nothing_else_does(mesh: Mesh, run: Run) -> None:
    speaks(mesh, SAMPLES.tobytes())
    result = run("call", "speech", "synthesize", "Hello.", "--format", "raw", "--output", "-")
    assert result.stdout_bytes == SAMPLES.tobytes()
    assert "standard output: 2.0 s" in result.stderr


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("a.wav", speech_pb2.AUDIO_FORMAT_WAV),
        ("a.raw", speech_pb2.AUDIO_FORMAT_S16LE),
        ("a.opus", speech_pb2.AUDIO_FORMAT_OGG_OPUS),
        ("a", speech_pb2.AUDIO_FORMAT_WAV),
    ],
)
def test_the_form_follows_the_output_s_name(mesh: Mesh, run: Run, name: str, form: int) -> None:
    encoder = OggOpus(RATE)
    speaks(mesh, encoder.encode(np.zeros(RATE, np.float32)) + encoder.finish())
    assert run("call", "speech", "synthesize", "Hello.", "-o", name).exit_code == 0
    assert mesh.requests[0].format == form


def test_an_ogg_file_s_length_is_told(mesh: Mesh, run: Run) -> None:
    encoder = OggOpus(RATE)
    speaks(mesh, encoder.encode(np.zeros(RATE * 2, np.float32)) + encoder.finish())
    told = json.loads(run("call", "speech", "synthesize", "Hello.", "-o", "a.ogg", "--json").stdout)
    assert told["seconds"] == pytest.approx(2, abs=0.02)
    assert told["model"] == {"name": "voice", "version": "1"}
    assert soundfile.info("a.ogg").duration == pytest.approx(2, abs=0.001)


def test_the_text_may_be_a_file_s_or_standard_input_s(mesh: Mesh, run: Run) -> None:
    speaks(mesh, wav_header(RATE) + SAMPLES.tobytes())
    Path("text.txt").write_text("Grüße.", encoding="utf-8")
    run("call", "speech", "synthesize", "--file", "text.txt")
    run("call", "speech", "synthesize", "--file", "-", stdin="Grüße.".encode())
    assert [request.text for request in mesh.requests] == ["Grüße.", "Grüße."]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "either"),
        (["a", "--file", "-"], "either"),
        (["--file", "none.txt"], "no file"),
        (["--file", "x"], "UTF-8"),
        (["a", "--seed", 2**63], "64 bits"),
    ],
)
def test_mistakes_of_usage(run: Run, arguments: list[object], told: str) -> None:
    Path("x").write_bytes(b"\xff\xfe")
    result = run("call", "speech", "synthesize", *arguments)
    assert result.exit_code == 2
    assert told in result.stderr


def test_a_refusal_leaves_no_file(mesh: Mesh, run: Run, tmp_path: Path) -> None:
    mesh.answers["Synthesize"] = status_pb2.Status(code=code_pb2.INVALID_ARGUMENT, message="voice: 'x' is none")
    result = run("call", "speech", "synthesize", "Hello.", "--voice", "x")
    assert result.exit_code == 1
    assert "voice: 'x' is none" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_can_not_be_written(mesh: Mesh, run: Run) -> None:
    speaks(mesh, SAMPLES.tobytes())
    result = run("call", "speech", "synthesize", "Hello.", "--output", "none/a.wav")
    assert result.exit_code == 1
    assert "can't be written" in result.stderr


def test_a_pipe_is_written_into_and_stays_one(mesh: Mesh, run: Run) -> None:
    """So does a device: /dev/null must not become a file."""
    content, read = wav_header(RATE) + SAMPLES.tobytes(), list[bytes]()
    speaks(mesh, content)
    os.mkfifo("pipe")
    reader = threading.Thread(target=lambda: read.append(Path("pipe").read_bytes()), daemon=True)
    reader.start()
    assert run("call", "speech", "synthesize", "Hello.", "-o", "pipe").exit_code == 0
    assert Path("pipe").is_fifo()
    reader.join(timeout=20)
    assert read == [content]


def test_a_link_stays_one(mesh: Mesh, run: Run) -> None:
    speaks(mesh, wav_header(RATE) + SAMPLES.tobytes())
    Path("real.wav").write_bytes(b"older")
    Path("link.wav").symlink_to("real.wav")
    assert run("call", "speech", "synthesize", "Hello.", "-o", "link.wav").exit_code == 0
    assert Path("link.wav").is_symlink()
    assert Path("real.wav").stat().st_size == 96_044


def test_help_teaches_with_an_example(run: Run) -> None:
    assert "ortmesh call speech synthesize" in run("call", "speech", "synthesize", "--help").stdout
