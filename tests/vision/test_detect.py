"""Detect finds the faces of real pictures, says where they are, and finds none where there are none."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from PIL import Image

from ortmesh.common.v1.common_pb2 import Box
from ortmesh.errors import BadInput, ModelFailed, NotFound
from ortmesh.front.call import Call
from ortmesh.serving.models import Models
from ortmesh.serving.warmup import Mode
from ortmesh.vision.v1 import vision_pb2
from ortmesh_vision.decoder import Decoder
from ortmesh_vision.detect import Detect
from ortmesh_vision.detect_input import view_size
from ortmesh_vision.settings import Detector
from tests.vision.samples import SKIMAGE, encoded, photo

pytestmark = pytest.mark.asyncio(loop_scope="session")

Rectangle = tuple[float, float, float, float]

FACE = (181, 60, 270, 179)
"""The astronaut's, from her forehead under the hair to the chin, measured by eye."""
LANDMARKS = [(203, 101), (246, 103), (223, 124), (203, 141), (244, 141)]
"""Her right eye, left eye, tip of the nose, right and left corner of the mouth, measured by eye."""


def astronaut(side: int = 512) -> Image.Image:
    """The photograph at a size; the face is a quarter as high."""
    with Image.open(SKIMAGE / "astronaut.png") as opened:
        return opened.convert("RGB").resize((side, side), Image.Resampling.LANCZOS)


async def detect(models: Models, call: Call, image: vision_pb2.Image, **fields: float) -> vision_pb2.DetectResponse:
    return await Detect(models, Decoder())(vision_pb2.DetectRequest(image=image, **fields), call)  # type: ignore[arg-type]


def rectangle(box: Box) -> Rectangle:
    return box.x_min, box.y_min, box.x_max, box.y_max


def shared(one: Rectangle, other: Rectangle) -> float:
    """What two rectangles share, by what they cover together."""

    def area(left: float, top: float, right: float, bottom: float) -> float:
        return max(right - left, 0) * max(bottom - top, 0)

    within = area(max(one[0], other[0]), max(one[1], other[1]), min(one[2], other[2]), min(one[3], other[3]))
    return within / (area(*one) + area(*other) - within)


def moved(x: float, y: float, scale: float) -> Rectangle:
    """The face of the astronaut pasted at a place and a scale."""
    left, top, right, bottom = (side * scale for side in FACE)
    return left + x, top + y, right + x, bottom + y


async def test_a_face_is_found_with_its_box_and_landmarks(models: Models, call: Call) -> None:
    response = await detect(models, call, photo("astronaut.png"))
    (face,) = response.detections
    assert (face.name, face.index) == ("face", 0)
    assert face.score == pytest.approx(0.93, abs=0.02)
    assert shared(rectangle(face.box), FACE) > 0.8
    for point, (x, y) in zip(face.landmarks, LANDMARKS, strict=True):
        assert (point.x, point.y) == pytest.approx((x, y), abs=6)
    assert face.box.normalized_x_min == pytest.approx(face.box.x_min / 512)
    assert face.box.normalized_y_max == pytest.approx(face.box.y_max / 512)
    assert (response.model.name, response.image.width, response.image.height) == ("centerface", 512, 512)


async def test_a_face_in_profile_without_colour_is_found(models: Models, call: Call) -> None:
    (face,) = (await detect(models, call, photo("camera.png"))).detections
    assert shared(rectangle(face.box), (202, 119, 258, 197)) > 0.8


@pytest.mark.parametrize("name", ["chelsea.png", "coffee.png", "rocket.jpg", "page.png", "coins.png", "moon.png"])
async def test_a_picture_without_faces_has_none(name: str, models: Models, call: Call) -> None:
    """A cat, a cup, a rocket, a page, Greek heads on coins, the moon."""
    assert not (await detect(models, call, photo(name))).detections


async def test_every_face_of_a_group_is_found_where_it_is(models: Models, call: Call) -> None:
    places = [(0, 0, 1.0), (520, 0, 0.5), (800, 0, 0.3), (520, 260, 0.75), (0, 520, 0.6), (320, 640, 0.2)]
    group = Image.new("RGB", (960, 860), (90, 110, 130))
    for x, y, scale in places:
        group.paste(astronaut(round(512 * scale)), (x, y))
    response = await detect(models, call, encoded(group))
    assert len(response.detections) == len(places)
    for place in places:
        assert max(shared(rectangle(face.box), moved(*place)) for face in response.detections) > 0.6
    scores = [face.score for face in response.detections]
    assert scores == sorted(scores, reverse=True)


@pytest.mark.parametrize("orientation", [2, 3, 6, 8])
async def test_boxes_lie_in_the_upright_picture(orientation: int, models: Models, call: Call) -> None:
    """The file lies on its side, or is mirrored, and says so."""
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        6: Image.Transpose.ROTATE_90,
        8: Image.Transpose.ROTATE_270,
    }
    upright = Image.new("RGB", (512, 700), "grey")
    upright.paste(astronaut(), (0, 150))
    exif = Image.Exif()
    exif[0x0112] = orientation
    response = await detect(models, call, encoded(upright.transpose(undo[orientation]), exif=exif))
    (face,) = response.detections
    assert (response.image.width, response.image.height) == (512, 700)
    assert shared(rectangle(face.box), moved(0, 150, 1)) > 0.8


