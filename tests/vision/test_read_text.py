"""ReadText reads pages whose text is known, however they lie, and says where it stands."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from ortmesh.errors import BadInput, ModelFailed, Overloaded
from ortmesh.front.call import Call
from ortmesh.serving.models import Models
from ortmesh.vision.v1 import vision_pb2
from ortmesh_vision import read_text
from ortmesh_vision.decoder import Decoder
from ortmesh_vision.ocr_crops import Strip
from ortmesh_vision.ocr_page import finder_size
from ortmesh_vision.read_text import ReadText
from ortmesh_vision.settings import LineFinder
from tests.vision.samples import character_errors, draw_page, encoded, photo

pytestmark = pytest.mark.asyncio(loop_scope="session")

INVOICE = [
    "Invoice No. 48213 of 14 March 2026",
    "Bill to: Ms. Anna-Lena O'Brien, 17 Mill Lane",
    "Total due: $1,249.50 (incl. 19% VAT)",
    "IBAN DE89 3704 0044 0532 0130 00",
    "Contact: billing@example.com",
    "Thank you for your business!",
]
TABLE = [
    ["Item", "Qty", "Unit", "Total"],
    ["Pens", "1", "2.50", "2.50"],
    ["Books", "7", "11.00", "77.00"],
    ["Cups", "4", "3", "12"],
    ["Tea", "6", "9", "54"],
]


async def read(models: Models, call: Call, image: vision_pb2.Image, **fields: float) -> vision_pb2.ReadTextResponse:
    return await ReadText(models, Decoder())(vision_pb2.ReadTextRequest(image=image, **fields), call)  # type: ignore[arg-type]


def draw_table(size: int = 28) -> Image.Image:
    font = ImageFont.load_default(size)
    page = Image.new("RGB", (900, 60 + len(TABLE) * 2 * size), "white")
    draw = ImageDraw.Draw(page)
    for row, fields in enumerate(TABLE):
        for column, text in enumerate(fields):
            draw.text((40 + 220 * column, 30 + 2 * size * row), text, fill="black", font=font)
    return page


@pytest.mark.parametrize("size", [14, 28, 60])
async def test_a_clean_page_is_read_without_an_error(size: int, models: Models, call: Call) -> None:
    response = await read(models, call, encoded(draw_page(INVOICE, size)))
    assert response.text.splitlines() == INVOICE
    assert response.text == "\n".join(line.text for line in response.lines)
    assert min(line.score for line in response.lines) > 0.9
    assert response.model.name == "ppocr-v6-det"


@pytest.mark.parametrize("degrees", [5, 37, 90, 180, 270, 300])
async def test_a_page_is_read_however_it_lies(degrees: int, models: Models, call: Call) -> None:
    page = draw_page(INVOICE, 28).rotate(degrees, Image.Resampling.BICUBIC, expand=True, fillcolor="white")
    assert (await read(models, call, encoded(page))).text.splitlines() == INVOICE


async def test_a_chinese_page_is_read(models: Models, call: Call, data: Path) -> None:
    response = await read(models, call, vision_pb2.Image(encoded=(data / "page_chinese.png").read_bytes()))
    truth = (data / "page_chinese.txt").read_text(encoding="utf-8").strip()
    assert character_errors(truth, response.text) <= 0.02
    assert response.lines[2].text == "购买方名称：上海明远科技有限公司"


async def test_a_noisy_page_is_read(models: Models, call: Call, data: Path) -> None:
    response = await read(models, call, vision_pb2.Image(encoded=(data / "page_english_noisy.jpg").read_bytes()))
    truth = (data / "page_english_noisy.txt").read_text(encoding="utf-8").strip()
    assert character_errors(truth, response.text) <= 0.02


async def test_a_photographed_page_is_read(models: Models, call: Call) -> None:
    """Curved lines, uneven light, letters of 11 pixels; a person typed the truth."""
    lines = (await read(models, call, photo("page.png"))).text.splitlines()
    assert lines[:6] == [
        "Region-based segmentation",
        "Let us first determine markers of the coins and the",
        "background. These markers are pixels that we can label",
        "unambiguously as either object or background. Here,",
        "the markers are found at the two extreme parts of the",
        "histogram of grey values:",
    ]


@pytest.mark.parametrize("degrees", [0, 5, 90, 180])
async def test_a_table_is_read_row_by_row(degrees: int, models: Models, call: Call) -> None:
    """Its lone digits stay upright, its short words stand as their page does."""
    page = draw_table().rotate(degrees, Image.Resampling.BICUBIC, expand=True, fillcolor="white")
    response = await read(models, call, encoded(page))
    assert response.text.splitlines() == [field for row in TABLE for field in row]


@pytest.mark.parametrize("word", ["7", "1", "Cups", "EXIT"])
async def test_a_word_alone_is_read(word: str, models: Models, call: Call) -> None:
    page = Image.new("RGB", (300, 120), "white")
    ImageDraw.Draw(page).text((60, 30), word, fill="black", font=ImageFont.load_default(40))
    assert (await read(models, call, encoded(page))).text == word


@pytest.mark.parametrize("size", [(800, 600), (1, 1), (1, 16_384), (16_384, 3)])
async def test_an_empty_page_has_no_text(size: tuple[int, int], models: Models, call: Call) -> None:
    response = await read(models, call, encoded(Image.new("RGB", size, "white")))
    assert (response.text, len(response.lines)) == ("", 0)
    assert (response.image.width, response.image.height) == size


async def test_a_line_cut_out_closely_is_read(models: Models, call: Call) -> None:
    """A strip without a margin, 30 times longer than high."""
    page = draw_page([INVOICE[2] + " thank you for your business"], 24, margin=2)
    strip = page.crop(page.convert("L").point(lambda value: 255 - value).getbbox())
    assert (await read(models, call, encoded(strip))).text == INVOICE[2] + " thank you for your business"


async def test_a_huge_page_is_read(models: Models, call: Call) -> None:
    """Its pixels are averaged down before lines are cut from them; the answer is in its own pixels."""
    font = ImageFont.load_default(240)
    page = Image.new("L", (12_000, 1_200), 255)
    ImageDraw.Draw(page).text((7_000, 500), "Total due: $1,249.50", fill=0, font=font)
    response = await read(models, call, encoded(page))
    assert response.text == "Total due: $1,249.50"
    assert response.lines[0].box.x_min == pytest.approx(7_000, abs=120)
    assert response.image.width == 12_000


async def test_boxes_are_in_pixels_of_the_upright_picture(models: Models, call: Call) -> None:
    """The file lies on its side and says so; the font says where each line was drawn."""
    font = ImageFont.load_default(28)
    upright = draw_page(INVOICE, 28)
    exif = Image.Exif()
    exif[0x0112] = 6
    response = await read(models, call, encoded(upright.transpose(Image.Transpose.ROTATE_90), exif=exif))
    assert (response.image.width, response.image.height) == upright.size
    for number, (line, text) in enumerate(zip(response.lines, INVOICE, strict=True)):
        left, top, right, bottom = np.add(font.getbbox(text), (40, 40 + 56 * number) * 2)
        box = line.box
        assert [box.x_min, box.y_min, box.x_max, box.y_max] == pytest.approx([left, top, right, bottom], abs=14)
        assert box.normalized_x_max == pytest.approx(box.x_max / upright.width)
        assert box.normalized_y_min == pytest.approx(box.y_min / upright.height)
        first, second, third, _ = line.corners
        assert first.x < second.x
        assert third.y > first.y


async def test_corners_begin_where_the_text_begins(models: Models, call: Call) -> None:
    page = draw_page(INVOICE, 28)
    upright = await read(models, call, encoded(page))
    turned = await read(models, call, encoded(page.rotate(180)))
    for line, other in zip(upright.lines, turned.lines, strict=True):
        for corner, opposite in zip(line.corners, other.corners, strict=True):
            assert opposite.x == pytest.approx(page.width - corner.x, abs=8)
            assert opposite.y == pytest.approx(page.height - corner.y, abs=8)


async def test_boxes_stay_within_the_picture(models: Models, call: Call) -> None:
    page = draw_page(INVOICE[:2], 40, margin=0)
    for line in (await read(models, call, encoded(page))).lines:
        assert 0 <= line.box.normalized_x_min < line.box.normalized_x_max <= 1
        assert 0 <= line.box.normalized_y_min < line.box.normalized_y_max <= 1


async def test_pages_that_are_read_together_do_not_change_each_other(models: Models, call: Call) -> None:
    """Their lines share batches, and they are more than are worked on at once."""
    pages = [encoded(draw_page(INVOICE[first:], 24)) for first in (0, 1, 2, 3, 4, 5)]
    alone = [await read(models, call, page) for page in pages]
    together = await asyncio.gather(*(read(models, call, page) for page in pages))
    for one, other in zip(alone, together, strict=True):
        assert one.text == other.text
        assert [line.score for line in one.lines] == pytest.approx([line.score for line in other.lines], abs=1e-3)


async def test_a_full_queue_of_the_recognizer_fails_no_page_that_was_begun(
    models: Models, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another caller floods the last stage; its next call, and a page whose first stage is full, are refused."""
    recognizer, finder = models.find("ppocr-v6-rec")._pile, models.find("ppocr-v6-det")._pile
    assert recognizer is not None
    assert finder is not None
    page = encoded(draw_page(INVOICE, 24))
    for name in ("_max_items", "_max_bytes"):
        with monkeypatch.context() as patch:
            patch.setattr(recognizer, name, 1)
            flood = Call("/test.Test/Flood", pool=call.pool)
            model = models.named("ppocr-v6-rec", "", flood)
            line = {"image": np.zeros((1, 3, 48, 320), np.float32)}
            waiting = asyncio.gather(*(model(line, flood) for _ in range(40)))
            await asyncio.sleep(0)
            with pytest.raises(Overloaded):
                await model.many([line, line], Call("/test.Test/New", pool=call.pool))
            assert (await read(models, call, page)).text.splitlines() == INVOICE
            await waiting
            flood.end()
    monkeypatch.setattr(finder, "_max_items", 0)
    with pytest.raises(Overloaded):
        await read(models, Call("/test.Test/Other", pool=call.pool), page)


