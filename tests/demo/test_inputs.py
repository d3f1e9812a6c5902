"""The demo's inputs are there without a network, and the same on every run."""

from __future__ import annotations

import io
import wave

from PIL import Image

from demo import inputs


def test_pictures_and_pages_are_files_of_the_size_that_they_say() -> None:
    for picture in (*inputs.pictures(), inputs.english_page().picture, inputs.chinese_page().picture):
        read = Image.open(io.BytesIO(picture.encoded))
        assert read.size == (picture.width, picture.height)
        assert Image.MIME[str(read.format)] == picture.media_type


def test_speech_is_the_same_on_every_run() -> None:
    once, again = inputs.recordings(), inputs.recordings()
    assert [each.encoded for each in once] == [each.encoded for each in again]
    with wave.open(io.BytesIO(once[0].encoded)) as file:
        assert file.getnframes() / file.getframerate() == once[0].seconds > 2
    assert max(once[0].loudness) == 1
