"""Streams of WAV, bare samples and Ogg/Opus, as players and libraries read them."""

from __future__ import annotations

import io
import wave

import numpy as np
import pytest
import soundfile

from ortmesh.errors import BadInput
from ortmesh.speech.v1 import speech_pb2
from ortmesh_speech.audio import Recording, Samples
from ortmesh_speech.encoders import ENCODERS, Encoder, OggOpus, Pcm, Wav, encoder_of

RATE = 24_000
TONE = (0.5 * np.sin(2 * np.pi * 440 * np.arange(RATE * 3 + 17) / RATE)).astype(np.float32)


def stream(encoder: Encoder, samples: Samples = TONE, step: int = 5000) -> list[bytes]:
    pieces = [encoder.encode(samples[at : at + step]) for at in range(0, len(samples), step)]
    return [*pieces, encoder.finish()]


def test_samples_are_16_bits_and_all_there() -> None:
    content = b"".join(stream(Pcm()))
    assert np.array_equal(np.frombuffer(content, "<i2"), np.rint(TONE * 32767).astype(np.int16))


def test_full_scale_does_not_wrap_around() -> None:
    assert np.frombuffer(Pcm().encode(np.array([1, -1], np.float32)), "<i2").tolist() == [32767, -32767]


def test_a_wav_stream_begins_with_its_header_and_is_read_by_soundfile() -> None:
    content = b"".join(stream(Wav(RATE)))
    samples, rate = soundfile.read(io.BytesIO(content), dtype="float32")
    assert (rate, len(samples)) == (RATE, len(TONE))
    assert np.abs(samples - TONE).max() < 1e-4


def test_a_wav_stream_is_read_by_the_standard_library() -> None:
    with wave.open(io.BytesIO(b"".join(stream(Wav(RATE))))) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (RATE, 1, 2)
        assert len(file.readframes(10**7)) == 2 * len(TONE)


@pytest.mark.parametrize("make", [Wav, OggOpus])
def test_the_api_reads_what_it_writes(make: type[Wav] | type[OggOpus]) -> None:
    recording = Recording(speech_pb2.Audio(encoded=b"".join(stream(make(RATE)))))
    heard = np.concatenate(list(recording))
    assert recording.seconds == pytest.approx(len(TONE) / RATE, abs=1e-3)
    assert float(np.sqrt(np.mean(heard**2))) == pytest.approx(0.5 / 2**0.5, rel=0.05)


def test_an_ogg_stream_is_opus_and_leaves_while_it_is_written() -> None:
    pieces = stream(OggOpus(RATE), step=RATE // 2)
    file = soundfile.SoundFile(io.BytesIO(b"".join(pieces)))
    assert (file.format, file.subtype, file.samplerate, file.frames) == ("OGG", "OPUS", RATE, len(TONE))
    assert pieces[0].startswith(b"OggS")
    assert sum(map(len, pieces[:4])) > len(pieces[0])
    assert max(map(len, pieces)) < 64 * 1024


def test_an_unknown_form_is_refused_with_all_that_there_are() -> None:
    with pytest.raises(BadInput, match=r"7 is none: expected AUDIO_FORMAT_WAV, .*AUDIO_FORMAT_OGG_OPUS"):
        encoder_of(7)


def test_every_form_of_the_api_has_an_encoder() -> None:
    assert set(ENCODERS) == set(speech_pb2.AudioFormat.values())
