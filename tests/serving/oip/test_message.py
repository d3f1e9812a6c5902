"""Large requests: read as protobuf reads them, their raw tensors left where they came."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from google.protobuf.message import DecodeError

from ortmesh.descriptors import oip
from ortmesh.serving.oip_message import VIEWED_BYTES, InferRequest, Viewed
from tests.serving.oip.calls import Request, pair

RAW = 7


def large(**fields: Any) -> Any:
    request = pair(rows=VIEWED_BYTES // 12, **fields)
    request.outputs.add(name="sum")
    return request


def contents(request: Any) -> list[bytes]:
    return [bytes(each) for each in request.raw_input_contents]


def test_a_large_request_says_what_its_message_says() -> None:
    sent = large(id="one", parameters={"priority": oip("InferParameter")(int64_param=3)})
    read = InferRequest.FromString(sent.SerializeToString())
    assert isinstance(read, Viewed)
    assert contents(read) == contents(sent)
    assert (read.model_name, read.id, read.parameters["priority"].int64_param) == ("sums", "one", 3)
    assert [each.name for each in read.inputs] == ["left", "right"]
    assert [each.name for each in read.outputs] == ["sum"]
    assert read.nbytes == sent.ByteSize()


def test_its_tensors_are_views_of_its_bytes() -> None:
    payload = large().SerializeToString()
    whole = np.frombuffer(payload, np.uint8)
    assert all(
        np.shares_memory(np.frombuffer(each, np.uint8), whole)
        for each in InferRequest.FromString(payload).raw_input_contents
    )


@pytest.mark.parametrize(
    "more",
    {
        "fields that nobody knows": b"\xa2\x06\x01a\xa8\x06\x01",
        "a number in the tensors' field": bytes([RAW << 3, 1]),
        "a key with more bytes than it needs": bytes([RAW << 3 | 2 | 0x80, 0x80, 0, 1, 65]),
        "a group": bytes([100 % 16 << 3 | 3, 100 % 16 << 3 | 4]),
        "a group with a tensor's field in it": bytes([3 << 3 | 3, RAW << 3 | 2, 1, 65, 3 << 3 | 4]),
        "the tensors' field once more": bytes([RAW << 3 | 2, 1, 65]),
        "the name once more": b"\x0a\x05again",
    }.values(),
)
@pytest.mark.parametrize("first", [True, False])
def test_what_is_strange_is_read_as_protobuf_reads_it(more: bytes, first: bool) -> None:
    payload = large().SerializeToString()
    payload = more + payload if first else payload + more
    expected, read = Request.FromString(payload), InferRequest.FromString(payload)
    assert contents(read) == contents(expected)
    assert read.model_name == expected.model_name


@pytest.mark.parametrize("cut", [1, 1000, VIEWED_BYTES // 2])
def test_a_message_that_is_cut_off_is_none(cut: int) -> None:
    with pytest.raises(DecodeError):
        InferRequest.FromString(large().SerializeToString()[:-cut])


def test_a_length_that_is_cut_off_is_no_empty_tensor() -> None:
    with pytest.raises(DecodeError):
        InferRequest.FromString(large().SerializeToString() + b"\x3a\x80")


def test_a_text_that_is_not_utf_8_makes_it_none() -> None:
    payload = large().SerializeToString().replace(b"sums", b"su\xffs")
    with pytest.raises(DecodeError):
        InferRequest.FromString(payload)
