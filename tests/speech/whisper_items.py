"""Items for Whisper's program in tests, and what it answers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ortmesh.serving.cards import read_card
from ortmesh.serving.executor.sessions import Sessions
from ortmesh.serving.executor.whisper import WhisperProgram
from ortmesh.serving.store import Store
from ortmesh.serving.types import Item, Owner, Tensors
from ortmesh.serving.warmup import Capture
from ortmesh_speech.audio import Samples
from ortmesh_speech.log_mel import log_mel


def load(store: Store) -> WhisperProgram:
    """The default model."""
    folder = store.folder("whisper-tiny-en", "1")
    card = read_card(folder / "card.yaml")
    return WhisperProgram.load(card, folder, Sessions(card.runtime, threads=2))


def heard(samples: Samples, beams: int = 5, seconds: int = 10, **wishes: Any) -> Tensors:
    """An item of one row, silence added."""
    given = {name: np.array([wish]) for name, wish in wishes.items()}
    return {"mel": log_mel(samples, seconds), "beam_width": np.array([beams], np.int64), **given}


def item(tensors: Tensors, answer: Capture, *, owner: Owner | None = None, deadline: float = math.inf) -> Item:
    """With as many rows as there are spectrograms."""
    return Item(tensors, answer=answer, owner=owner or answer, deadline=deadline, rows=len(tensors["mel"]))


def answered(program: WhisperProgram, many: Sequence[Tensors]) -> list[Capture]:
    """What becomes of items that run together."""
    answers = [Capture() for _ in many]
    decode(program, [item(tensors, answer) for tensors, answer in zip(many, answers, strict=True)])
    return answers


def decode(program: WhisperProgram, items: Sequence[Item]) -> None:
    """Items together, all attempts one after the other."""
    for _ in program.run(items):
        pass


def run(program: WhisperProgram, many: Sequence[Tensors]) -> list[Tensors]:
    """What items give that run together."""
    answers = answered(program, many)
    for answer in answers:
        if answer.error is not None:
            raise answer.error
    return [answer.outputs for answer in answers if answer.outputs is not None]


def text(program: WhisperProgram, tokens: Any) -> str:
    """As a person reads it."""
    written: str = program._tokenizer.decode(np.asarray(tokens).tolist())
    return written


def tokens(program: WhisperProgram, text: str) -> list[int]:
    """Of a text, with the space before it."""
    ids: list[int] = program._tokenizer.encode(f" {text}", add_special_tokens=False).ids
    return ids


def phrases(program: WhisperProgram, texts: Sequence[str], boost: float) -> dict[str, Any]:
    """The wishes that favour them."""
    rows = [tokens(program, each) for each in texts]
    longest = max(map(len, rows))
    return {
        "bias_tokens": [[*row, *[-1] * (longest - len(row))] for row in rows],
        "bias_boost": np.full(len(rows), boost, np.float32),
    }
