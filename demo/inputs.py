"""Inputs: what is sent: pictures of scikit-image, pages with a known text, synthesized speech. Stage: inputs.

Nothing is fetched: all of it comes from packages that are installed, or from `demo/data`.
"""

from __future__ import annotations

import io
import wave
from dataclasses import dataclass
from importlib.resources import files

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

SEED = 7
"""Fixes the noise in the synthesized speech, so that it is the same on every run."""

DEEPER = 0.75
"""So much lower is the pitch of the other voice, and so much longer its throat."""

SENTENCES = (
    "A mesh of small services answers for pictures, speech and text.",
    "The last ferry to the island leaves in the evening and comes back before dark.",
)

SPOKEN = "Dr. Lindqvist paid $12.50 for 2 tickets at 3:45 pm on November 26th, 2026."
"""To be spoken by the mesh."""

PAUSES = (1.0, 1.8, 1.2)
"""Seconds of silence before each sentence of the talk and behind the last."""

ENGLISH_LINES = (
    "HARBOUR LIGHT FERRY",
    "Daily to the island, April to October",
    "Departs 7:30, 11:15 and 16:45",
    "Adults 12.50 EUR, children free",
    "Bicycles travel on the lower deck.",
)
CHINESE_LINES = (
    "市立图书馆",
    "开放时间：上午九点至晚上八点",
    "每人最多可借十本书，借期四周",
    "请保持安静，谢谢合作",
)

QUESTION = "How long can I keep a borrowed book?"
PASSAGES = (
    "Loans last four weeks and can be renewed twice.",
    "The reading room closes at eight in the evening.",
    "Our café serves soup and sandwiches until three.",
    "Return what you have taken out within a month.",
    "Bicycles may be left in the courtyard.",
)

GREETINGS = (
    "Good morning, the library opens at nine.",
    "Guten Morgen, die Bibliothek öffnet um neun.",
    "Bonjour, la bibliothèque ouvre à neuf heures.",
    "Buenos días, la biblioteca abre a las nueve.",
    "Доброе утро, библиотека открывается в девять.",
    "おはようございます。図書館は九時に開きます。",
    "图书馆早上九点开门，欢迎您来。",
    "صباح الخير، تفتح المكتبة في التاسعة.",
)

PROMPTS = ("What is the capital of France?", "Why do bees make honey? Answer in one sentence.")
FORMED = "Invent a person who takes the ferry: name, age and where to."
"""To be answered in the form of `PERSON`."""
PERSON_FIELDS = ("name", "age", "destination")
PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 30},
        "age": {"type": "integer", "minimum": 18, "maximum": 99},
        "destination": {"type": "string", "maxLength": 30},
    },
    "required": PERSON_FIELDS,
    "additionalProperties": False,
}

LETTER = """Dear Ms. Whitfield,

your parcel is at 48 Harbor Road, Portland 97205, until Friday. Please write to j.lindqvist@harbour-ferry.example.com or
call +1 503-555-0142. We paid the deposit back to DE89 3704 0044 0532 0130 00, as the card 4111 1111 1111 1111 has
expired.

Ingrid Lindqvist
"""
"""Made up: the numbers of the account and the card are their makers' own examples."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture file and where it comes from."""

    title: str
    encoded: bytes
    """A JPEG or PNG file."""
    width: int
    height: int
    source: str
    """Who made it, under which licence."""

    @property
    def media_type(self) -> str:
        """`image/png` or `image/jpeg`."""
        return "image/png" if self.encoded.startswith(b"\x89PNG") else "image/jpeg"


@dataclass(frozen=True, slots=True)
class Page:
    """A picture of text, and the text."""

    picture: Picture
    lines: tuple[str, ...]
    language: str
    """As HTML's `lang` wants it."""


@dataclass(frozen=True, slots=True)
class Recording:
    """Speech and what is said in it."""

    text: str
    encoded: bytes
    """A WAV file: 16 bits, one channel."""
    seconds: float
    loudness: tuple[float, ...]
    """The envelope, in [0, 1], for drawing."""


@dataclass(frozen=True, slots=True)
class Talk:
    """Sentences with pauses between them."""

    recording: Recording
    spoken: tuple[tuple[float, float], ...]
    """Seconds between which there is a sentence."""


@dataclass(frozen=True, slots=True)
class Voice:
    """Somebody who speaks."""

    title: str
    recording: Recording


@dataclass(frozen=True, slots=True)
class Inputs:
    """All that the demo sends."""

    pictures: tuple[Picture, ...]
    """To be classified and compared; the last two are views of the same thing."""
    portraits: tuple[Picture, ...]
    """To find faces in."""
    pages: tuple[Page, ...]
    recordings: tuple[Recording, ...]
    talk: Talk
    voices: tuple[Voice, ...]
    """To be compared; the last one is another's."""


def make() -> Inputs:
    """Reads and makes the inputs. ImportError names the package that is missing."""
    return Inputs(pictures(), portraits(), (english_page(), chinese_page()), recordings(), talk(), voices())


