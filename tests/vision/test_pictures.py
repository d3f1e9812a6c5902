"""Pictures of every kind become upright 8-bit RGB; whatever is wrong with one is named by its field."""

from __future__ import annotations

import io
import struct
import time

import cv2
import numpy as np
import pytest
from PIL import Image

from ortmesh.errors import BadInput
from ortmesh.vision.v1 import vision_pb2
from ortmesh_vision.frames import MAX_COUNTED
from ortmesh_vision.pictures import Picture, read_picture
from tests.vision.samples import SKIMAGE, Pixels, encode, encoded, photo, png_header, quadrants

RED = (255, 0, 0)


def read(data: bytes) -> Picture:
    return read_picture(vision_pb2.Image(encoded=data), "image")


def refused(image: vision_pb2.Image, field: str = "image") -> BadInput:
    with pytest.raises(BadInput) as caught:
        read_picture(image, field)
    return caught.value


def field_of(error: BadInput) -> str:
    return error.violations[0].field


def colour(picture: Picture) -> tuple[int, ...]:
    """Of a picture that has one colour."""
    pixels = picture.rgb().reshape(-1, 3)
    assert np.ptp(pixels.astype(int), axis=0).max() <= 2
    return tuple(pixels[0].tolist())


# Kinds of files


@pytest.mark.parametrize("name", ["coffee.png", "astronaut.png", "rocket.jpg", "camera.png"])
def test_photographs_decode_as_another_library_decodes_them(name: str) -> None:
    """OpenCV brings decoders of its own; JPEG leaves rounding to them."""
    other = cv2.imread(str(SKIMAGE / name), cv2.IMREAD_COLOR_RGB)
    assert other is not None
    ours = read_picture(photo(name), "image").rgb()
    assert ours.shape == other.shape
    assert ours.dtype == np.uint8
    assert np.abs(ours.astype(int) - other).max() <= (3 if name.endswith("jpg") else 0)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "GIF", "TIFF", "BMP"])
def test_lossless_files_keep_every_pixel(kind: str) -> None:
    options = {"lossless": True} if kind == "WEBP" else {}
    picture = read(encode(Image.fromarray(quadrants()), kind, **options))
    assert np.array_equal(picture.rgb(), quadrants())
    assert picture.info() == vision_pb2.ImageInfo(width=40, height=20, frames=1)


def test_transparency_is_laid_over_white() -> None:
    pixels = np.zeros((4, 4, 4), np.uint8)
    pixels[:, :2] = (255, 0, 0, 255)
    pixels[0, 3] = (0, 0, 0, 128)
    rgb = read(encode(Image.fromarray(pixels, "RGBA"))).rgb()
    assert rgb[0, 0].tolist() == [255, 0, 0]
    assert rgb[1, 3].tolist() == [255, 255, 255]
    assert rgb[0, 3].tolist() == [127, 127, 127]


def test_a_palette_with_a_transparent_colour_is_laid_over_white() -> None:
    image = Image.new("P", (4, 4), 0)
    image.putpalette([0, 0, 0, 255, 0, 0])
    image.paste(1, (0, 0, 2, 4))
    rgb = read(encode(image, transparency=0)).rgb()
    assert rgb[0, 0].tolist() == [255, 0, 0]
    assert rgb[0, 3].tolist() == [255, 255, 255]


def test_grey_with_alpha_is_laid_over_white() -> None:
    assert colour(read(encode(Image.new("LA", (4, 4), (0, 0))))) == (255, 255, 255)
    assert colour(read(encode(Image.new("LA", (4, 4), (9, 255))))) == (9, 9, 9)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_of_grey_keep_their_upper_eight(kind: str) -> None:
    deep = np.array([[0, 255, 256, 0x7FFF, 0xFF00, 0xFFFF]], np.uint16)
    assert read(encode(Image.fromarray(deep), kind)).rgb()[0, :, 0].tolist() == [0, 0, 1, 127, 255, 255]


