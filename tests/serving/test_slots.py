"""Slots: what is not held any more has no memory."""

from __future__ import annotations

import mmap
import sys

import numpy as np
import pytest

from ortmesh.serving.executor.engine.cache import KEPT_BEHIND, CacheShape, HostCache
from ortmesh.serving.executor.engine.slots import LEAST_READ, Slots
from ortmesh.serving.types import Array

LENGTH = 4096
SHAPE = CacheShape(8, 2, 16, np.dtype(np.float32), 16, LENGTH)
TOKEN_BYTES = 8 * 2 * 2 * 16 * 4
pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux takes pages back")


def buffers(slots: Slots) -> list[Array]:
    assert isinstance(slots.cache, HostCache)
    return slots.cache.buffers


def write(slots: Slots, slot: int, tokens: range) -> None:
    """Computes tokens of a slot."""
    held = slots.held[slot]
    begin, end = len(held.tokens), len(held.tokens) + len(tokens)
    for number, buffer in enumerate(buffers(slots)):
        buffer[slot, :, begin:end] = np.array(tokens, np.float32)[None, :, None] + number
    held.tokens.extend(tokens)
    held.read = end


def right(slots: Slots, slot: int) -> bool:
    """True when its keys and values are those of its tokens."""
    held = np.array(slots.held[slot].tokens, np.float32)
    return all(
        np.array_equal(
            buffer[slot, :, : len(held)], np.broadcast_to((held + number)[None, :, None], (2, len(held), 16))
        )
        for number, buffer in enumerate(buffers(slots))
    )


def memory(slots: Slots) -> int:
    """Bytes of the buffers that have memory: the highest bit of a page's entry in Linux's pagemap (8 bytes a page)."""
    pages = 0
    with open("/proc/self/pagemap", "rb") as entries:
        for buffer in buffers(slots):
            first = buffer.ctypes.data // mmap.PAGESIZE
            entries.seek(8 * first)
            read = entries.read(8 * (-(-buffer.nbytes // mmap.PAGESIZE)))
            pages += int(np.count_nonzero(np.frombuffer(read, np.uint64) >> np.uint64(63)))
    return pages * mmap.PAGESIZE


def bound(slots: Slots) -> int:
    """What they may have: of each strip a page at both ends beside its tokens, and in each slot some spare ones."""
    strips = slots.cache.shape.buffers * 2 * slots.count
    return (slots.tokens + slots.count * KEPT_BEHIND) * TOKEN_BYTES + 2 * strips * mmap.PAGESIZE


@pytest.fixture
def slots() -> Slots:
    return Slots(HostCache(SHAPE), LEAST_READ)


@pytest.mark.parametrize("tokens", [LENGTH, LENGTH - 1000 + 7])
def test_a_text_that_others_overtake_leaves_no_memory_behind(slots: Slots, tokens: int) -> None:
    """A long prompt that is read moves back a place for each short text that comes."""
    write(slots, 0, range(tokens))
    for place in range(1, slots.count):
        write(slots, place, range(place, place + 20))
        slots.exchange(place - 1, place)
        assert right(slots, place)
        assert right(slots, place - 1)
        assert tokens * TOKEN_BYTES <= memory(slots) <= bound(slots)


def test_what_a_text_shared_with_a_longer_one_is_all_that_stays(slots: Slots) -> None:
    write(slots, 0, range(LENGTH))
    shared = slots.begin(0, np.arange(KEPT_BEHIND, dtype=np.int64), 0)
    assert 0 < shared < KEPT_BEHIND
    assert slots.tokens == shared
    assert right(slots, 0)
    assert memory(slots) <= bound(slots) < LENGTH * TOKEN_BYTES


def test_texts_that_come_and_go_hold_what_they_say(slots: Slots) -> None:
    """Whatever they do: at no time is there more memory than tokens, and some of each slot."""
    chance, active = np.random.default_rng(5), 0
    for _ in range(300):
        if active and (active == slots.count or chance.random() < 0.5):
            slots.end(int(chance.integers(active)), active, keep=bool(chance.random() < 0.7))
            active -= 1
        else:
            prompt = np.arange(int(chance.integers(20, 1500)), dtype=np.int64) + int(chance.integers(3)) * LENGTH
            there = slots.begin(active, prompt, active)
            write(slots, active, range(int(prompt[there]), int(prompt[-1])))
            active += 1
            if active > 1:
                slots.exchange(*chance.choice(active, 2, replace=False).tolist())
        assert all(right(slots, slot) for slot in range(slots.count))
        assert memory(slots) <= bound(slots)
