"""Recognizer: a model and what one caller asks of it; from windows to what is said in them. Stage: task."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import numpy as np
from pydantic import Field
from tokenizers import Tokenizer

from ortmesh.errors import BadInput
from ortmesh.front.call import Call
from ortmesh.serving.executor.whisper_limits import MAX_BEAMS
from ortmesh.serving.model import Model
from ortmesh.serving.needs import Needs, Settings, asset
from ortmesh.serving.tokenizing import load_literal_tokenizer, load_tokenizer
from ortmesh.serving.types import Tensors
from ortmesh_speech.doubts import missed, repeats_its_end, says_too_little
from ortmesh_speech.hints import check_model, hints, with_context
from ortmesh_speech.log_mel import log_mel
from ortmesh_speech.options import Options, check_alternatives
from ortmesh_speech.pieces import around, halves
from ortmesh_speech.transcript import Transcript, joined, transcript_of
from ortmesh_speech.window import BUCKETS_SECONDS, Window


class Hearing(Settings):
    """How a model hears."""

    tokenizer: str = "tokenizer.json"
    """The file of its tokenizer, as the library `tokenizers` writes it."""
    mels: int = Field(default=80, ge=1)
    """Bands of its spectrogram."""
    beams: int = Field(default=5, ge=1, le=MAX_BEAMS)
    """Where the request names none."""


NEEDS = Needs(
    Hearing,
    inputs={"mel": "FP32", "beam_width": "INT64"},
    outputs={"tokens": 2, "mean_logprob": 1, "no_speech": 1},
    may_take={
        "language": "INT64",
        "prompt": "INT64",
        "bias_tokens": "INT64",
        "bias_boost": "FP32",
        "want_words": "INT64",
    },
    may_give={
        "token_logprobs": 2,
        "token_frames": 3,
        "language": 1,
        "alternatives": 3,
        "alternative_logprobs": 2,
    },
)


class Recognizer:
    """A model and what one caller asks of it."""

    def __init__(self, model: Model, options: Options, beams: int, field: str = "options") -> None:
        """`beams` of 0 are the model's own; errors name `field`, which holds the options. It blocks, for files.

        BadInput for what the model can't do; ModelFailed.
        """
        settings = NEEDS.of(model)
        self._model = model
        self._options = options
        self._mels = settings.mels
        self._beams = beams or settings.beams
        self._languages = tuple(model.card.languages)
        check_alternatives(options.alternatives, self._beams, field)
        check_model(options, model, field)
        self._tokenizer = tokenizer_of(model)
        self._literal = asset(model, load_literal_tokenizer, settings.tokenizer)
        self._hints = hints(options, model, self._literal, field)

    async def __call__(self, window: Window, call: Call, before: str = "") -> Transcript | None:
        """What is said in a window; None when nobody says anything. What can't be right is heard again, in parts.

        `before` is what was said before it, where the model can be told.
        """
        heard = await self._hear(window, window.padded_seconds, call, before)
        if heard is None:
            return None
        if repeats_its_end(heard.text) and window.padded_seconds < BUCKETS_SECONDS[-1]:
            again = await self._hear(window, BUCKETS_SECONDS[-1], call)
            heard = heard if again is None or repeats_its_end(again.text) else again
        parts = parts_to_hear(window, heard) if window.judged else [window]
        return await self._hear_parts(parts, heard, call) if len(parts) > 1 else heard

    async def _hear_parts(self, parts: Sequence[Window], heard: Transcript, call: Call) -> Transcript:
        """What is said in the parts of a window, if that is more than what was heard in the whole."""
        found = [transcript for part in parts if (transcript := await self(part, call)) is not None]
        if not found:
            return heard
        together = reduce(joined, found)
        return together if len(together.text) > len(heard.text) else heard

    async def _hear(self, window: Window, seconds: int, call: Call, before: str = "") -> Transcript | None:
        tensors = await call.in_pool(self.tensors, window, seconds, before)
        outputs = await self._model(tensors, call)
        return await call.in_pool(transcript_of, window, outputs, self._tokenizer, self._options, self._languages)

    def tensors(self, window: Window, seconds: int, before: str = "") -> Tensors:
        """A window as the model takes it: `mel` float32 [1, mels, frames], `beam_width` int64 [1] and the hints."""
        mel = log_mel(window.samples, seconds, self._mels)
        given = with_context(self._hints, before, self._model, self._literal)
        return {"mel": mel, "beam_width": np.array([self._beams], np.int64), **given}


def parts_to_hear(window: Window, heard: Transcript) -> list[Window]:
    """The parts in which a window is to be heard again, because something is missing; else the window alone."""
    if heard.words:
        silent = missed(heard.words, window.speech)
        parts = around(window, silent)
        return parts if len(parts) > 1 or not silent else halves(window)
    too_little = says_too_little(heard.text, heard.rival, window.speech_seconds, heard.language)
    return halves(window) if too_little else [window]


def tokenizer_of(model: Model) -> Tokenizer:
    """A model's tokenizer, read once. ModelFailed for a model that lacks it or anything else that the task needs."""
    return asset(model, load_tokenizer, NEEDS.of(model).tokenizer)


def check_beams(beams: int, field: str = "beam_width") -> None:
    """BadInput unless there are 1 to 8 beams, or 0 for the model's default."""
    if not 0 <= beams <= MAX_BEAMS:
        raise BadInput(field, f"{beams}: expected 1 to {MAX_BEAMS}, or 0 for the model's default")
