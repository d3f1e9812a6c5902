"""Synthesis: a text on its way through the models, from its sentences to samples. Stage: task."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from itertools import count, islice
from typing import Final

import numpy as np

from ortmesh.errors import BadInput
from ortmesh.front.call import Call
from ortmesh.serving.model import Model
from ortmesh.serving.needs import asset
from ortmesh.serving.types import Tensors
from ortmesh_speech.aloud.lexicon import read_lexicon
from ortmesh_speech.aloud.phrases import phrases
from ortmesh_speech.aloud.reading import Reader, Reading
from ortmesh_speech.aloud.sentences import Sentence, sentences
from ortmesh_speech.aloud.spelling import Spelling, read_spelling
from ortmesh_speech.aloud.tagger import read_tagger
from ortmesh_speech.speaking import SPELLER, VOICE, Voice, read_symbols
from ortmesh_speech.vocoder import Samples, waveform

READ_AT_ONCE: Final = 200
"""Sentences without words that are passed over in one turn of a thread."""
EDGE: Final = 0
"""The number that stands before and behind a phrase's phonemes."""

PHRASE_PAUSE, SENTENCE_PAUSE, PARAGRAPH_PAUSE = 0.12, 0.4, 0.8
"""Seconds of silence between phrases of a sentence, sentences and paragraphs, at speed 1."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What was asked for, checked."""

    text: str
    speed: float
    seed: int
    """0 for the model's own."""


@dataclass(frozen=True, slots=True)
class Phrase:
    """What the voice says in one run."""

    sentence: str
    """The sentence that begins with it, as it was given; empty in the midst of one."""
    phonemes: str
    pause: float
    """Seconds of silence before it."""


@dataclass(frozen=True, slots=True)
class SpokenPhrase:
    """A phrase that was said."""

    phrase: Phrase
    samples: Samples
    """Without silence around them."""


class Synthesis:
    """One text. Callers take turns at the model phrase by phrase."""

    def __init__(self, model: Model, voice: Voice, speller: Model, asked: Asked, call: Call) -> None:
        self._model = model
        self._voice = voice
        self._speller = speller
        self._asked = asked
        self._call = call
        self._told: dict[str, str] = {}
        """The phonemes of unknown words that this text has had."""

    async def phrases(self) -> AsyncGenerator[SpokenPhrase, None]:
        """The samples, phrase by phrase. BadInput when nothing in the text can be said."""
        call, numbers = self._call, count()
        symbols = await call.in_pool(asset, self._model, read_symbols, self._voice.symbols)
        async with aclosing(self._written()) as following:
            async for phrase in following:
                tensors = inputs(phrase.phonemes, symbols, self._asked.speed)
                outputs = await self._model(tensors, call, outputs=VOICE.outputs)
                seed = (self._asked.seed or self._voice.seed, next(numbers))
                yield SpokenPhrase(phrase, await call.in_pool(waveform, outputs, seed))
        if next(numbers) == 0:
            raise BadInput("text", "has nothing that can be said aloud in English")

    async def _written(self) -> AsyncGenerator[Phrase, None]:
        call, voice = self._call, self._voice
        reader = await call.in_pool(reader_of, self._model, voice)
        spelling = await call.in_pool(asset, self._speller, read_spelling, SPELLER.of(self._speller).spelling)
        following, before = sentences(self._asked.text), ""
        while (read := await call.in_pool(read_on, following, reader)) is not None:
            await self._spell(read.unknown, spelling)
            for phrase in await call.in_pool(phrases_of, read, self._told, before, self._asked.speed):
                before = "paragraph" if read.sentence.ends_paragraph else "sentence"
                yield phrase

    async def _spell(self, words: Sequence[str], spelling: Spelling) -> None:
        """Learns the phonemes of words that the text has not had before."""
        parts = {word: spelling.parts(word) for word in words if word not in self._told}
        flat = [{"letters": letters} for each in parts.values() for letters in each]
        answers = iter(await self._speller.many(flat, self._call, outputs=SPELLER.outputs) if flat else [])
        for word, each in parts.items():
            self._told[word] = "".join(spelling.read(next(answers)["phonemes"][0]) for _ in each)


@dataclass(frozen=True, slots=True)
class Read:
    """A sentence that was read."""

    sentence: Sentence
    reading: Reading
    unknown: Sequence[str]


def reader_of(model: Model, voice: Voice) -> Reader:
    """What a model's texts are read with. It blocks, as `asset`. ModelFailed."""
    return Reader(asset(model, read_lexicon, voice.lexicon), asset(model, read_tagger, voice.tagger))


def read_on(following: Iterator[Sentence], reader: Reader) -> Read | None:
    """The text's next sentence in which there are words; None at its end.

    It gives the thread back after so many others: a text of signs alone can be 100,000 sentences.
    """
    read: Read | None = None
    for sentence in islice(following, READ_AT_ONCE):
        reading = reader.read(sentence.text)
        read = Read(sentence, reading, reading.unknown)
        if reading.tokens:
            break
    return read


def phrases_of(read: Read, told: Mapping[str, str], before: str, speed: float) -> list[Phrase]:
    """A sentence as the voice says it; nothing where there is nothing to say. `before` it is a sentence's end, a
    paragraph's, or nothing."""
    pause = {"": 0.0, "sentence": SENTENCE_PAUSE, "paragraph": PARAGRAPH_PAUSE}[before]
    made: list[Phrase] = []
    for part in phrases(read.reading.phonemes(told), first=not before):
        made.append(Phrase("" if made else read.sentence.text, part, (PHRASE_PAUSE if made else pause) / speed))
    return made


def inputs(phonemes: str, symbols: Mapping[str, int], speed: float) -> Tensors:
    """A phrase as the model takes it: `symbols` int64 [1, n] and `speed` float32 [1]."""
    numbers = [symbols[phoneme] for phoneme in phonemes if phoneme in symbols]
    return {"symbols": np.array([[EDGE, *numbers, EDGE]], np.int64), "speed": np.array([speed], np.float32)}
