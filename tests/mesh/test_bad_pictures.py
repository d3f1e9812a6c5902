"""Bad and odd pictures at every door: each is refused by its field, or read, and no neighbour notices."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from typing import Any

import cv2
import grpc
import numpy as np
import pytest
from PIL import Image as Pillow

from ortmesh.client import Client
from ortmesh.vision.v1 import vision_pb2
from ortmesh.vision.v1.vision_pb2 import Image
from tests.mesh.bad import bounded_memory, client, errors_of, expect_refusal, replicas, send, unharmed
from tests.mesh.conftest import Door, RunningMesh
from tests.vision.samples import SKIMAGE, jpeg_with, scans
from tests.vision.samples import encode as file

INVALID = grpc.StatusCode.INVALID_ARGUMENT
Call = Callable[[Client, Any], Any]
"""Puts a picture into a method's request and sends it."""


@cache
def cup(width: int = 300, height: int = 200) -> Pillow.Image:
    """An espresso, small."""
    return Pillow.open(SKIMAGE / "coffee.png").convert("RGB").resize((width, height))


@cache
def vast() -> bytes:
    """A PNG of 40,000 x 40,000 pixels, whole and right: 1.6 GB that lie in 200 kB."""
    packed = zlib.compress(
        bytes(40_000 * (1 + 40_000 // 8))
    )  # a bit a pixel, behind a byte that says how a row is kept
    parts = (
        (b"IHDR", struct.pack(">IIBBBBB", 40_000, 40_000, 1, 0, 0, 0, 0)),
        (b"IDAT", packed),
        (b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts
    )


def truncated_jpeg() -> bytes:
    whole = file(cup(), "JPEG")
    return whole[: len(whole) // 2]


BAD_PICTURES: Mapping[str, Callable[[], bytes]] = {
    "empty": bytes,
    "text": lambda: b"Dear Sir or Madam,\n" * 30,
    "truncated JPEG": truncated_jpeg,
    "40,000 x 40,000": vast,
    "millions of empty segments": lambda: jpeg_with(b"\xff\xe5\0\2" * 4_000_000),
    "thousands of empty scans": lambda: scans(10_000),
}
PICTURE_METHODS: Mapping[str, tuple[Call, str]] = {
    "Classify": (lambda to, image: to.vision.Classify(vision_pb2.ClassifyRequest(image=image)), "image"),
    "Detect": (lambda to, image: to.vision.Detect(vision_pb2.DetectRequest(image=image)), "image"),
    "Embed": (lambda to, image: to.vision.Embed(vision_pb2.EmbedRequest(images=[image])), "images[0]"),
    "ReadText": (lambda to, image: to.vision.ReadText(vision_pb2.ReadTextRequest(image=image)), "image"),
}


def frames(kind: str, **options: Any) -> bytes:
    """Three frames, of which the first is the cup."""
    black = Pillow.new("RGB", cup().size)
    return file(cup(), kind, save_all=True, append_images=[black, Pillow.new("RGB", cup().size, "red")], **options)


def deep() -> bytes:
    return bytes(cv2.imencode(".png", np.asarray(cup())[:, :, ::-1].astype(np.uint16) * 257)[1].tobytes())


def paletted() -> bytes:
    return file(cup().quantize(255), transparency=254)


def turned() -> bytes:
    """Stored on its side, as a camera does that is held upright."""
    exif = Pillow.Exif()
    exif[0x0112] = 6
    return file(cup().transpose(Pillow.Transpose.ROTATE_90), exif=exif)


GOOD_PICTURES: Mapping[str, tuple[Callable[[], bytes], int]] = {
    "animated GIF": (lambda: frames("GIF"), 3),
    "animated WebP": (lambda: frames("WEBP"), 3),
    "animated PNG": (lambda: frames("PNG"), 3),
    "CMYK JPEG": (lambda: file(cup().convert("CMYK"), "JPEG"), 1),
    "16 bits a channel": (deep, 1),
    "palette with transparency": (paletted, 1),
    "turned by EXIF": (turned, 1),
}
"""With the number of their frames."""


@pytest.fixture(scope="module", autouse=True)
def _unharmed(mesh: RunningMesh) -> Iterator[None]:
    good = Image(encoded=file(cup()))
    with unharmed(mesh, "vision", lambda to: to.vision.Classify(vision_pb2.ClassifyRequest(image=good))):
        yield


@pytest.mark.parametrize("method", PICTURE_METHODS)
@pytest.mark.parametrize("name", BAD_PICTURES)
def test_what_is_no_picture_is_refused(door: Door, name: str, method: str) -> None:
    call, field = PICTURE_METHODS[method]
    image = Image(encoded=BAD_PICTURES[name]())
    with client(door, "vision") as to:
        expect_refusal(lambda: call(to, image), INVALID, f"{field}.encoded")


@pytest.mark.parametrize("method", PICTURE_METHODS)
def test_no_picture_at_all_is_refused(door: Door, method: str) -> None:
    call, field = PICTURE_METHODS[method]
    with client(door, "vision") as to:
        expect_refusal(lambda: call(to, Image()), INVALID, field)


def test_pixels_that_do_not_fit_are_refused(door: Door) -> None:
    raw = vision_pb2.RawImage(width=3, height=3, format=vision_pb2.PIXEL_FORMAT_RGB8, pixels=bytes(26))
    with client(door, "vision") as to:
        for call, field in PICTURE_METHODS.values():
            expect_refusal(partial(call, to, Image(raw=raw)), INVALID, f"{field}.raw.pixels")


def test_a_vast_picture_moves_no_memory(door: Door) -> None:
    """It is refused by its header: decoding it would take gigabytes."""
    call, field = PICTURE_METHODS["Classify"]
    image = Image(encoded=vast())
    with client(door, "vision") as to, bounded_memory(replicas(door, "vision"), growth_bytes=100_000_000):
        for _ in range(3):
            error = expect_refusal(lambda: call(to, image), INVALID, f"{field}.encoded")
            assert "over 64 megapixels" in (error.details() or "")


@pytest.mark.parametrize("name", GOOD_PICTURES)
def test_odd_pictures_show_what_they_show(door: Door, name: str) -> None:
    made, count = GOOD_PICTURES[name]
    with client(door, "vision") as to:
        answer = to.vision.Classify(vision_pb2.ClassifyRequest(image=Image(encoded=made())), timeout=60)
    assert answer.labels[0].name == "espresso"
    assert answer.image == vision_pb2.ImageInfo(width=300, height=200, frames=count)


def test_a_turned_picture_and_an_upright_one_have_one_answer(door: Door) -> None:
    with client(door, "vision") as to:
        answers = [
            to.vision.Classify(vision_pb2.ClassifyRequest(image=Image(encoded=data)), timeout=60)
            for data in (turned(), file(cup()))
        ]
    names, scores = [[[getattr(label, key) for label in each.labels] for each in answers] for key in ("name", "score")]
    assert names[0] == names[1]
    assert scores[0] == pytest.approx(scores[1], abs=1e-4)


def test_a_bad_picture_among_good_ones_fails_alone(door: Door) -> None:
    images = [Image(encoded=file(cup()))] * 5
    images[3] = Image(encoded=truncated_jpeg())
    with client(door, "vision") as to:
        answer = to.vision.Embed(vision_pb2.EmbedRequest(images=images), timeout=60)
    assert errors_of(answer.results) == {3: (3, ["images[3].encoded"])}


def test_a_million_empty_pictures_are_refused_before_they_are_made(door: Door) -> None:
    """Two bytes each on the wire, fifty in memory."""
    with client(door, "vision") as to:
        expect_refusal(lambda: send(to, "ortmesh.vision.v1.VisionService/Embed", b"\x12\x00" * 8_000_000), INVALID)
