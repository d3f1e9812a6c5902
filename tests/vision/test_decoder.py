"""Large pictures take turns, and nobody else waits for them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from PIL import Image

from ortmesh.errors import BadInput, Cancelled
from ortmesh.front.call import Call
from ortmesh.serving.models import Models
from ortmesh.vision.v1 import vision_pb2
from ortmesh_vision.classify import Classify
from ortmesh_vision.decoder import LARGE_PIXELS, Decoder
from ortmesh_vision.detect import Detect
from ortmesh_vision.embed import Embed
from ortmesh_vision.pictures import Picture
from ortmesh_vision.read_text import ReadText
from tests.vision.samples import encoded, photo, png_header

pytestmark = pytest.mark.asyncio(loop_scope="session")

SMALL = encoded(Image.new("RGB", (8, 8)))
LARGE = encoded(Image.new("1", (4001, 4001), 1))
"""Two kilobytes, and just over the bound."""


class Work:
    """Pictures that are prepared in the pool; the large ones, once decoded, stay in their thread until they are let go.

    After a minute they go of themselves, so that a failing test ends. The pool of `call` has two threads.
    """

    def __init__(self, call: Call) -> None:
        self.decoder = Decoder()
        self.call = call
        self.first_began = asyncio.Event()
        self.began = 0
        self.go_on = threading.Event()
        self._loop = asyncio.get_running_loop()

    def send(self, image: vision_pb2.Image) -> asyncio.Task[tuple[int, int]]:
        """The size of a picture."""
        return asyncio.create_task(self.decoder.prepare(image, "image", self._prepared, self.call))

    async def small(self) -> None:
        """A small picture comes and is answered: all that was sent before it was looked at by then."""
        assert await self.send(SMALL) == (8, 8)

    def _prepared(self, picture: Picture) -> tuple[int, int]:
        size = picture.image.size
        if size[0] * size[1] > LARGE_PIXELS:
            self.began += 1
            self._loop.call_soon_threadsafe(self.first_began.set)
            self.go_on.wait(60)
        return size


@pytest_asyncio.fixture(loop_scope="session")
async def work(call: Call) -> AsyncIterator[Work]:
    made = Work(call)
    yield made
    made.go_on.set()


async def test_large_pictures_keep_no_small_one_waiting(work: Work) -> None:
    """As many large ones as the pool has threads, and one more: they take one thread, one after the other."""
    large = [work.send(LARGE) for _ in range(3)]
    await work.first_began.wait()
    for _ in range(3):
        await work.small()
    assert work.began == 1
    assert not any(each.done() for each in large)
    work.go_on.set()
    assert await asyncio.gather(*large) == [(4001, 4001)] * 3


async def test_a_large_picture_that_waits_is_left_at_once(work: Work) -> None:
    first = work.send(LARGE)
    await work.first_began.wait()
    second, third = work.send(LARGE), work.send(LARGE)
    await work.small()
    second.cancel()
    assert isinstance((await asyncio.gather(second, return_exceptions=True))[0], asyncio.CancelledError)
    assert not first.done()
    work.go_on.set()
    assert [await first, await third] == [(4001, 4001)] * 2
    assert work.began == 2


async def test_callers_who_leave_do_not_have_two_decoded_at_once(work: Work) -> None:
    """The first one's thread can't be stopped: the second waits for it, though nobody else does any more."""
    first = work.send(LARGE)
    await work.first_began.wait()
    first.cancel()
    assert isinstance((await asyncio.gather(first, return_exceptions=True))[0], asyncio.CancelledError)
    second = work.send(LARGE)
    await work.small()
    await work.small()
    assert work.began == 1
    work.go_on.set()
    assert await second == (4001, 4001)


async def test_a_large_picture_whose_call_is_over_is_not_decoded(work: Work) -> None:
    """Its caller left while it waited, and nobody cancelled its task."""
    first = work.send(LARGE)
    await work.first_began.wait()
    second = work.send(LARGE)
    await work.small()
    work.call.cancel()
    work.go_on.set()
    assert await first == (4001, 4001)
    with pytest.raises(Cancelled):
        await second
    assert work.began == 1


async def test_a_broken_large_picture_costs_no_place(work: Work) -> None:
    work.go_on.set()
    for _ in range(2):
        with pytest.raises(BadInput, match=r"^image\.encoded: .*truncated"):
            await work.send(vision_pb2.Image(encoded=png_header(4001, 4001)))
    assert await work.send(LARGE) == (4001, 4001)


async def test_large_pictures_of_all_tasks_take_turns_with_each_other(models: Models, call: Call) -> None:
    """And a small one passes them, whichever task it is for."""
    decoder = Decoder()
    classify, read_text = Classify(models, decoder), ReadText(models, decoder)
    async with decoder.gate.place(call):
        waiting = [
            asyncio.ensure_future(classify(vision_pb2.ClassifyRequest(image=LARGE), call)),
            asyncio.ensure_future(Detect(models, decoder)(vision_pb2.DetectRequest(image=LARGE), call)),
            asyncio.ensure_future(Embed(models, decoder)(vision_pb2.EmbedRequest(images=[LARGE] * 2), call)),
            asyncio.ensure_future(read_text(vision_pb2.ReadTextRequest(image=LARGE), call)),
        ]
        answer = await classify(vision_pb2.ClassifyRequest(image=photo("coffee.png")), call)
        assert answer.labels[0].name == "espresso"
        await read_text(vision_pb2.ReadTextRequest(image=SMALL), call)
        assert not any(each.done() for each in waiting)
    await asyncio.gather(*waiting)
