"""Classify names what real photographs show, however they are sent."""

from __future__ import annotations

import math

import numpy as np
import pytest
from PIL import Image

from ortmesh.errors import BadInput, ModelFailed, NotFound
from ortmesh.front.call import Call
from ortmesh.serving.cards import Card
from ortmesh.serving.models import Models
from ortmesh.serving.needs import read_lines, settings
from ortmesh.vision.v1 import vision_pb2
from ortmesh_vision.centre import centre_of
from ortmesh_vision.classify import Classify, best
from ortmesh_vision.decoder import Decoder
from ortmesh_vision.pictures import Picture, read_picture
from ortmesh_vision.settings import Centre
from tests.vision.samples import encoded, photo, quadrants

session_loop = pytest.mark.asyncio(loop_scope="session")
LITE0 = Centre(mean=(127, 127, 127), std=(128, 128, 128))


def request(image: vision_pb2.Image, **fields: object) -> vision_pb2.ClassifyRequest:
    return vision_pb2.ClassifyRequest(image=image, **fields)  # type: ignore[arg-type]


@session_loop
@pytest.mark.parametrize(
    ("name", "expected", "least"),
    [
        ("coffee.png", {"espresso"}, 0.9),
        ("camera.png", {"tripod"}, 0.8),
        ("rocket.jpg", {"missile", "projectile"}, 0.15),
        ("chelsea.png", {"tabby cat", "Egyptian Mau", "a cat having a striped coat"}, 0.15),
        ("motorcycle_left.png", {"moped", "motor scooter"}, 0.15),
    ],
)
async def test_photographs_are_named(name: str, expected: set[str], least: float, models: Models, call: Call) -> None:
    """The best label is what a person sees."""
    response = await Classify(models, Decoder())(request(photo(name)), call)
    assert response.labels[0].name in expected
    assert response.labels[0].score > least


@session_loop
async def test_the_answer_says_who_answered_and_what_was_read(models: Models, call: Call) -> None:
    response = await Classify(models, Decoder())(request(photo("coffee.png")), call)
    assert (response.model.name, response.model.version) == ("efficientnet-lite0", "1")
    assert response.image == vision_pb2.ImageInfo(width=600, height=400, frames=1)
    assert len(response.labels) == 5
    labels = read_lines(models.find("efficientnet-lite0").folder / "labels.txt")
    assert response.labels[0].index == labels.index("espresso")


@session_loop
async def test_how_a_picture_is_sent_does_not_matter(models: Models, call: Call) -> None:
    """A file, its pixels, the pixels in OpenCV's order, and the file lying on its side with a note that says so."""
    whole = read_picture(photo("coffee.png"), "image")
    rgb = whole.rgb()
    raw = {"width": 600, "height": 400}
    exif = Image.Exif()
    exif[0x0112] = 6
    pictures = [
        photo("coffee.png"),
        vision_pb2.Image(raw=vision_pb2.RawImage(**raw, format=vision_pb2.PIXEL_FORMAT_RGB8, pixels=rgb.tobytes())),
        vision_pb2.Image(
            raw=vision_pb2.RawImage(**raw, format=vision_pb2.PIXEL_FORMAT_BGR8, pixels=rgb[:, :, ::-1].tobytes())
        ),
        encoded(whole.image.transpose(Image.Transpose.ROTATE_90), exif=exif),
    ]
    answers = [await Classify(models, Decoder())(request(picture), call) for picture in pictures]
    assert all(answer == answers[0] for answer in answers)


@session_loop
async def test_all_labels_have_scores_that_sum_to_one(models: Models, call: Call) -> None:
    response = await Classify(models, Decoder())(request(photo("rocket.jpg"), max_results=1000), call)
    scores = [label.score for label in response.labels]
    assert len({label.index for label in response.labels}) == 1000
    assert scores == sorted(scores, reverse=True)
    assert sum(scores) == pytest.approx(1, abs=1e-5)


@session_loop
async def test_models_are_chosen_by_name(models: Models, call: Call) -> None:
    classify = Classify(models, Decoder())
    named = await classify(request(photo("coffee.png"), model="efficientnet-lite0@1", max_results=1), call)
    assert [label.name for label in named.labels] == ["espresso"]
    with pytest.raises(NotFound, match="efficientnet-lite0"):
        await classify(request(photo("coffee.png"), model="eficientnet-lite0"), call)
    with pytest.raises(BadInput, match="does not classify"):
        await classify(request(photo("coffee.png"), model="ppocr-v6-det"), call)


