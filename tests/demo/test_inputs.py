"""The demo's inputs are there without a network, and the same on every run."""

from __future__ import annotations

import io
import wave

import numpy as np
import pytest
from PIL import Image

from demo import inputs


def test_pictures_and_pages_are_files_of_the_size_that_they_say() -> None:
    for picture in (
        *inputs.pictures(),
        *inputs.portraits(),
        inputs.english_page().picture,
        inputs.chinese_page().picture,
    ):
        read = Image.open(io.BytesIO(picture.encoded))
        assert read.size == (picture.width, picture.height)
        assert Image.MIME[str(read.format)] == picture.media_type


def test_the_talk_says_where_its_sentences_are() -> None:
    talk = inputs.talk()
    edges = [edge for pair in talk.spoken for edge in pair]
    assert edges == sorted(edges)
    assert talk.recording.seconds - edges[-1] == pytest.approx(inputs.PAUSES[-1], abs=0.001)
    with wave.open(io.BytesIO(talk.recording.encoded)) as file:
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2")
        rate = file.getframerate()
    assert not samples[: int(edges[0] * rate) - 1].any()
    assert not samples[int(edges[1] * rate) + 1 : int(edges[2] * rate) - 1].any()


def test_speech_is_the_same_on_every_run() -> None:
    once, again = inputs.recordings(), inputs.recordings()
    assert [each.encoded for each in once] == [each.encoded for each in again]
    with wave.open(io.BytesIO(once[0].encoded)) as file:
        assert file.getnframes() / file.getframerate() == once[0].seconds > 2
    assert max(once[0].loudness) == 1
