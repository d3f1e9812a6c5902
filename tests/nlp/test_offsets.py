"""Offsets are those of the text's own bytes in each encoding."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ortmesh.errors import BadInput
from ortmesh.nlp.v1 import nlp_pb2
from ortmesh_nlp.offsets import check_encoding, offsets

CODECS = {
    nlp_pb2.OFFSET_ENCODING_UNSPECIFIED: ("utf-32-le", 4),
    nlp_pb2.OFFSET_ENCODING_UTF8: ("utf-8", 1),
    nlp_pb2.OFFSET_ENCODING_UTF16: ("utf-16-le", 2),
    nlp_pb2.OFFSET_ENCODING_UTF32: ("utf-32-le", 4),
}


@given(st.text(st.characters(codec="utf-8"), max_size=40), st.sampled_from(sorted(CODECS)))
def test_offsets_are_lengths_of_what_stands_before(text: str, encoding: int) -> None:
    codec, unit = CODECS[encoding]
    assert offsets(text, encoding).tolist() == [len(text[:i].encode(codec)) // unit for i in range(len(text) + 1)]


@pytest.mark.parametrize("encoding", [-1, 4])
def test_an_encoding_that_does_not_exist_is_refused(encoding: int) -> None:
    with pytest.raises(BadInput, match="offset_encoding"):
        check_encoding(encoding)
