"""A stream's audio: however its bytes are cut, the samples are those of the whole."""

from __future__ import annotations

import contextlib
import io
import struct
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from ortmesh.errors import BadInput, OutOfRange
from ortmesh.speech.v1.speech_pb2 import (
    SAMPLE_FORMAT_ALAW,
    SAMPLE_FORMAT_F32LE,
    SAMPLE_FORMAT_MULAW,
    SAMPLE_FORMAT_S16LE,
    Audio,
    RawAudio,
    RawFormat,
    StreamFormat,
)
from ortmesh_speech.audio import Recording
from ortmesh_speech.decoder import THREAD
from ortmesh_speech.sample_formats import ALAW, MULAW, RAW, Samples
from ortmesh_speech.stream_audio import StreamAudio
from tests.speech.voices import encode

CONTAINER = StreamFormat(container=True)
FORMATS = [SAMPLE_FORMAT_S16LE, SAMPLE_FORMAT_F32LE, SAMPLE_FORMAT_MULAW, SAMPLE_FORMAT_ALAW]


def raw(rate: int = 16_000, channels: int = 1, format: int = SAMPLE_FORMAT_S16LE) -> StreamFormat:
    return StreamFormat(raw=RawFormat(sample_rate_hertz=rate, channels=channels, format=format))  # type: ignore[arg-type]


def pieces(content: bytes, places: Iterable[int]) -> Iterator[bytes]:
    edges = [0, *sorted(place % (len(content) + 1) for place in places), len(content)]
    return (content[begin:end] for begin, end in pairwise(edges))


def heard(format: StreamFormat, chunks: Iterable[bytes]) -> tuple[Samples, float]:
    """All samples of a stream, and its seconds."""
    audio = StreamAudio(format)
    try:
        blocks = [block for chunk in chunks for block in audio.feed(chunk)]
        blocks += audio.rest()
        return np.concatenate(blocks) if blocks else np.empty(0, np.float32), audio.seconds
    finally:
        audio.close()


def whole(audio: Audio) -> Samples:
    return np.concatenate(list(Recording(audio)))