def pictures() -> tuple[Picture, ...]:
    """Four pictures, two of them of one cat."""
    from skimage import data

    cat = Image.fromarray(data.chelsea())
    width, height = cat.size
    closer = cat.crop((width // 5, 0, width * 4 // 5, height)).transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return (
        _jpeg("coffee", Image.fromarray(data.coffee()), "Rachel Michetti, CC0"),
        _jpeg("rocket", Image.fromarray(data.rocket()), "SpaceX, public domain"),
        _jpeg("cat", cat, "Stéfan van der Walt, CC0"),
        _jpeg("the cat, closer and mirrored", closer, "Stéfan van der Walt, CC0"),
    )


def portraits() -> tuple[Picture, ...]:
    """A group that is one person six times, and a man in profile."""
    from skimage import data

    astronaut = Image.fromarray(data.astronaut())
    group = Image.new("RGB", (768, 512))
    for x, y, side in ((0, 0, 512), (512, 0, 256), (512, 256, 128), (640, 256, 128), (512, 384, 128), (640, 384, 128)):
        group.paste(astronaut.resize((side, side)), (x, y))
    return (
        _jpeg("an astronaut, six times", group, "NASA, public domain"),
        _jpeg("a man at his camera", Image.fromarray(data.camera()[60:368, 30:492]), "Lav Varshney, CC0"),
    )


def english_page() -> Page:
    """A notice, drawn in Pillow's own typeface and photographed by an unsteady hand: tilted by 2 degrees."""
    paper = Image.new("L", (760, 400), 246)
    draw = ImageDraw.Draw(paper)
    draw.rectangle((20, 20, 739, 379), outline=120, width=3)
    draw.text((380, 75), ENGLISH_LINES[0], font=_font(44), fill=25, anchor="mm")
    for row, line in enumerate(ENGLISH_LINES[1:]):
        draw.text((380, 150 + 60 * row), line, font=_font(29), fill=45, anchor="mm")
    tilted = paper.rotate(2, Image.Resampling.BICUBIC, expand=True, fillcolor=205)
    return Page(_png("a notice", tilted, "drawn by the demo"), ENGLISH_LINES, "en")


def chinese_page() -> Page:
    """A page that was drawn before, because few machines have a Chinese typeface."""
    encoded = files("demo").joinpath("data/library.png").read_bytes()
    width, height = Image.open(io.BytesIO(encoded)).size
    picture = Picture("a page in Chinese", encoded, width, height, "drawn for the demo, CC0")
    return Page(picture, CHINESE_LINES, "zh")


def recordings() -> tuple[Recording, ...]:
    """Each sentence as speech."""
    from hibari import SAMPLE_RATE, Hibari

    voice = Hibari()
    return tuple(recording(text, voice(text, seed=SEED), SAMPLE_RATE) for text in SENTENCES)


def voices() -> tuple[Voice, ...]:
    """The synthesizer's voice with both sentences, and a deeper one: spoken quicker and played slower."""
    from hibari import SAMPLE_RATE, Hibari

    one, other = recordings()
    deeper = Hibari()(SENTENCES[0], seed=SEED, speed=1 / DEEPER)
    return (
        Voice("a voice", one),
        Voice("the same, another sentence", other),
        Voice("a deeper voice", recording(SENTENCES[0], deeper, round(SAMPLE_RATE * DEEPER))),
    )


def talk() -> Talk:
    """The sentences as one recording, with silence before, between and behind them."""
    from hibari import SAMPLE_RATE, Hibari

    voice = Hibari()
    parts, spoken, at = [_silence(PAUSES[0], SAMPLE_RATE)], [], PAUSES[0]
    for text, pause in zip(SENTENCES, PAUSES[1:], strict=True):
        samples = _audible(voice(text, seed=SEED))
        spoken.append((at, at + len(samples) / SAMPLE_RATE))
        parts += [samples, _silence(pause, SAMPLE_RATE)]
        at = spoken[-1][1] + pause
    return Talk(recording(" ".join(SENTENCES), np.concatenate(parts), SAMPLE_RATE), tuple(spoken))


def recording(text: str, samples: npt.NDArray[np.float32], sample_rate: int) -> Recording:
    """Samples f32 [n] in [-1, 1] as a WAV file."""
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(sample_rate)
        out.writeframes((np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())
    return Recording(text, file.getvalue(), len(samples) / sample_rate, _envelope(samples))


def _silence(seconds: float, sample_rate: int) -> npt.NDArray[np.float32]:
    return np.zeros(round(seconds * sample_rate), np.float32)


def _audible(samples: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Without the quiet at both ends."""
    loud = np.flatnonzero(np.abs(samples) > np.abs(samples).max() / 50)
    return samples[loud[0] : loud[-1] + 1]


def _envelope(samples: npt.NDArray[np.float32], points: int = 120) -> tuple[float, ...]:
    peaks = np.array([np.abs(part).max(initial=0) for part in np.array_split(samples, points)])
    return tuple((peaks / max(float(peaks.max()), 1e-6)).round(3).tolist())


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _jpeg(title: str, image: Image.Image, source: str) -> Picture:
    return _picture(title, image, source, format="JPEG", quality=88)


def _png(title: str, image: Image.Image, source: str) -> Picture:
    return _picture(title, image, source, format="PNG", optimize=True)


def _picture(title: str, image: Image.Image, source: str, **options: object) -> Picture:
    file = io.BytesIO()
    image.save(file, **options)  # type: ignore[arg-type]
    return Picture(title, file.getvalue(), *image.size, source)