async def test_a_card_that_names_a_model_which_is_not_there_says_so(
    models: Models, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    finder = models.find("ppocr-v6-det")
    changed = {**finder.card.preprocessing, "orienter": "ppocr-v5-cls"}
    monkeypatch.setattr(finder, "card", finder.card.model_copy(update={"preprocessing": changed}))
    with pytest.raises(ModelFailed, match=r"ppocr-v6-det@1.*orienter: there is no model 'ppocr-v5-cls'.*near names"):
        await read(models, call, encoded(draw_page(INVOICE, 24)))


async def test_a_page_is_sent_to_the_recognizer_in_portions() -> None:
    """Of about 240 line heights, in order; nothing is lost or sent twice."""

    def strip(aspect: int) -> Strip:
        return Strip(np.zeros((4, 2), np.float32), np.zeros((10, 10 * aspect, 3), np.uint8))

    strips = [strip(aspect) for aspect in (1, 5, 20, 100, 100, 100, 300, 1, 2)]
    portions = read_text.portions(strips)
    assert [each for portion in portions for each in portion] == strips
    assert [len(portion) for portion in portions] == [5, 1, 3]
    assert read_text.portions([]) == []


async def test_of_two_readings_the_better_one_is_kept() -> None:
    corners = np.zeros((4, 2), np.float32)
    lines = [read_text.Line(corners, text, score) for text, score in (("sdno", 0.6), ("total", 0.9), ("6", 0.8))]
    others = {0: read_text.Line(corners, "Cups", 0.99), 2: read_text.Line(corners, "9", 0.7)}
    assert [line.text for line in read_text.better(lines, others)] == ["Cups", "total", "6"]


async def test_lines_below_the_least_score_are_left_out(models: Models, call: Call) -> None:
    page = encoded(draw_page(INVOICE, 28))
    scores = sorted(line.score for line in (await read(models, call, page)).lines)
    kept = await read(models, call, page, min_score=(scores[2] + scores[3]) / 2)
    assert sorted(line.score for line in kept.lines) == pytest.approx(scores[3:], abs=1e-6)


async def test_a_least_score_out_of_range_is_refused(models: Models, call: Call) -> None:
    with pytest.raises(BadInput, match=r"^min_score: is 1\.1; .*0 means 0\.5"):
        await read(models, call, encoded(draw_page(INVOICE[:1])), min_score=1.1)


async def test_a_bad_picture_is_named_by_its_field(models: Models, call: Call) -> None:
    with pytest.raises(BadInput, match=r"^image\.encoded: "):
        await read(models, call, vision_pb2.Image(encoded=b"hello"))


@pytest.mark.parametrize(
    ("page", "expected"),
    [
        ((864, 1792), (864, 1792)),
        ((200, 400), (736, 1472)),  # enlarged to letters that the finder sees
        ((40, 800), (96, 2048)),  # a strip: its length is the bound
        ((5120, 2560), (2048, 1024)),
        ((1, 16_384), (32, 2048)),
        ((1, 1), (736, 736)),
    ],
)
async def test_pages_get_sides_that_the_finder_takes(page: tuple[int, int], expected: tuple[int, int]) -> None:
    finder = LineFinder(mean=(0, 0, 0), std=(1, 1, 1), recognizer="r", orienter="o")
    assert finder_size(*page, finder) == expected