def test_big_endian_sixteen_bits_are_read_too() -> None:
    deep = Image.fromarray(np.array([[0x1234, 0xABCD]], ">u2"))
    assert deep.mode == "I;16B"
    assert read(encode(deep, "TIFF")).rgb()[0, :, 0].tolist() == [0x12, 0xAB]


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
def test_sixteen_bits_of_colour_keep_their_upper_eight(suffix: str) -> None:
    deep = np.array([[[0x1100, 0x2200, 0x33FF]]], np.uint16)
    assert read(cv2.imencode(suffix, deep)[1].tobytes()).rgb()[0, 0].tolist() == [0x33, 0x22, 0x11]


@pytest.mark.parametrize(("kind", "ink"), [("TIFF", (0, 255, 255, 0)), ("JPEG", (0, 255, 255, 0))])
def test_cmyk_becomes_rgb(kind: str, ink: tuple[int, ...]) -> None:
    """JPEG holds it inverted, as Adobe writes it and everyone reads it."""
    data = encode(Image.new("CMYK", (16, 16), ink), kind)
    assert (b"Adobe" in data) == (kind == "JPEG")
    red, green, blue = colour(read(data))
    assert red >= 253
    assert max(green, blue) <= 2


def test_one_bit_a_pixel_becomes_black_and_white() -> None:
    image = Image.new("1", (2, 1), 0)
    image.putpixel((1, 0), 1)
    assert read(encode(image)).rgb()[0].tolist() == [[0] * 3, [255] * 3]


@pytest.mark.parametrize("mode", ["I", "F"])
def test_thirty_two_bits_a_channel_are_refused(mode: str) -> None:
    """Nobody can tell what is white in them."""
    assert "32 bits" in refused(encoded(Image.new(mode, (4, 4)), "TIFF")).message


def test_lab_colours_are_refused() -> None:
    assert "LAB" in refused(encoded(Image.new("LAB", (4, 4)), "TIFF")).message


# Frames


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "TIFF", "PNG"])
def test_of_several_frames_the_first_is_read_and_all_are_counted(kind: str) -> None:
    later = [Image.new("RGB", (20, 10), (0, 0, 50 * number)) for number in range(1, 4)]
    data = encode(Image.new("RGB", (20, 10), RED), kind, save_all=True, append_images=later)
    picture = read(data)
    assert np.abs(np.subtract(colour(picture), RED)).max() <= 3
    assert picture.frames == 4


def test_real_files_of_several_frames_are_counted() -> None:
    assert read((SKIMAGE / "multipage.tif").read_bytes()).frames == 2
    assert read((SKIMAGE / "no_time_for_that_tiny.gif").read_bytes()).frames == 24


def test_a_broken_later_page_does_not_cost_the_first() -> None:
    first = encode(Image.new("RGB", (8, 8), RED), "TIFF")
    chain = struct.unpack("<I", first[4:8])[0]
    end = chain + 2 + 12 * struct.unpack("<H", first[chain : chain + 2])[0]
    broken = first[:end] + struct.pack("<I", len(first)) + first[end + 4 :] + struct.pack("<HI", 0, 0)
    picture = read(broken)
    assert (colour(picture), picture.frames) == (RED, 2)


def test_a_chain_of_pages_that_bites_its_tail_is_counted_once() -> None:
    data = encode(Image.new("RGB", (8, 8), RED), "TIFF")
    chain = struct.unpack("<I", data[4:8])[0]
    end = chain + 2 + 12 * struct.unpack("<H", data[chain : chain + 2])[0]
    assert read(data[:end] + data[4:8] + data[end + 4 :]).frames == 1


def test_counting_millions_of_frames_ends_soon() -> None:
    frame = b"\x2c" + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x02\x44\x01\x00"
    head = b"GIF89a" + struct.pack("<HHBBB", 1, 1, 0x80, 0, 0) + bytes(6)
    start = time.process_time()
    assert read(head + frame * 2_000_000 + b";").frames == MAX_COUNTED
    assert time.process_time() - start < 2


