"""Embed gives vectors that tell like pictures from unlike ones, and spares the others from a bad one."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from ortmesh.common.v1 import common_pb2
from ortmesh.errors import BadInput, Expired
from ortmesh.front.call import Call
from ortmesh.serving.models import Models
from ortmesh.vision.v1 import vision_pb2
from ortmesh_vision.decoder import Decoder
from ortmesh_vision.embed import Embed, check
from tests.vision.samples import SKIMAGE, encoded, photo

pytestmark = pytest.mark.asyncio(loop_scope="session")
TEXT = vision_pb2.Image(encoded=b"Dear Sir or Madam")


def vectors(response: vision_pb2.EmbedResponse) -> npt.NDArray[np.float32]:
    return np.array([result.embedding.values for result in response.results], np.float32)


async def test_like_pictures_are_close_and_unlike_ones_far(models: Models, call: Call) -> None:
    with Image.open(SKIMAGE / "chelsea.png") as cat:
        part = cat.crop((60, 30, 400, 280))
    request = vision_pb2.EmbedRequest(
        images=[photo("chelsea.png"), encoded(part, "JPEG"), photo("coffee.png"), photo("rocket.jpg")]
    )
    close = vectors(await Embed(models, Decoder())(request, call))
    cosines = close @ close.T
    assert cosines[0, 1] > 0.85
    assert cosines[np.triu_indices(4, 1)][1:].max() < 0.4
    assert np.linalg.norm(close, axis=1) == pytest.approx([1] * 4, abs=1e-6)


async def test_the_answer_says_dimension_and_length(models: Models, call: Call) -> None:
    response = await Embed(models, Decoder())(vision_pb2.EmbedRequest(images=[photo("coffee.png")]), call)
    embedding = response.results[0].embedding
    assert (response.model.name, embedding.dimension, embedding.normalized) == ("efficientnet-lite0", 1280, True)
    assert len(embedding.values) == 1280
    assert not embedding.packed


async def test_a_picture_among_others_gets_the_vector_that_it_gets_alone(models: Models, call: Call) -> None:
    names = ["chelsea.png", "coffee.png", "rocket.jpg", "camera.png"] * 8
    together = vectors(await Embed(models, Decoder())(vision_pb2.EmbedRequest(images=map(photo, names)), call))
    for index in (0, 13, 31):
        alone = await Embed(models, Decoder())(vision_pb2.EmbedRequest(images=[photo(names[index])]), call)
        assert together[index] == pytest.approx(vectors(alone)[0], abs=1e-4)


async def test_a_bad_picture_spares_the_others(models: Models, call: Call) -> None:
    request = vision_pb2.EmbedRequest(images=[photo("coffee.png"), TEXT, vision_pb2.Image(), photo("coffee.png")])
    results = (await Embed(models, Decoder())(request, call)).results
    assert [result.WhichOneof("outcome") for result in results] == ["embedding", "error", "error", "embedding"]
    assert results[0].embedding == results[3].embedding
    assert [result.error.code for result in results[1:3]] == [3, 3]
    assert results[1].error.message.startswith("images[1].encoded: ")
    assert results[2].error.message.startswith("images[2]: ")


async def test_pictures_that_are_all_bad_each_get_their_error(models: Models, call: Call) -> None:
    results = (await Embed(models, Decoder())(vision_pb2.EmbedRequest(images=[TEXT, TEXT]), call)).results
    assert [result.error.code for result in results] == [3, 3]


async def test_a_single_bad_picture_fails_the_call(models: Models, call: Call) -> None:
    with pytest.raises(BadInput, match=r"^images\[0\]\.encoded: "):
        await Embed(models, Decoder())(vision_pb2.EmbedRequest(images=[TEXT]), call)


async def test_a_call_that_is_over_fails_as_a_whole(models: Models, call: Call) -> None:
    call.deadline = -math.inf
    with pytest.raises(Expired):
        await Embed(models, Decoder())(vision_pb2.EmbedRequest(images=[photo("coffee.png")] * 3), call)


@pytest.mark.parametrize("count", [0, 33])
async def test_a_number_of_pictures_out_of_range_is_refused(count: int) -> None:
    with pytest.raises(BadInput, match="images: "):
        check(vision_pb2.EmbedRequest(images=[vision_pb2.Image()] * count))


async def test_an_unknown_encoding_is_refused() -> None:
    with pytest.raises(BadInput, match="encoding: "):
        check(vision_pb2.EmbedRequest(images=[vision_pb2.Image()], encoding=9))  # type: ignore[arg-type]


async def test_bytes_hold_the_same_numbers(models: Models, call: Call) -> None:
    answers = {
        encoding: (
            await Embed(models, Decoder())(
                vision_pb2.EmbedRequest(images=[photo("coffee.png")], encoding=encoding), call
            )
        )
        .results[0]
        .embedding
        for encoding in (
            common_pb2.VECTOR_ENCODING_FLOATS,
            common_pb2.VECTOR_ENCODING_FLOAT32_BYTES,
            common_pb2.VECTOR_ENCODING_FLOAT16_BYTES,
        )
    }
    floats, single, half = answers.values()
    assert np.array_equal(np.frombuffer(single.packed, "<f4"), np.array(floats.values, np.float32))
    assert np.frombuffer(half.packed, "<f2") == pytest.approx(np.array(floats.values, np.float32), abs=1e-4)
    assert not single.values
    assert single.dimension == half.dimension == 1280