def sound(rate: int, channels: int, seconds: float = 0.7) -> Samples:
    """Noise under a tone, another one in each channel."""
    random, time_ = np.random.default_rng(rate + channels), np.arange(int(rate * seconds)) / rate
    tones = np.sin(2 * np.pi * time_[:, None] * np.linspace(200, 400, channels))
    return (0.4 * tones + random.normal(0, 0.02, (len(time_), channels))).astype(np.float32)


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(FORMATS),
    st.sampled_from([8_000, 11_025, 16_000, 44_100, 48_000]),
    st.integers(1, 8),
    st.lists(st.integers(0, 10**6), max_size=12),
)
def test_raw_chunks_cut_anywhere_are_heard_as_the_whole(
    format: int, rate: int, channels: int, places: list[int]
) -> None:
    content = np.random.default_rng(1).integers(0, 256, 5003 * channels, np.uint8).tobytes()
    if format == SAMPLE_FORMAT_F32LE:
        content = sound(rate, channels, 0.1).astype("<f4").tobytes()
    size = RAW[format].itemsize * channels
    content = content[: len(content) // size * size]
    of_all = RawAudio(sample_rate_hertz=rate, channels=channels, format=format, samples=content)  # type: ignore[arg-type]
    samples, seconds = heard(raw(rate, channels, format), pieces(content, places))
    np.testing.assert_array_equal(samples, whole(Audio(raw=of_all)))
    assert seconds == len(content) / size / rate


FILES = {
    "WAV": encode(sound(44_100, 2), 44_100),
    "WAV 8 bits": encode(sound(8_000, 1), 8_000, "WAV", "PCM_U8"),
    "WAV 24 bits": encode(sound(48_000, 3), 48_000, "WAV", "PCM_24"),
    "WAV 32 bits": encode(sound(16_000, 1), 16_000, "WAV", "PCM_32"),
    "WAV floats": encode(sound(22_050, 1), 22_050, "WAV", "FLOAT"),
    "WAV doubles": encode(sound(16_000, 1), 16_000, "WAV", "DOUBLE"),
    "WAV mu-law": encode(sound(8_000, 1), 8_000, "WAV", "ULAW"),
    "WAV A-law": encode(sound(8_000, 2), 8_000, "WAV", "ALAW"),
    "WAV extensible": encode(sound(48_000, 6), 48_000, "WAVEX", "PCM_24"),
    "RF64": encode(sound(16_000, 1), 16_000, "RF64", "PCM_16"),
    "FLAC": encode(sound(44_100, 2, 2), 44_100, "FLAC"),
    "FLAC 24 bits": encode(sound(96_000, 1), 96_000, "FLAC", "PCM_24"),
    "Ogg Vorbis": encode(sound(44_100, 2, 2), 44_100, "OGG", "VORBIS"),
    "Ogg Opus": encode(sound(48_000, 2, 2), 48_000, "OGG", "OPUS"),
    "Ogg Opus 8 kHz": encode(sound(8_000, 1, 2), 8_000, "OGG", "OPUS"),
}


@pytest.mark.parametrize("name", FILES)
@settings(max_examples=8, deadline=None)
@given(st.lists(st.integers(0, 10**6), max_size=30))
def test_files_cut_anywhere_are_heard_as_the_whole(name: str, places: list[int]) -> None:
    samples, seconds = heard(CONTAINER, pieces(FILES[name], places))
    recording = Recording(Audio(encoded=FILES[name]))
    np.testing.assert_allclose(samples, np.concatenate(list(recording)), atol=1e-6)
    assert seconds == recording.seconds


@pytest.mark.parametrize("name", ["WAV", "FLAC", "Ogg Opus"])
def test_files_byte_by_byte(name: str) -> None:
    content = FILES[name][:20_000]
    samples, _ = heard(CONTAINER, (content[place : place + 1] for place in range(len(content))))
    np.testing.assert_array_equal(samples, heard(CONTAINER, [content])[0])
    assert len(samples)


@pytest.mark.parametrize("name", ["FLAC", "Ogg Vorbis", "Ogg Opus"])
def test_what_arrived_is_heard_without_waiting_for_more(name: str) -> None:
    """But for the packet that is not whole yet, and the page of an Ogg file."""
    content = encode(
        sound(16_000, 1, 12),
        16_000,
        *{"FLAC": ("FLAC", None), "Ogg Vorbis": ("OGG", "VORBIS")}.get(name, ("OGG", "OPUS")),
    )
    audio = StreamAudio(CONTAINER)
    made = sum(len(block) for block in audio.feed(content[: len(content) // 2]))
    audio.close()
    assert made > 4.5 * 16_000


@pytest.mark.parametrize("size", [0, 0xFFFFFFFF, 0x7FFFFFFF, 0x7FFFF000])
@pytest.mark.parametrize("total", [0, 36, 0xFFFFFFFF])
def test_wav_of_a_program_that_does_not_know_the_length(size: int, total: int) -> None:
    content = bytearray(encode(sound(16_000, 1), 16_000, "WAV", "PCM_16"))
    at = content.index(b"data")
    content[4:8], content[at + 4 : at + 8] = struct.pack("<I", total), struct.pack("<I", size)
    samples, seconds = heard(CONTAINER, pieces(bytes(content), [5, 40, 43, 45, 1001]))
    np.testing.assert_array_equal(samples, whole(Audio(encoded=encode(sound(16_000, 1)))))
    assert seconds == 0.7


def test_rf64_whose_length_stands_in_its_own_chunk() -> None:
    plain = encode(sound(16_000, 1), 16_000)
    at = plain.index(b"data")
    size = len(plain) - at - 8
    long = struct.pack("<4sIQQQI", b"ds64", 28, len(plain) + 28, size, 0, 0)
    content = (
        b"RF64\xff\xff\xff\xffWAVE"
        + long
        + plain[12:at]
        + b"data\xff\xff\xff\xff"
        + plain[at + 8 :]
        + b"LIST\4\0\0\0INFO"
    )
    samples, _ = heard(CONTAINER, [content])
    np.testing.assert_array_equal(samples, whole(Audio(encoded=plain)))


def test_chunks_around_the_samples_are_passed_over() -> None:
    plain = encode(sound(16_000, 1), 16_000, "WAV", "PCM_16")
    notes = b"LIST" + struct.pack("<I", 13) + bytes(14)
    content = plain[:12] + notes + plain[12:] + notes
    np.testing.assert_array_equal(heard(CONTAINER, pieces(content, [13, 30]))[0], whole(Audio(encoded=plain)))


def test_the_tables_of_g711_are_those_of_libsndfile() -> None:
    codes = bytes(range(256))
    for format, subtype in ((MULAW, "ULAW"), (ALAW, "ALAW")):
        read, _ = soundfile.read(
            io.BytesIO(codes), dtype="float32", samplerate=8000, channels=1, format="RAW", subtype=subtype
        )
        np.testing.assert_array_equal(format.decode(codes), read)


@pytest.mark.parametrize("format", [SAMPLE_FORMAT_MULAW, SAMPLE_FORMAT_ALAW])
def test_telephone_samples_of_a_recording(format: int) -> None:
    subtype = "ULAW" if format == SAMPLE_FORMAT_MULAW else "ALAW"
    content = encode(sound(8_000, 1), 8_000, "WAV", subtype)
    samples = content[-int(0.7 * 8_000) :]
    recording = RawAudio(sample_rate_hertz=8_000, format=format, samples=samples)  # type: ignore[arg-type]
    np.testing.assert_array_equal(whole(Audio(raw=recording)), whole(Audio(encoded=content)))


@pytest.mark.parametrize("samples", [0, 1, 800])
def test_little_is_no_error(samples: int) -> None:
    """Nothing, one sample, 50 ms."""
    assert heard(raw(), [bytes(2 * samples)])[1] == samples / 16_000
    assert heard(CONTAINER, [encode(np.zeros(samples), 16_000)] if samples else [])[1] == samples / 16_000


def test_a_frame_whose_end_never_comes_is_left_out() -> None:
    assert heard(raw(channels=2), [bytes(7)])[1] == 1 / 16_000
    assert heard(CONTAINER, [FILES["WAV floats"][:-3]])[1] == (int(0.7 * 22_050) - 1) / 22_050


@pytest.mark.parametrize(
    ("format", "field"),
    [
        (StreamFormat(), "config.format"),
        (StreamFormat(container=False), "config.format"),
        (raw(rate=0), "config.format.raw.sample_rate_hertz"),
        (raw(rate=999), "config.format.raw.sample_rate_hertz"),
        (raw(rate=384_001), "config.format.raw.sample_rate_hertz"),
        (raw(channels=9), "config.format.raw.channels"),
        (raw(channels=-1), "config.format.raw.channels"),
        (raw(format=0), "config.format.raw.format"),
        (raw(format=77), "config.format.raw.format"),
    ],
)
def test_formats_that_can_not_be_name_the_field(format: StreamFormat, field: str) -> None:
    with pytest.raises(BadInput) as caught:
        StreamAudio(format)
    assert caught.value.violations[0].field == field


ADPCM = encode(sound(16_000, 1), 16_000, "WAV", "IMA_ADPCM")
NINE = bytearray(FILES["WAV"])
NINE[22:24] = struct.pack("<H", 9)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"hello, this is no audio", "expected WAV, FLAC or Ogg"),
        (b"ID3\4" + bytes(100), "expected WAV, FLAC or Ogg"),
        (b"RIFF", "ends at byte 4, within the header"),
        (FILES["WAV"][:30], "ends at byte 30, before the samples begin"),
        (ADPCM, "coded as 0x11"),
        (bytes(NINE), "9 channels: expected 1 to 8"),
        (FILES["WAV"][:12] + b"data\x10\0\0\0" + bytes(40), "no format stands before"),
        (FILES["WAV"][:12] + b"LIST\xff\xff\xff\x0f" + bytes(40), "stands before the samples"),
        (b"fLaC" + bytes(100), "a header that can't be read"),
        (b"OggS" + bytes(300), "a header that can't be read"),
        (FILES["FLAC"][:50], "a header that can't be read, up to byte 50"),
        (FILES["Ogg Opus"][:60], "a header that can't be read, up to byte 60"),
    ],
)
def test_what_can_not_be_read_is_refused_with_the_place(content: bytes, reason: str) -> None:
    for chunks in ([content], pieces(content, range(0, len(content), 7))):
        with pytest.raises(BadInput, match=reason) as caught:
            heard(CONTAINER, chunks)
        assert caught.value.violations[0].field == "audio"


def test_a_file_that_is_damaged_in_the_middle_is_refused_with_the_byte() -> None:
    content = bytearray(FILES["FLAC"])
    middle = len(content) // 2
    content[middle : middle + 300] = bytes(300)
    audio, made = StreamAudio(CONTAINER), 0

    def feed_all() -> None:
        nonlocal made
        for chunk in pieces(bytes(content), range(0, len(content), 1000)):
            made += sum(map(len, audio.feed(chunk)))

    with pytest.raises(BadInput, match=r"audio: is damaged before byte \d+") as caught:
        feed_all()
    audio.close()
    place = int(caught.value.message.split("byte ")[1].split(":")[0])
    assert middle <= place <= middle + 30_000
    assert made > 0.3 * 16_000, "what came before was heard"


def test_samples_that_are_no_numbers_are_refused_with_the_byte() -> None:
    audio = StreamAudio(raw(format=SAMPLE_FORMAT_F32LE))
    list(audio.feed(bytes(4000)))
    with pytest.raises(BadInput, match="not finite numbers after byte 4000"):
        list(audio.feed(np.array([0, np.nan], "<f4").tobytes()))


def test_a_sample_far_beyond_full_scale_is_refused_with_the_byte() -> None:
    """Brought down to full scale with what is around it, that would be heard no more."""
    audio = StreamAudio(raw(rate=44_100, format=SAMPLE_FORMAT_F32LE))
    list(audio.feed(bytes(4000)))
    with pytest.raises(BadInput, match=r"beyond ±16 .* after byte 4000: expected \[-1, 1\]"):
        list(audio.feed(np.array([0, -3e38], "<f4").tobytes()))


def test_more_than_twelve_hours_are_out_of_range() -> None:
    audio = StreamAudio(raw(rate=1000, format=SAMPLE_FORMAT_MULAW))
    audio._frames = 12 * 3600 * 1000 - 10
    list(audio.feed(bytes(10)))
    with pytest.raises(OutOfRange, match="12 hours"):
        list(audio.feed(bytes(1)))


def test_a_little_that_expands_is_never_held_whole() -> None:
    """A minute of silence in each of sixty files' worth of FLAC: blocks stay short, and the thread waits."""
    content = encode(np.zeros(60 * 60 * 16_000, np.int16), 16_000, "FLAC", "PCM_16")
    assert len(content) < 1 << 20
    audio = StreamAudio(CONTAINER)
    blocks = audio.feed(content)
    assert all(len(next(blocks)) < 3 * 16_000 for _ in range(5))
    audio.close()
    assert_no_decoder_is_left()


@pytest.mark.parametrize("cut", [0, 3, 20, 3000, 20_000])
def test_a_stream_that_is_left_leaves_no_thread(cut: int) -> None:
    for name in ("FLAC", "Ogg Vorbis", "Ogg Opus"):
        audio = StreamAudio(CONTAINER)
        for chunk in pieces(FILES[name][:cut], [cut // 2]):
            list(audio.feed(chunk))
        audio.close()
    assert_no_decoder_is_left()


@pytest.mark.parametrize("name", ["FLAC", "Ogg Vorbis", "Ogg Opus"])
def test_a_file_whose_header_does_not_come_holds_up_no_other(name: str) -> None:
    """Its decoder waits in the midst of opening it."""
    stalled = StreamAudio(CONTAINER)
    list(stalled.feed(FILES[name][:30]))
    with ThreadPoolExecutor() as others:
        try:
            recording = others.submit(lambda: sum(map(len, Recording(Audio(encoded=FILES[name])))))
            stream = others.submit(lambda: len(heard(CONTAINER, [FILES[name]])[0]))
            assert recording.result(timeout=20) > 0
            assert stream.result(timeout=20) > 0
        finally:
            stalled.close()
    assert_no_decoder_is_left()


@pytest.mark.parametrize("name", ["FLAC", "Ogg Vorbis", "Ogg Opus"])
def test_a_file_that_is_recognized_while_its_stream_is_left_leaves_no_thread(name: str) -> None:
    """The first bytes are read in the pool when the call ends."""
    audio = StreamAudio(CONTAINER)
    reading = audio.feed(FILES[name][:3000])
    audio.close()
    assert list(reading) == []
    assert_no_decoder_is_left()


@pytest.mark.parametrize("name", ["WAV", "RF64", "WAV extensible", "FLAC", "Ogg Vorbis", "Ogg Opus"])
def test_damaged_files_are_read_or_refused_and_nothing_else(name: str) -> None:
    random = np.random.default_rng(5)
    for _ in range(60):
        content = bytearray(FILES[name][: random.integers(20, 30_000)])
        for place in random.integers(0, min(200, len(content)) if random.random() < 0.7 else len(content), size=6):
            content[place] = random.choice([0, 255, int(random.integers(256))])
        with contextlib.suppress(BadInput, OutOfRange):
            heard(CONTAINER, pieces(bytes(content), random.integers(0, len(content), 5).tolist()))
    assert_no_decoder_is_left()


def assert_no_decoder_is_left() -> None:
    until = time.monotonic() + 20
    while left := [thread for thread in threading.enumerate() if thread.name == THREAD]:
        left[0].join(0.1)
        assert time.monotonic() < until, "a decoder's thread waits for ever"
