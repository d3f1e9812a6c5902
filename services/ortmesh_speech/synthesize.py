"""SpeechService.Synthesize: a text spoken aloud, sentence by sentence. Stage: task.

Text to words to phonemes (`aloud`), phonemes to a spectrum (the model, `speech`), the spectrum to samples (`vocoder`),
samples to bytes (`encoders`).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing

from ortmesh.common.v1.common_pb2 import ModelVersion
from ortmesh.errors import BadInput
from ortmesh.front.call import Call
from ortmesh.serving.model import Model
from ortmesh.serving.models import Models
from ortmesh.serving.needs import asset, companion
from ortmesh.speech.v1.speech_pb2 import SynthesizeRequest, SynthesizeResponse
from ortmesh_speech.ahead import ahead
from ortmesh_speech.encoders import Encoder, encoder_of
from ortmesh_speech.speaking import VOICE, read_symbols
from ortmesh_speech.synthesis import Asked, SpokenPhrase, Synthesis, reader_of
from ortmesh_speech.vocoder import SAMPLE_RATE, silence

MAX_CHARACTERS = 100_000
MIN_SPEED, MAX_SPEED = 0.5, 2.0


class Synthesize:
    """Texts to streams of audio."""

    def __init__(self, models: Models) -> None:
        self.models = models
        models.require("synthesize", ready)

    async def __call__(self, request: SynthesizeRequest, call: Call) -> AsyncIterator[SynthesizeResponse]:
        """Messages whose bytes are the audio; the first names the model. BadInput for what can't be spoken."""
        asked, make_encoder = checked(request), encoder_of(request.format)
        model = self.models.choose("synthesize", request.model, call)
        voice = VOICE.of(model)
        check_voice(request.voice, voice.voice, model.name)
        speller = companion(self.models, model, "speller", voice.speller, call)
        encoder = await call.in_pool(make_encoder, SAMPLE_RATE)
        head: ModelVersion | None = ModelVersion(name=model.name, version=model.version)
        async with aclosing(ahead(Synthesis(model, voice, speller, asked, call).phrases())) as stream:
            async for spoken in stream:
                async for answer in call.each(answers(spoken, encoder)):
                    if head is not None:
                        answer.model.CopyFrom(head)
                        answer.sample_rate_hertz, head = SAMPLE_RATE, None
                    yield answer
        if rest := await call.in_pool(encoder.finish):
            yield SynthesizeResponse(audio=rest)


def checked(request: SynthesizeRequest) -> Asked:
    """What the request asks for. BadInput names the field that is wrong."""
    if not request.text.strip():
        raise BadInput("text", "expected a text that is not empty")
    if len(request.text) > MAX_CHARACTERS:
        raise BadInput("text", f"{len(request.text)} characters: expected at most {MAX_CHARACTERS}")
    speed = request.speed or 1.0
    if not MIN_SPEED <= speed <= MAX_SPEED:  # neither is what is no number
        raise BadInput("speed", f"{request.speed:g}: expected {MIN_SPEED:g} to {MAX_SPEED:g}, or 0 for 1")
    return Asked(request.text, speed, request.seed % 2**64)


def check_voice(asked: str, voice: str, model: str) -> None:
    """BadInput, listing the voices, for one that the model has not."""
    if asked not in ("", voice):
        raise BadInput("voice", f"{asked[:64]!r} is none of the voices of {model}: {voice}")


def ready(model: Model) -> None:
    """Reads a model's files before it serves, which takes 0.3 s. It blocks. ModelFailed for one that is wrong."""
    voice = VOICE.of(model)
    reader_of(model, voice)
    asset(model, read_symbols, voice.symbols)


def answers(spoken: SpokenPhrase, encoder: Encoder) -> Iterator[SynthesizeResponse]:
    """The messages of a phrase and of the pause before it, a second each, as far as the encoder has their bytes.

    Each step blocks. The sentence begins behind the pause.
    """
    samples, sentence = spoken.samples, spoken.phrase.sentence
    if spoken.phrase.pause and (pause := encoder.encode(silence(spoken.phrase.pause))):
        yield SynthesizeResponse(audio=pause)
    seconds = range(0, len(samples), SAMPLE_RATE)
    for audio in (encoder.encode(samples[start : start + SAMPLE_RATE]) for start in seconds):
        if audio or sentence:
            yield SynthesizeResponse(audio=audio, sentence=sentence)
            sentence = ""
