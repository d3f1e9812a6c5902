"""Material: real texts for lifelike calls, from the Python language reference that comes with Python."""

from __future__ import annotations

import io
import re
import textwrap
from dataclasses import dataclass
from functools import cache
from pydoc_data.topics import topics

from PIL import Image, ImageDraw, ImageFont

HEADING = re.compile(r"^(\S.*)\n([*=\-~^])\2{3,}$", re.MULTILINE)
LEAST_CHARACTERS = 30
"""Shorter paragraphs are remains of examples."""


@dataclass(frozen=True)
class Document:
    """A chapter."""

    headings: tuple[str, ...]
    paragraphs: tuple[str, ...]


@cache
def documents() -> tuple[Document, ...]:
    """Chapters that have headings and at least four paragraphs."""
    made = [_document(text) for _, text in sorted(topics.items())]
    return tuple(each for each in made if each.headings and len(each.paragraphs) >= 4)


def _document(text: str) -> Document:
    headings = tuple(found[1].replace('"', "") for found in HEADING.finditer(text))
    paragraphs = (" ".join(each.split()) for each in HEADING.sub("", text).split("\n\n"))
    return Document(headings, tuple(each for each in paragraphs if len(each) >= LEAST_CHARACTERS))


def page(document: Document, lines: int) -> bytes:
    """A page of print with so many lines of a chapter, as a PNG: what a scanner sends."""
    text = "\n".join("\n".join(textwrap.wrap(each, 72)) for each in (*document.headings, *document.paragraphs))
    shown = text.splitlines()[:lines]
    paper = Image.new("L", (1240, 120 + 40 * len(shown)), 250)
    draw = ImageDraw.Draw(paper)
    for row, line in enumerate(shown):
        draw.text((80, 60 + 40 * row), line, font=ImageFont.load_default(24), fill=20)
    file = io.BytesIO()
    paper.save(file, format="PNG")
    return file.getvalue()
