"""A text that is not UTF-8 is found by its path, in whatever message it is."""

from __future__ import annotations

import time

import pytest

from ortmesh.descriptors import oip
from ortmesh.front.utf8 import not_utf8
from ortmesh.nlp.v1.nlp_pb2 import EmbedRequest

GOOD, BAD = "é💩\0".encode(), b"\xed\xa0\x80"


def text(field: int, content: bytes) -> bytes:
    return bytes([field << 3 | 2, len(content)]) + content


@pytest.mark.parametrize("bad", [BAD, b"caf\xe9", b"\xf0\x9f\x92", b"\xc0\x80"])
@pytest.mark.parametrize(
    ("before", "field", "path"), [(b"", 1, "model"), (b"", 2, "texts[0]"), (text(2, GOOD) * 7, 2, "texts[7]")]
)
def test_the_path_is_told(before: bytes, field: int, path: str, bad: bytes) -> None:
    assert not_utf8(before + text(field, bad), EmbedRequest.DESCRIPTOR) == path


def test_a_text_in_a_message_in_a_message_is_found() -> None:
    infer = oip("ModelInferRequest").DESCRIPTOR
    assert not_utf8(text(5, text(1, GOOD)) + text(5, text(1, BAD)), infer) == "inputs[1].name"
    assert not_utf8(text(4, text(1, b"k") + text(2, text(3, BAD))), infer) == "parameters[0].value.string_param"


def test_the_search_ends_soon() -> None:
    """Sixteen million fields in four thousand messages, of which the last is wrong."""
    payload = (b"\x2a\xc0\x3e" + b"\x12\x00" * 4000) * 4000 + text(1, BAD)
    start = time.process_time()
    assert not_utf8(payload, oip("ModelInferRequest").DESCRIPTOR) is None
    assert time.process_time() - start < 1


@pytest.mark.parametrize("payload", [b"", text(2, GOOD), text(15, BAD), b"\x12\x7f", BAD, b"\x0b" * 9])
def test_what_is_wrong_otherwise_is_not_taken_for_it(payload: bytes) -> None:
    assert not_utf8(payload, EmbedRequest.DESCRIPTOR) is None
