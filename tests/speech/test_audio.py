"""Recordings: every container and coding people send, and everything that is none."""

from __future__ import annotations

import contextlib
import io
import math
import struct
import wave

import numpy as np
import pytest

from ortmesh.errors import BadInput, OutOfRange
from ortmesh.speech.v1 import speech_pb2
from ortmesh.speech.v1.speech_pb2 import Audio, RawAudio
from ortmesh_speech.audio import SAMPLE_RATE, Recording, Samples
from tests.speech.voices import HEADER_BYTES, audio, encode, over_an_hour

SECONDS = 2.0
S16, F32 = speech_pb2.SAMPLE_FORMAT_S16LE, speech_pb2.SAMPLE_FORMAT_F32LE


def tone(rate: int, seconds: float = SECONDS) -> Samples:
    """440 Hz, far from full scale."""
    return (0.4 * np.sin(2 * np.pi * 440 * np.arange(int(rate * seconds)) / rate)).astype(np.float32)


def read(audio: Audio) -> tuple[Samples, float]:
    recording = Recording(audio)
    samples = np.concatenate(list(recording))
    return samples, recording.seconds


def assert_is_the_tone(samples: Samples, signal_to_noise_decibels: float) -> None:
    """Compares the middle of the samples with 440 Hz of the same phase and height."""
    middle = samples[4000:24_000].astype(np.float64)
    angle = 2 * np.pi * 440 * np.arange(len(middle)) / SAMPLE_RATE
    waves = np.stack([np.sin(angle), np.cos(angle)], axis=1)
    (heights, *_) = np.linalg.lstsq(waves, middle, rcond=None)
    rest = middle - waves @ heights
    assert np.hypot(*heights) == pytest.approx(0.4, rel=0.1)
    assert 10 * math.log10(np.mean((waves @ heights) ** 2) / np.mean(rest**2)) > signal_to_noise_decibels


@pytest.mark.parametrize(
    ("container", "coding", "rate", "decibels"),
    [
        ("WAV", "PCM_16", 16_000, 80),
        ("WAV", "PCM_U8", 16_000, 35),
        ("WAV", "PCM_24", 44_100, 80),
        ("WAV", "PCM_32", 96_000, 80),
        ("WAV", "FLOAT", 22_050, 80),
        ("WAV", "DOUBLE", 48_000, 80),
        ("WAV", "ALAW", 8_000, 30),
        ("WAV", "ULAW", 8_000, 30),
        ("WAV", "IMA_ADPCM", 16_000, 20),
        ("WAV", "GSM610", 8_000, 10),
        ("WAVEX", "PCM_16", 192_000, 80),
        ("RF64", "PCM_16", 16_000, 80),
        ("W64", "PCM_16", 11_025, 75),
        ("FLAC", "PCM_16", 48_000, 80),
        ("FLAC", "PCM_24", 96_000, 80),
        ("OGG", "VORBIS", 44_100, 20),
        ("OGG", "OPUS", 48_000, 20),
        ("MP3", "MPEG_LAYER_III", 44_100, 20),
        ("AIFF", "PCM_16", 32_000, 80),
        ("AU", "ULAW", 8_000, 30),
        ("CAF", "ALAC_16", 44_100, 80),
    ],
)
def test_containers_codings_and_rates(container: str, coding: str, rate: int, decibels: float) -> None:
    samples, seconds = read(audio(tone(rate), rate, container, coding))
    assert seconds == pytest.approx(SECONDS, abs=0.15)
    assert len(samples) == pytest.approx(seconds * SAMPLE_RATE, abs=2)
    assert_is_the_tone(samples, decibels)


def test_eight_channels_are_mixed_to_one() -> None:
    """Their mean: what only one channel has is heard at an eighth."""
    channels = np.stack([tone(48_000)] * 8, axis=1)
    assert_is_the_tone(read(audio(channels, 48_000, "FLAC"))[0], 80)
    channels[:, 1:] = 0
    samples, _ = read(audio(channels * 2, 48_000, "FLAC"))
    assert np.abs(samples[4000:24_000]).max() == pytest.approx(0.1, abs=0.01)


@pytest.mark.parametrize("size", [0, 0xFFFFFFFF, 0x7FFFFFFF, 0x7FFFF000])
@pytest.mark.parametrize("riff", [0, 0xFFFFFFFF])
def test_wav_of_a_program_that_never_learnt_its_length(size: int, riff: int) -> None:
    """Such programs leave a placeholder in the header; the samples go to the end of the file."""
    assert_is_the_tone(read(Audio(encoded=_wav(size=size, riff=riff)))[0], 80)


