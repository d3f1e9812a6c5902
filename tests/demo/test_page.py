"""The page needs nothing from anywhere, and shows what came as text, never as markup."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from html.parser import HTMLParser

import pytest

from demo import inputs, page
from demo.answers import (
    Answers,
    Came,
    Classified,
    Compared,
    Detected,
    Dictated,
    Found,
    Line,
    Ranked,
    ReadPage,
    Recognized,
    Refused,
    Searched,
    SpeechFound,
    Spoken,
    Tensors,
    Thing,
    Told,
    VoicesCompared,
    Written,
)
from demo.models import Models

CAME = Came("Service.Method", "model@1", 0.0123)
ADDRESSES = ("src", "href", "srcset", "poster", "action")
VOID = {"meta", "img", "br"}


class Reader(HTMLParser):
    """Collects a page's addresses and texts, and checks that its elements nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.texts: list[str] = []
        self.elements: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        self.addresses += [
            value or "" for name, value in attrs if name in ("src", "href", "srcset", "poster", "action")
        ]
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


@pytest.fixture(scope="module")
def answers() -> Answers:
    pictures, sheet, speech = inputs.pictures(), inputs.english_page(), inputs.recordings()[0]
    face = Thing("<b>face</b>", 0.93, (10.0, 20.0, 40.0, 60.0), ((25.0, 30.0),))
    corners = ((1.0, 1.0), (9.0, 1.0), (9.0, 5.0), (1.0, 5.0))
    sent, got = "image FP32 [1, 3, 224, 224]", ("logits FP32 [1, 1000]",)
    return Answers(
        classified=(Classified(pictures[0], (("espresso", 0.95), ("<i>cup</i>", 0.01)), CAME),),
        compared=Compared(pictures, ((1.0, 0.5, 0.2, -0.1),) * 4, 1280, CAME),
        detected=(Detected(pictures[1], (face,), CAME), Detected(pictures[2], (), CAME)),
        read=(ReadPage(sheet, (Line('HARBOUR & "LIGHT"', 0.99, corners),), CAME),),
        recognized=(Recognized(speech, "<script>alert(1)</script>", 0.9, CAME),),
        spoken=Spoken(speech, 0.02, "<u>ticket</u>", CAME),
        dictated=Dictated(inputs.talk(), ((1.5, "the <s>ship", False), (2.0, "The <s>sheep.", True)), CAME),
        speech_found=SpeechFound(inputs.talk(), ((1.0, 5.5), (7.25, 9.0)), CAME),
        voices=VoicesCompared(inputs.voices(), ((1.0, 0.9, 0.6),) * 3, 256, CAME),
        ranked=Ranked("How long?", (("four weeks", 0.5), ("soup", -0.02)), 384, CAME),
        told=Told((("<p>Guten Tag</p>", "German", 0.98),), CAME),
        searched=Searched("Dear <Ada>,\nwrite!", (Found("GIVEN_NAME", "<Ada>", 5, 10, "model"),), CAME),
        written=(
            Written("Who <goes>?", "", "<em>Ada</em>.", 5, 0.03, CAME),
            Written("A person.", "JSON with name", '{"name": "<Ada>"}', 9, 0.03, CAME),
        ),
        tensors=Tensors(pictures[0], "tritonclient", sent, got, "x", CAME),
        refused=(Refused("a letter", "INVALID_ARGUMENT", "INVALID_FIELD", "no picture", ("image.encoded",), CAME),),
    )


def rendered(answers: Answers) -> str:
    return page.render(answers, Models((), {"gone": "the index <b>does not answer</b>"}), datetime(2026, 1, 2))


def test_everything_is_inside(answers: Answers) -> None:
    text = rendered(answers)
    read = Reader(text)
    assert len(read.addresses) == 18  # 4 pictures, 8 thumbnails, 6 recordings
    assert all(address.startswith("data:") for address in read.addresses)
    assert not {"link", "script", "iframe", "object"} & set(read.elements)
    assert "url(" not in text
    assert "@import" not in text


def test_what_came_is_text(answers: Answers) -> None:
    texts = Reader(rendered(answers)).texts
    for text in (
        "<i>cup</i>",
        "<p>Guten Tag</p>",
        "<u>ticket</u>",
        "The <s>sheep.",
        "<em>Ada</em>.",
        '{"name": "<Ada>"}',
        "5 tokens, the first after 30 ms",
        "<script>alert(1)</script>",
        'HARBOUR & "LIGHT"',
        "12 ms",
    ):
        assert any(text in each for each in texts), text
    assert any("the index <b>does not answer</b>" in each for each in texts)


def test_each_line_has_its_box(answers: Answers) -> None:
    assert 'points="1.0,1.0 9.0,1.0 9.0,5.0 1.0,5.0"' in rendered(answers)


def test_each_face_has_its_box_and_its_points(answers: Answers) -> None:
    text = rendered(answers)
    assert '<rect x="10.0" y="20.0" width="30.0" height="40.0">' in text
    assert '<circle cx="25.0" cy="30.0" r="1.0"/>' in text
    assert "<p>1 found: 0.93 at 10, 20</p>" in text
    assert "<p>none</p>" in text


def test_each_stretch_of_speech_has_its_bar(answers: Answers) -> None:
    text = rendered(answers)
    assert '<rect x="1.00" width="4.50" height="1">' in text
    assert '<rect x="7.25" width="1.75" height="1">' in text
    assert "1.0 to 5.5, 7.2 to 9.0" in text


def test_each_entity_is_marked_in_its_text(answers: Answers) -> None:
    marked = 'Dear <mark>&lt;Ada&gt; <small class="model">GIVEN_NAME</small></mark>,\nwrite!'
    assert marked in rendered(answers)


def test_what_no_model_was_there_for_is_left_out(answers: Answers) -> None:
    text = rendered(
        replace(
            answers,
            recognized=(),
            spoken=None,
            dictated=None,
            speech_found=None,
            voices=None,
            ranked=None,
            told=None,
            searched=None,
            written=(),
        )
    )
    assert "SpeechService" not in text
    assert "NlpService" not in text
    Reader(rendered(Answers()))