@session_loop
async def test_a_file_of_labels_that_is_missing_is_named(
    models: Models, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = models.find("efficientnet-lite0")
    monkeypatch.setattr(model, "card", model.card.model_copy(update={"labels": "none.txt"}))
    with pytest.raises(ModelFailed, match=r"efficientnet-lite0@1.*'none\.txt'.*missing"):
        await Classify(models, Decoder())(request(photo("coffee.png")), call)


@session_loop
async def test_a_model_without_labels_answers_with_numbers(
    models: Models, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = models.find("efficientnet-lite0")
    monkeypatch.setattr(model, "card", model.card.model_copy(update={"labels": None}))
    first = (await Classify(models, Decoder())(request(photo("coffee.png")), call)).labels[0]
    assert first.name == str(first.index)


@session_loop
async def test_a_bad_picture_is_named_by_its_field(models: Models, call: Call) -> None:
    with pytest.raises(BadInput, match=r"^image\.encoded: "):
        await Classify(models, Decoder())(request(vision_pb2.Image(encoded=b"hello")), call)


def test_labels_come_best_first_and_equal_ones_by_index() -> None:
    labels = best(np.log(np.array([0.1, 0.35, 0.2, 0.35], np.float32)), ["a", "b", "c"], 3)
    assert [(label.name, label.index) for label in labels] == [("b", 1), ("3", 3), ("c", 2)]
    assert [label.score for label in labels] == pytest.approx([0.35, 0.35, 0.2])


def test_huge_logits_do_not_overflow() -> None:
    labels = best(np.array([1e4, 0, -1e4], np.float32), ["a", "b", "c"], 3)
    assert [label.score for label in labels] == [1, 0, 0]
    assert all(math.isfinite(label.score) for label in labels)


@pytest.mark.parametrize("size", [(640, 427), (300, 451), (224, 224), (97, 101)])
def test_the_centre_is_what_resizing_all_and_cutting_gives(size: tuple[int, int]) -> None:
    image = read_picture(photo("coffee.png"), "image").image.resize(size)
    scale = 256 / min(size)
    whole = image.resize((round(size[0] * scale), round(size[1] * scale)), Image.Resampling.BICUBIC)
    left, top = (whole.width - 224) // 2, (whole.height - 224) // 2
    expected = np.asarray(whole.crop((left, top, left + 224, top + 224)), np.float32)
    got = centre_of(Picture(image), LITE0)[0].transpose(1, 2, 0) * 128 + 127
    apart = np.abs(got - expected)  # Pillow resizes rows or columns first, whichever is cheaper, and rounds between
    assert apart.mean() < 0.2
    assert apart.max() <= 4


def test_channels_go_in_the_order_of_the_card() -> None:
    red = Picture(Image.new("RGB", (300, 300), (255, 0, 0)))
    assert centre_of(red, LITE0)[0, :, 0, 0].tolist() == [1, -127 / 128, -127 / 128]
    swapped = LITE0.model_copy(update={"channels": "BGR"})
    assert centre_of(red, swapped)[0, :, 0, 0].tolist() == [-127 / 128, -127 / 128, 1]


@pytest.mark.parametrize("size", [(1, 1), (16_384, 1), (3, 16_000)])
def test_pictures_of_any_shape_have_a_centre(size: tuple[int, int]) -> None:
    assert centre_of(Picture(Image.new("RGB", size, "white")), LITE0).shape == (1, 3, 224, 224)


def test_a_card_whose_constants_are_wrong_says_which() -> None:
    card = Card.model_validate(
        {"name": "mine", "family": "vision", "preprocessing": {"mean": [1, 2], "std": [1, 1, 1]}}
    )
    with pytest.raises(ModelFailed, match=r"mine@1.*mean"):
        settings(card, Centre)


def test_quadrants_keep_their_places() -> None:
    pixels = centre_of(Picture(Image.fromarray(quadrants())), LITE0)[0].transpose(1, 2, 0) * 128 + 127
    assert np.abs(pixels[10, 10] - (255, 0, 0)).max() < 1
    assert np.abs(pixels[-10, -10] - (255, 255, 255)).max() < 1