@pytest.mark.parametrize("size", [None, 0])
def test_wav_with_other_chunks_before_the_samples(size: int | None) -> None:
    notes = _chunk(b"LIST", b"INFOISFT" + struct.pack("<I", 14) + b"Lavf60.16.100\0") + _chunk(b"JUNK", bytes(27))
    assert_is_the_tone(read(Audio(encoded=_wav(size=size, before=notes)))[0], 80)


def test_raw_samples() -> None:
    stereo = np.stack([tone(44_100), tone(44_100)], axis=1)
    whole = (stereo * 32767).astype("<i2").tobytes()
    assert_is_the_tone(read(_raw(whole, rate=44_100, channels=2, format=S16))[0], 75)
    assert_is_the_tone(read(_raw(tone(SAMPLE_RATE).astype("<f4").tobytes(), format=F32))[0], 80)


@pytest.mark.parametrize(
    ("raw", "field"),
    [
        (RawAudio(sample_rate_hertz=16_000, samples=bytes(4)), "audio.raw.format"),
        (RawAudio(sample_rate_hertz=16_000, samples=bytes(3), format=S16), "audio.raw.samples"),
        (RawAudio(sample_rate_hertz=16_000, samples=bytes(6), format=S16, channels=2), "audio.raw.samples"),
        (RawAudio(sample_rate_hertz=999, samples=bytes(4), format=S16), "audio.raw.sample_rate_hertz"),
        (RawAudio(sample_rate_hertz=384_001, samples=bytes(4), format=S16), "audio.raw.sample_rate_hertz"),
        (RawAudio(samples=bytes(4), format=S16), "audio.raw.sample_rate_hertz"),
        (RawAudio(sample_rate_hertz=16_000, samples=bytes(34), format=S16, channels=17), "audio.raw.channels"),
        (RawAudio(sample_rate_hertz=16_000, samples=bytes(4), format=S16, channels=-1), "audio.raw.channels"),
        (RawAudio(sample_rate_hertz=16_000, format=S16), "audio.raw"),
    ],
)
def test_raw_samples_that_do_not_fit_name_the_field(raw: RawAudio, field: str) -> None:
    with pytest.raises(BadInput) as caught:
        read(Audio(raw=raw))
    assert caught.value.violations[0].field == field


@pytest.mark.parametrize(
    "content",
    [b"", b"hello " * 100, b"\x89PNG\r\n\x1a\n" + bytes(200), b"RIFF", b"OggS" + bytes(300), b"ID3" + bytes(500)],
    ids=["empty", "text", "png", "four bytes", "ogg without pages", "tags without sound"],
)
def test_what_is_not_audio_names_the_field_and_what_was_expected(content: bytes) -> None:
    with pytest.raises(BadInput) as caught:
        read(Audio(encoded=content))
    assert caught.value.violations[0].field == "audio.encoded"
    assert "0x" not in caught.value.message, "no addresses of our objects"


def test_no_content_at_all() -> None:
    with pytest.raises(BadInput, match="encoded or raw"):
        read(Audio())


def test_containers_that_the_api_does_not_name_are_refused() -> None:
    """libsndfile reads many more, whose code hardly anybody looks at."""
    with pytest.raises(BadInput, match="expected WAV, FLAC"):
        read(audio(tone(16_000), container="VOC", coding="PCM_16"))


@pytest.mark.parametrize("chunks", [b"", b"LIST\x04\0\0\0INFO"])
def test_an_audio_file_without_samples(chunks: bytes) -> None:
    """Whole chunks behind an empty one are no samples."""
    with pytest.raises(BadInput, match="no samples"):
        read(Audio(encoded=_wav(samples=np.empty(0, np.float32), after=chunks)))


@pytest.mark.parametrize("value", [np.nan, np.inf, 3e38, -17])
def test_samples_that_are_not_numbers_are_refused(value: float) -> None:
    """They would silence everything around them without a word. So would what is far beyond full scale."""
    samples = tone(16_000)
    samples[100] = value
    for rate in (16_000, 44_100):  # a resampler makes infinities of it
        with pytest.raises(BadInput, match="not finite"):
            read(audio(samples, rate, container="WAV", coding="FLOAT"))


@pytest.mark.parametrize("scale", [2**15, 2**23, 2**31])
def test_floats_in_the_scale_of_integers_are_refused(scale: int) -> None:
    samples = tone(16_000) * np.float32(scale)
    for given in (audio(samples, container="WAV", coding="FLOAT"), _raw(samples.tobytes(), format=F32)):
        with pytest.raises(BadInput, match=r"beyond ±16 .* expected \[-1, 1\]"):
            read(given)


def test_floats_over_full_scale_are_read() -> None:
    samples = tone(16_000) / np.abs(tone(16_000)).max() * np.float32(16)
    assert np.array_equal(read(audio(samples, container="WAV", coding="FLOAT"))[0], samples)


