"""One step ahead: the next item is computed while the last one is sent, and no further. Stage: task."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from typing import TypeVar

T = TypeVar("T")


async def ahead(source: AsyncGenerator[T, None]) -> AsyncGenerator[T, None]:
    """The items of a source, each with the next one under way: a reader that waits holds it back after that one.

    Whoever leaves in the middle (`aclose`) ends the work that is under way, and the source.
    """
    coming = asyncio.create_task(_next(source))
    try:
        while (item := await coming) is not None:
            coming = asyncio.create_task(_next(source))
            yield item
    finally:
        coming.cancel()
        await asyncio.gather(coming, return_exceptions=True)
        await source.aclose()


async def _next(source: AsyncIterator[T]) -> T | None:
    return await anext(source, None)