def test_counting_stops_in_a_frame_of_millions_of_blocks() -> None:
    """Its pixels are there; the blocks behind them are empty talk."""
    pixel = b"\x2c" + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x02\x44\x01"
    head = b"GIF89a" + struct.pack("<HHBBB", 1, 1, 0x80, 0, 0) + bytes(6)
    start = time.process_time()
    assert read(head + pixel + b"\x01\x00" * 15_000_000 + b"\x00;").frames == 1
    assert time.process_time() - start < 1


# Upright

STORED = {
    1: lambda upright: upright,
    2: lambda upright: upright[:, ::-1],
    3: lambda upright: upright[::-1, ::-1],
    4: lambda upright: upright[::-1],
    5: lambda upright: upright.swapaxes(0, 1),
    6: lambda upright: np.rot90(upright, 1),
    7: lambda upright: upright[::-1, ::-1].swapaxes(0, 1),
    8: lambda upright: np.rot90(upright, -1),
}
"""How a camera stores an upright picture, by EXIF's orientation: 6 says that the first row is its right side."""


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", STORED)
def test_pictures_are_turned_upright(orientation: int, kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](quadrants())))
    options = {"lossless": True} if kind == "WEBP" else {}
    picture = read(encode(stored, kind, exif=exif, **options))
    assert np.array_equal(picture.rgb(), quadrants())
    assert (picture.info().width, picture.info().height) == (40, 20)


def test_a_jpeg_is_turned_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = Image.fromarray(np.ascontiguousarray(STORED[6](quadrants())))
    rgb = read(encode(stored, "JPEG", quality=95, exif=exif)).rgb()
    assert rgb.shape == (20, 40, 3)
    assert np.abs(rgb.astype(int) - quadrants()).mean() < 8


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_metadata_that_cannot_be_read_is_no_reason_to_refuse() -> None:
    data = encode(Image.new("RGB", (16, 16), RED), "JPEG", exif=b"Exif\0\0MM\0*garbage")
    assert read(data).frames == 1


# What is refused


def test_an_empty_file_is_refused() -> None:
    error = refused(vision_pb2.Image(encoded=b""))
    assert (field_of(error), error.code) == ("image.encoded", "INVALID_ARGUMENT")


def test_a_text_file_is_refused_by_the_name_of_its_field() -> None:
    error = refused(vision_pb2.Image(encoded=b"Dear Sir or Madam,\n" * 30), "images[3]")
    assert field_of(error) == "images[3].encoded"
    assert "not a picture" in error.message
    assert "0x" not in error.message


@pytest.mark.parametrize("data", [b"%PDF-1.4\n", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"P6 1 1 255 abc"])
def test_other_kinds_of_files_are_refused(data: bytes) -> None:
    assert "not a picture" in refused(vision_pb2.Image(encoded=data)).message


def test_a_picture_without_content_is_refused() -> None:
    assert field_of(refused(vision_pb2.Image())) == "image"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP"])