async def test_right_is_the_owners_in_a_mirror_too(models: Models, call: Call) -> None:
    """The first eye is the one at the left of the picture, whoever looks out of it."""
    (face,) = (await detect(models, call, encoded(astronaut().transpose(Image.Transpose.FLIP_LEFT_RIGHT)))).detections
    right_eye, left_eye, nose, right_mouth, left_mouth = face.landmarks
    assert right_eye.x < nose.x < left_eye.x
    assert right_mouth.x < left_mouth.x
    assert right_eye.y < nose.y < right_mouth.y


@pytest.mark.parametrize("size", [(1, 1), (1, 16_384), (16_384, 3), (33, 31), (4000, 3000)])
async def test_a_picture_of_any_size_without_faces_has_none(size: tuple[int, int], models: Models, call: Call) -> None:
    response = await detect(models, call, encoded(Image.new("RGB", size, "grey")))
    assert not response.detections
    assert (response.image.width, response.image.height) == size


@pytest.mark.parametrize("side", [51, 100, 333, 4096])
async def test_a_face_is_found_at_any_size_of_the_picture(side: int, models: Models, call: Call) -> None:
    (face,) = (await detect(models, call, encoded(astronaut(side), "JPEG", quality=95))).detections
    assert shared(rectangle(face.box), moved(0, 0, side / 512)) > 0.65


async def test_a_box_is_cut_at_the_edge(models: Models, call: Call) -> None:
    (face,) = (await detect(models, call, encoded(astronaut().crop((170, 100, 512, 512))))).detections
    assert 0 <= face.box.y_min <= 4
    assert face.box.x_min == pytest.approx(11, abs=8)
    assert min(face.box.normalized_x_min, face.box.normalized_y_min) >= 0


async def test_the_least_score_and_the_most_results_are_kept(models: Models, call: Call) -> None:
    pair = Image.new("RGB", (1024, 512), "grey")
    pair.paste(astronaut(), (0, 0))
    pair.paste(astronaut(256), (600, 100))
    image = encoded(pair)
    best, second = (await detect(models, call, image)).detections
    assert best.score > second.score
    assert len((await detect(models, call, image, max_results=1)).detections) == 1
    between = (best.score + second.score) / 2
    (face,) = (await detect(models, call, image, min_score=between)).detections
    assert face.score == pytest.approx(best.score, abs=1e-3)
    doubtful = (await detect(models, call, image, min_score=1e-6, max_results=1000)).detections
    assert 100 < len(doubtful) <= 1000
    assert all(0 <= face.box.normalized_x_min <= face.box.normalized_x_max <= 1 for face in doubtful)


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [({"max_results": 1001}, "max_results"), ({"max_results": -1}, "max_results"), ({"min_score": 1.5}, "min_score")],
)
async def test_what_is_asked_for_has_bounds(fields: dict[str, float], wrong: str, models: Models, call: Call) -> None:
    with pytest.raises(BadInput, match=f"^{wrong}: "):
        await detect(models, call, photo("astronaut.png"), **fields)


async def test_a_bad_picture_is_named_by_its_field(models: Models, call: Call) -> None:
    with pytest.raises(BadInput, match=r"^image\.encoded: "):
        await detect(models, call, vision_pb2.Image(encoded=b"hello"))


async def test_an_unknown_model_is_answered_with_near_ones(models: Models, call: Call) -> None:
    with pytest.raises(NotFound, match="centerface"):
        await Detect(models, Decoder())(vision_pb2.DetectRequest(model="centreface", image=photo("camera.png")), call)


@pytest.mark.parametrize(
    ("update", "named"),
    [({"preprocessing": {"stride": 0}}, "stride"), ({"labels": "none.txt"}, r"'none\.txt'.*missing")],
)
async def test_a_card_that_is_wrong_says_what(
    update: dict[str, object], named: str, models: Models, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = models.choose("detect", "", call)
    monkeypatch.setattr(model, "card", model.card.model_copy(update=update))
    with pytest.raises(ModelFailed, match=f"centerface@1.*{named}"):
        await detect(models, call, photo("camera.png"))


async def test_pictures_of_one_shape_share_batches_and_do_not_change_each_other(models: Models, call: Call) -> None:
    """Whatever their sizes: all but one come out at the same."""
    images = [encoded(astronaut(side)) for side in (100, 200, 256, 512)]
    images.append(encoded(Image.new("RGB", (40, 40), "grey")))
    assert models.choose("detect", "", call).mode is Mode.TOGETHER
    alone = [await detect(models, call, image) for image in images]
    for _ in range(2):
        together = await asyncio.gather(*(detect(models, call, image) for image in images))
        for one, other in zip(alone, together, strict=True):
            assert len(one.detections) == len(other.detections)
            for face, same in zip(one.detections, other.detections, strict=True):
                assert face.score == pytest.approx(same.score, abs=1e-3)
                assert rectangle(face.box) == pytest.approx(rectangle(same.box), abs=0.5)


async def test_the_model_gives_one_picture_the_same_maps_within_a_batch(models: Models, call: Call) -> None:
    model = models.choose("detect", "", call)
    pixels = np.asarray(astronaut(256)).transpose(2, 0, 1)[None]
    alone = await model({"image": pixels}, call)
    batch = await model({"image": np.concatenate([255 - pixels, pixels, pixels // 2])}, call)
    for name, maps in alone.items():
        np.testing.assert_allclose(batch[name][1], maps[0], atol=1e-3)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((640, 480), (640, 480)),
        ((4000, 3000), (1280, 960)),
        ((6000, 4500), (1280, 960)),
        ((3000, 4000), (960, 1280)),
        ((64, 32), (256, 128)),
        ((1, 1), (256, 256)),
        ((16_384, 3), (1280, 1)),
    ],
)
async def test_pictures_are_seen_within_bounds(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert view_size(*size, Detector()) == expected
