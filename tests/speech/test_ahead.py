"""One step ahead, and no further."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest

from ortmesh_speech.ahead import ahead


class Source:
    """Counts up, and remembers how far it came and that it was closed."""

    def __init__(self, count: int, *, fails: bool = False, stands: bool = False) -> None:
        self.begun = 0
        self.closed = False
        self._count, self._fails, self._stands = count, fails, stands

    async def items(self) -> AsyncGenerator[int, None]:
        try:
            for number in range(1, self._count + 1):
                self.begun = number
                await asyncio.Event().wait() if self._stands and number > 1 else await asyncio.sleep(0)
                yield number
            if self._fails:
                raise ValueError("broken")
        finally:
            self.closed = True


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_all_items_come_in_their_order() -> None:
    source = Source(5)
    assert [item async for item in ahead(source.items())] == [1, 2, 3, 4, 5]
    assert source.closed


async def test_the_next_item_is_made_while_one_is_used_but_not_the_one_after() -> None:
    source = Source(5)
    items = ahead(source.items())
    assert await anext(items) == 1
    await settle()
    assert source.begun == 2
    await items.aclose()
    assert source.closed


async def test_whoever_leaves_ends_the_work_that_is_under_way() -> None:
    source = Source(5, stands=True)
    items = ahead(source.items())
    assert await anext(items) == 1
    await settle()
    await items.aclose()
    assert source.closed


async def test_an_error_comes_after_what_was_made_before_it() -> None:
    items = ahead(Source(2, fails=True).items())
    assert [await anext(items), await anext(items)] == [1, 2]
    with pytest.raises(ValueError, match="broken"):
        await anext(items)


async def test_an_error_of_the_next_item_is_no_matter_to_one_who_has_left() -> None:
    source = Source(1, fails=True)
    items = ahead(source.items())
    assert await anext(items) == 1
    await settle()
    await items.aclose()
    assert source.closed
