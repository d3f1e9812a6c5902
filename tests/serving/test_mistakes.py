"""What is wrong in a file that people write is told in words of ours, also where no card has the like."""

from __future__ import annotations

import pytest
from pydantic import BaseModel, Field, ValidationError

from ortmesh.serving.mistakes import mistakes_in_words


class Speaker(BaseModel):
    """A file's content."""

    voice: str = Field(default="x", min_length=1, max_length=3)
    ends: list[int] = Field(default=[1], min_length=1, max_length=2)
    names: dict[str, int] = Field(default_factory=dict)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"voice": ""}', 'voice: found "", expected a text of at least 1 characters'),
        ('{"voice": "long"}', 'voice: found "long", expected a text of at most 3 characters'),
        ('{"ends": []}', "ends: found [], expected at least 1 of them"),
        ('{"ends": [1, 2, 3]}', "ends: found [1, 2, 3], expected at most 2 of them"),
        ("{", "it is no JSON: EOF while parsing an object at line 1 column 1"),
    ],
)
def test_a_mistake_is_told_in_our_words(text: str, told: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Speaker.model_validate_json(text)
    assert mistakes_in_words(caught.value, Speaker) == told


def test_a_key_that_is_no_text_is_told() -> None:
    class Strict(BaseModel, extra="forbid"):
        """One that refuses keys."""

    with pytest.raises(ValidationError) as caught:
        Strict.model_validate({1: 2})
    assert mistakes_in_words(caught.value, Strict) == "1: found 1, expected keys that are texts: write them with quotes"