def test_a_truncated_file_is_refused(kind: str) -> None:
    noise = np.random.default_rng(7).integers(0, 255, (200, 200, 3), dtype=np.uint8)
    whole = encode(Image.fromarray(noise), kind)
    error = refused(vision_pb2.Image(encoded=whole[: len(whole) // 2]))
    assert field_of(error) == "image.encoded"
    assert "truncated" in error.message


@pytest.mark.parametrize(
    ("width", "height", "limit"),
    [
        (40_000, 40_000, "64 megapixels"),  # beyond what Pillow opens
        (10_000, 10_000, "64 megapixels"),  # beyond what it warns of
        (8_001, 8_000, "64 megapixels"),
        (16_385, 10, "16,384"),
        (10, 16_385, "16,384"),
    ],
)
def test_a_picture_that_is_too_large_is_refused_before_it_is_decoded(width: int, height: int, limit: str) -> None:
    """The file holds no pixels: decoding would say that it is truncated."""
    error = refused(vision_pb2.Image(encoded=png_header(width, height)))
    assert limit in error.message
    assert "truncated" not in error.message


def test_a_picture_at_the_limit_is_decoded() -> None:
    assert read(encode(Image.new("1", (16_384, 3_906)))).info().width == 16_384


@pytest.mark.filterwarnings("ignore")  # Pillow warns of what it sees
def test_no_byte_of_a_file_can_raise_anything_else() -> None:
    """Whatever a decoder makes of damaged bytes, the caller is told that they are damaged."""
    random = np.random.default_rng(3)
    kinds = ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP"]
    files = [encode(Image.fromarray(quadrants()), kind) for kind in kinds]
    for _ in range(300):
        data = bytearray(files[random.integers(len(files))])
        for _ in range(random.integers(1, 6)):
            data[random.integers(len(data))] = random.integers(256)
        try:
            picture = read(bytes(data))
        except BadInput:
            continue
        assert picture.rgb().shape[2] == 3


# Raw pixels


@pytest.mark.parametrize(
    ("layout", "pixels"),
    [
        (vision_pb2.PIXEL_FORMAT_RGB8, quadrants()),
        (vision_pb2.PIXEL_FORMAT_BGR8, quadrants()[:, :, ::-1]),
        (vision_pb2.PIXEL_FORMAT_RGBA8, np.dstack([quadrants(), np.full((20, 40), 255, np.uint8)])),
    ],
)
def test_raw_pixels_are_read(layout: vision_pb2.PixelFormat.ValueType, pixels: Pixels) -> None:
    raw = vision_pb2.RawImage(width=40, height=20, format=layout, pixels=pixels.tobytes())
    assert np.array_equal(read_picture(vision_pb2.Image(raw=raw), "image").rgb(), quadrants())


def test_raw_grey_and_transparent_pixels_are_read() -> None:
    grey = vision_pb2.RawImage(width=2, height=1, format=vision_pb2.PIXEL_FORMAT_GRAY8, pixels=b"\x00\x80")
    clear = vision_pb2.RawImage(width=1, height=1, format=vision_pb2.PIXEL_FORMAT_RGBA8, pixels=bytes(4))
    assert read_picture(vision_pb2.Image(raw=grey), "image").rgb().tolist() == [[[0] * 3, [128] * 3]]
    assert colour(read_picture(vision_pb2.Image(raw=clear), "image")) == (255, 255, 255)


@pytest.mark.parametrize(
    ("field", "raw"),
    [
        ("width", vision_pb2.RawImage(width=0, height=1, format=vision_pb2.PIXEL_FORMAT_RGB8)),
        ("height", vision_pb2.RawImage(width=1, height=-1, format=vision_pb2.PIXEL_FORMAT_RGB8)),
        ("width", vision_pb2.RawImage(width=16_385, height=1, format=vision_pb2.PIXEL_FORMAT_RGB8)),
        ("format", vision_pb2.RawImage(width=1, height=1, pixels=b"abc")),
        ("format", vision_pb2.RawImage(width=1, height=1, format=77, pixels=b"abc")),  # type: ignore[arg-type]
        ("pixels", vision_pb2.RawImage(width=2, height=2, format=vision_pb2.PIXEL_FORMAT_RGB8, pixels=bytes(11))),
        ("pixels", vision_pb2.RawImage(width=2, height=2, format=vision_pb2.PIXEL_FORMAT_GRAY8, pixels=bytes(5))),
    ],
)
def test_raw_pixels_that_do_not_fit_are_refused_by_their_field(field: str, raw: vision_pb2.RawImage) -> None:
    assert field_of(refused(vision_pb2.Image(raw=raw), "images[1]")) == f"images[1].raw.{field}"


def test_raw_pixels_over_the_limit_are_refused() -> None:
    raw = vision_pb2.RawImage(width=16_000, height=16_000, format=vision_pb2.PIXEL_FORMAT_GRAY8)
    assert "64 megapixels" in refused(vision_pb2.Image(raw=raw)).message


def test_the_pixels_do_not_keep_the_file() -> None:
    """A picture outlives the request that it came in."""
    with io.BytesIO(encode(Image.fromarray(quadrants()))) as file:
        picture = read(file.getvalue())
    assert np.array_equal(picture.rgb(), quadrants())