def test_more_than_an_hour_is_refused_by_its_header() -> None:
    """Nothing of them is decoded: they would be found cut off."""
    with pytest.raises(OutOfRange) as caught:
        Recording(Audio(encoded=over_an_hour()[:HEADER_BYTES]))
    assert caught.value.violations[0].field == "audio.encoded"


def test_a_header_that_hides_the_length_helps_nobody() -> None:
    """Streaming encoders leave FLAC's count of samples open: they are counted while they are read."""
    content = bytearray(over_an_hour())
    content[21] &= 0xF0
    content[22:26] = bytes(4)
    recording = Recording(Audio(encoded=bytes(content)))
    lengths: list[int] = []
    with pytest.raises(OutOfRange):
        lengths.extend(map(len, recording))
    assert max(lengths) <= 65_536
    assert recording.seconds == pytest.approx(3600, abs=5)


def test_flac_of_open_length_is_read_to_its_end() -> None:
    content = bytearray(encode(tone(16_000), container="FLAC"))
    content[21] &= 0xF0
    content[22:26] = bytes(4)
    samples, seconds = read(Audio(encoded=bytes(content)))
    assert seconds == SECONDS
    assert_is_the_tone(samples, 80)


def test_an_hour_to_the_sample_is_accepted() -> None:
    hour = bytes(2 * 3600 * 1000)
    assert Recording(_raw(hour, rate=1000)).seconds == 0
    with pytest.raises(OutOfRange):
        Recording(_raw(hour + bytes(2), rate=1000))


@pytest.mark.parametrize(("container", "coding"), [("WAV", "PCM_16"), ("OGG", "OPUS"), ("AIFF", "PCM_16")])
def test_a_file_that_was_cut_off_is_read_as_far_as_it_goes(container: str, coding: str) -> None:
    """The answer's duration tells how far that was."""
    content = encode(tone(16_000, 20), container=container, coding=coding)
    samples, seconds = read(Audio(encoded=content[: len(content) // 2]))
    assert seconds == pytest.approx(10, abs=1.5)
    assert_is_the_tone(samples, 20)


def test_a_file_whose_decoder_complains_is_refused_with_the_place() -> None:
    content = encode(tone(16_000, 20), container="FLAC")
    with pytest.raises(BadInput, match=r"audio\.encoded: is damaged or cut off after \d+\.\d\d s"):
        read(Audio(encoded=content[: len(content) // 2]))


@pytest.mark.parametrize("container", ["WAV", "RF64", "W64", "FLAC", "OGG", "AIFF", "AU", "CAF"])
def test_damaged_files_are_read_or_refused_and_nothing_else(container: str) -> None:
    """Two hundred of each with bytes changed, most of them in the header, some cut off."""
    random = np.random.default_rng(3)
    whole = encode(tone(16_000), container=container)
    for _ in range(200):
        content = bytearray(whole)
        for place in random.integers(0, 200 if random.random() < 0.7 else len(content), size=6):
            content[place] = random.choice([0, 255, int(random.integers(256))])
        if random.random() < 0.2:
            content = content[: random.integers(1, len(content))]
        with contextlib.suppress(BadInput, OutOfRange):
            read(Audio(encoded=bytes(content)))


def test_blocks_join_without_a_seam() -> None:
    """The resampler goes on where the block before ended."""
    samples, _ = read(audio(tone(44_100, 10), 44_100, "WAV"))
    assert np.abs(np.diff(samples[100:-100], n=2)).max() < 0.4 * (2 * np.pi * 440 / SAMPLE_RATE) ** 2 * 1.1


def _raw(samples: bytes, *, rate: int = SAMPLE_RATE, channels: int = 0, format: int = S16) -> Audio:
    return Audio(raw=RawAudio(sample_rate_hertz=rate, channels=channels, format=format, samples=samples))  # type: ignore[arg-type]


def _chunk(name: bytes, content: bytes) -> bytes:
    return name + struct.pack("<I", len(content)) + content + bytes(len(content) % 2)


def _wav(
    *,
    size: int | None = None,
    riff: int | None = None,
    before: bytes = b"",
    after: bytes = b"",
    samples: Samples | None = None,
) -> bytes:
    """16-bit WAV whose header says what the test wants."""
    written = tone(SAMPLE_RATE) if samples is None else samples
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setparams((1, 2, SAMPLE_RATE, 0, "NONE", ""))
        writer.writeframes((written * 32767).astype("<i2").tobytes())
    plain = file.getvalue()
    data = plain[36:40] + (plain[40:44] if size is None else struct.pack("<I", size)) + plain[44:]
    whole = plain[8:36] + before + data + after
    return b"RIFF" + struct.pack("<I", len(whole) if riff is None else riff) + whole
