"""Transcript: what a recognizer heard in one window, and whether anybody said it. Stage: task."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from tokenizers import Tokenizer

from ortmesh.serving.executor.whisper_limits import (
    HIGHEST_COMPRESSION,
    LOWEST_MEAN_LOGPROB,
    SURE_OF_SILENCE,
    compression,
)
from ortmesh.serving.types import Tensors
from ortmesh.speech.v1.speech_pb2 import Alternative, Segment, Word
from ortmesh_speech.durations import duration
from ortmesh_speech.options import Options
from ortmesh_speech.window import Window
from ortmesh_speech.words import TimedWord, confidence, words_of

NEARLY = 0.85
"""Of the best text's confidence: texts that are nearly as probable."""
LOWEST_MEAN_LOGPROB_OF_SILENCE = -0.6
"""What is heard into silence ("you", "Thank you.") is less probable than this; speech there would not be."""


@dataclass(frozen=True, slots=True)
class Transcript:
    """The text of a window."""

    text: str
    confidence: float
    start: float
    """Seconds from the recording's start."""
    end: float
    language: str
    """ISO 639-1; empty when nobody knows."""
    words: tuple[TimedWord, ...] = ()
    """None where the model does not tell their times."""
    alternatives: tuple[tuple[str, float], ...] = ()
    """Other texts and their confidences, the best first."""
    rival: int = 0
    """Characters of the longest text that is nearly as probable."""
    speaker: str = ""

    def segment(self, *, with_words: bool) -> Segment:
        """As the API says it."""
        return Segment(
            transcript=self.text,
            start=duration(self.start),
            end=duration(self.end),
            confidence=self.confidence,
            language=self.language,
            speaker=self.speaker,
            words=[self._word(word) for word in self.words] if with_words else (),
            alternatives=[Alternative(transcript=text, confidence=sure) for text, sure in self.alternatives],
        )

    def _word(self, word: TimedWord) -> Word:
        return Word(
            text=word.text,
            start=duration(word.start),
            end=duration(word.end),
            confidence=word.confidence,
            speaker=self.speaker,
        )


def joined(first: Transcript, second: Transcript) -> Transcript:
    """What was said in two windows that follow each other."""
    share = len(first.text) / (len(first.text) + len(second.text))
    return replace(
        first,
        text=f"{first.text} {second.text}",
        confidence=first.confidence**share * second.confidence ** (1 - share),
        end=second.end,
        words=first.words + second.words,
        alternatives=(),
    )


def transcript_of(
    window: Window, outputs: Tensors, tokenizer: Tokenizer, options: Options, languages: Sequence[str]
) -> Transcript | None:
    """What the outputs of one row say of a window; None when nothing is said in it, as far as the model can tell.

    `languages` are those of the model's card, which it names by their places.
    """
    logprob, no_speech = float(outputs["mean_logprob"][0]), float(outputs["no_speech"][0])
    tokens = outputs["tokens"][0].tolist()
    text = tokenizer.decode(tokens).strip()
    if not is_speech(text, logprob, no_speech, judged=window.judged):
        return None
    language = options.language or _language(outputs, languages)
    sureness, others = confidence([logprob]), _others(outputs, tokenizer, text)
    words: list[TimedWord] = []
    if "token_frames" in outputs:
        words = words_of(
            tokens,
            outputs["token_frames"][0].tolist(),
            outputs["token_logprobs"][0].tolist(),
            tokenizer,
            offset=window.offset,
            speech=window.speech,
            language=language,
        )
    return Transcript(
        text=text,
        confidence=sureness,
        start=window.start,
        end=window.end,
        language=language,
        words=tuple(words),
        alternatives=tuple(others[: options.alternatives]),
        rival=max((len(other) for other, sure in others if sure > NEARLY * sureness), default=0),
    )


def is_speech(text: str, mean_logprob: float, no_speech: float, *, judged: bool = True) -> bool:
    """False for what a model writes when nobody speaks.

    Where another model heard speech (`judged`), an improbable text is kept while this one agrees: in noise it is most
    of what can be known (of speech over other voices at 10 dB whole sentences were lost without).
    """
    if not re.search(r"\w", text) or (mean_logprob < LOWEST_MEAN_LOGPROB and not judged):
        return False
    if no_speech > SURE_OF_SILENCE and mean_logprob < LOWEST_MEAN_LOGPROB_OF_SILENCE:
        return False
    return compression(text) <= HIGHEST_COMPRESSION


def _language(outputs: Tensors, languages: Sequence[str]) -> str:
    if len(languages) == 1:
        return languages[0]
    place = int(outputs["language"][0]) if "language" in outputs else -1
    return languages[place] if 0 <= place < len(languages) else ""


def _others(outputs: Tensors, tokenizer: Tokenizer, best: str) -> list[tuple[str, float]]:
    """The other texts and their confidences, each once: hypotheses may differ in their tokens alone."""
    if "alternatives" not in outputs:
        return []
    found: dict[str, float] = {}
    for tokens, logprob in zip(outputs["alternatives"][0], outputs["alternative_logprobs"][0], strict=True):
        text = tokenizer.decode(tokens.tolist()).strip()
        if np.isfinite(logprob) and text and text != best:
            found.setdefault(text, confidence([float(logprob)]))
    return list(found.items())
