"""Tasks: one function a method of the API; each asks the mesh as any application would. Stage: tasks."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import grpc
import numpy as np
from google.rpc import error_details_pb2

from demo.answers import (
    Answers,
    Came,
    Classified,
    Compared,
    Detected,
    Dictated,
    Found,
    Line,
    Ranked,
    ReadPage,
    Recognized,
    Refused,
    Searched,
    SpeechFound,
    Spoken,
    Thing,
    Told,
    VoicesCompared,
    Written,
)
from demo.failure import DemoFailed
from demo.inputs import (
    FORMED,
    GREETINGS,
    LETTER,
    PASSAGES,
    PERSON,
    PERSON_FIELDS,
    PROMPTS,
    QUESTION,
    SPOKEN,
    Inputs,
    Page,
    Picture,
    Recording,
    Talk,
    Voice,
    recording,
)
from demo.models import Models
from demo.tensors import MODEL, infer
from ortmesh.client import Client, status_of, violations
from ortmesh.common.v1 import common_pb2
from ortmesh.nlp.v1 import nlp_pb2
from ortmesh.speech.v1 import speech_pb2
from ortmesh.vision.v1 import vision_pb2

R = TypeVar("R")

SPEAK_SECONDS = 60.0
WRITE_SECONDS = 60.0
MOST_TOKENS = 60
"""Of a text that is written."""
STREAMS = "streaming_recognize"
CHUNK_SECONDS = 0.1
QUICKER = 4
"""Than it is spoken comes what is written down while it comes: nobody wants to wait for it."""
NOT_A_PICTURE = b"Dear mesh, this is a letter and not a picture.\n"


def ask_all(mesh: Client, address: str, inputs: Inputs, models: Models) -> Answers:
    """Every task for which the models are there. DemoFailed when the mesh refuses what it must not."""
    sees, reads = models.serve("vision", "classify"), models.serve("vision", "read_text")
    hears, embeds = models.serve("speech", "recognize"), models.serve("nlp", "embed")
    listens = models.serve("speech", "detect_speech")
    try:
        return Answers(
            classified=tuple(classify(mesh, picture) for picture in inputs.pictures[:3]) if sees else (),
            compared=compare(mesh, inputs.pictures) if models.serve("vision", "embed") else None,
            detected=tuple(detect(mesh, each) for each in inputs.portraits) if models.serve("vision", "detect") else (),
            read=tuple(read_text(mesh, page) for page in inputs.pages) if reads else (),
            recognized=tuple(recognize(mesh, recording) for recording in inputs.recordings) if hears else (),
            spoken=speak(mesh, SPOKEN, hears=hears) if models.serve("speech", "synthesize") else None,
            dictated=dictate(mesh, inputs.talk) if hears and listens and models.serve("speech", STREAMS) else None,
            speech_found=detect_speech(mesh, inputs.talk) if listens else None,
            voices=compare_voices(mesh, inputs.voices) if models.serve("speech", "embed_speaker") else None,
            ranked=rank(mesh, QUESTION, PASSAGES) if embeds else None,
            told=tell_languages(mesh, GREETINGS) if models.serve("nlp", "detect_language") else None,
            searched=search(mesh, LETTER) if models.serve("nlp", "find_entities") else None,
            written=write(mesh) if models.serve("nlp", "generate") else (),
            tensors=infer(address, inputs.pictures[0], models.labels(MODEL)) if sees else None,
            refused=refusals(mesh, inputs.pictures[0]) if sees else (),
        )
    except grpc.RpcError as error:
        raise DemoFailed(f"the mesh answered {error.code().name}: {error.details()}") from error


def classify(mesh: Client, picture: Picture) -> Classified:
    """VisionService.Classify: what a picture shows."""
    request = vision_pb2.ClassifyRequest(image=vision_pb2.Image(encoded=picture.encoded), max_results=3)
    answer, came = _timed("VisionService.Classify", mesh.vision.Classify, request)
    return Classified(picture, tuple((label.name, label.score) for label in answer.labels), came)


def compare(mesh: Client, pictures: Sequence[Picture]) -> Compared:
    """VisionService.Embed: pictures as vectors of length 1, whose dot product is their cosine."""
    request = vision_pb2.EmbedRequest(images=[vision_pb2.Image(encoded=picture.encoded) for picture in pictures])
    answer, came = _timed("VisionService.Embed", mesh.vision.Embed, request)
    vectors = np.array([result.embedding.values for result in answer.results])
    cosines = (vectors @ vectors.T).tolist()
    return Compared(tuple(pictures), tuple(map(tuple, cosines)), vectors.shape[1], came)


def detect(mesh: Client, picture: Picture) -> Detected:
    """VisionService.Detect: faces, by the default model."""
    request = vision_pb2.DetectRequest(image=vision_pb2.Image(encoded=picture.encoded))
    answer, came = _timed("VisionService.Detect", mesh.vision.Detect, request)
    return Detected(picture, tuple(map(thing, answer.detections)), came)


def thing(each: vision_pb2.Detection) -> Thing:
    """A detection as plain values."""
    box = (each.box.x_min, each.box.y_min, each.box.x_max, each.box.y_max)
    return Thing(each.name, each.score, box, tuple((point.x, point.y) for point in each.landmarks))


def read_text(mesh: Client, page: Page) -> ReadPage:
    """VisionService.ReadText: the lines of a page and where they are."""
    request = vision_pb2.ReadTextRequest(image=vision_pb2.Image(encoded=page.picture.encoded))
    answer, came = _timed("VisionService.ReadText", mesh.vision.ReadText, request)
    lines = (
        Line(line.text, line.score, tuple((corner.x, corner.y) for corner in line.corners)) for line in answer.lines
    )
    return ReadPage(page, tuple(lines), came)


def recognize(mesh: Client, recording: Recording) -> Recognized:
    """SpeechService.Recognize: what is said in a recording."""
    request = speech_pb2.RecognizeRequest(audio=speech_pb2.Audio(encoded=recording.encoded))
    answer, came = _timed("SpeechService.Recognize", mesh.speech.Recognize, request)
    confidence = min((segment.confidence for segment in answer.segments), default=0.0)
    return Recognized(recording, answer.transcript, confidence, came)


def speak(mesh: Client, text: str, *, hears: bool) -> Spoken:
    """SpeechService.Synthesize: a text spoken aloud; what was said is then recognized, where it can be."""
    began = time.perf_counter()
    parts: list[speech_pb2.SynthesizeResponse] = []
    first = 0.0
    for part in mesh.speech.Synthesize(
        speech_pb2.SynthesizeRequest(text=text, format=speech_pb2.AUDIO_FORMAT_S16LE), timeout=SPEAK_SECONDS
    ):
        first = first or time.perf_counter() - began
        parts.append(part)
    model = f"{parts[0].model.name}@{parts[0].model.version}"
    came = Came("SpeechService.Synthesize", model, time.perf_counter() - began)
    samples = np.frombuffer(b"".join(part.audio for part in parts), "<i2").astype(np.float32) / np.float32(32768)
    spoken = recording(text, samples, parts[0].sample_rate_hertz)
    return Spoken(spoken, first, recognize(mesh, spoken).transcript if hears else "", came)


def dictate(mesh: Client, talk: Talk) -> Dictated:
    """SpeechService.StreamingRecognize: what is said, while it is said, four times as quickly."""

    def requests() -> Iterator[speech_pb2.StreamingRecognizeRequest]:
        form = speech_pb2.StreamFormat(container=True)
        config = speech_pb2.StreamingRecognizeConfig(format=form, interim_results=True)
        yield speech_pb2.StreamingRecognizeRequest(config=config)
        content = talk.recording.encoded
        size = int(len(content) * CHUNK_SECONDS / talk.recording.seconds)
        for start in range(0, len(content), size):
            yield speech_pb2.StreamingRecognizeRequest(audio=content[start : start + size])
            time.sleep(CHUNK_SECONDS / QUICKER)

    began = time.perf_counter()
    model, lines = "", []
    for answer in mesh.speech.StreamingRecognize(requests(), timeout=SPEAK_SECONDS):
        if answer.HasField("models"):
            model = f"{answer.models.model.name}@{answer.models.model.version}"
        elif answer.HasField("interim"):
            lines.append((answer.interim.heard.ToMilliseconds() / 1000, answer.interim.transcript, False))
        elif answer.HasField("result"):
            lines.append((answer.result.end.ToMilliseconds() / 1000, answer.result.transcript, True))
    came = Came("SpeechService.StreamingRecognize", model, time.perf_counter() - began)
    return Dictated(talk, tuple(lines), came)


def detect_speech(mesh: Client, talk: Talk) -> SpeechFound:
    """SpeechService.DetectSpeech: when somebody speaks. Only pauses between sentences count."""
    request = speech_pb2.DetectSpeechRequest(audio=speech_pb2.Audio(encoded=talk.recording.encoded))
    request.min_silence.FromMilliseconds(500)
    answer, came = _timed("SpeechService.DetectSpeech", mesh.speech.DetectSpeech, request)
    edges = ((each.start.ToMilliseconds() / 1000, each.end.ToMilliseconds() / 1000) for each in answer.intervals)
    return SpeechFound(talk, tuple(edges), came)


def compare_voices(mesh: Client, voices: Sequence[Voice]) -> VoicesCompared:
    """SpeechService.EmbedSpeaker: voices as vectors of length 1, whose dot product is their cosine."""
    audios = [speech_pb2.Audio(encoded=voice.recording.encoded) for voice in voices]
    asked = [speech_pb2.EmbedSpeakerRequest(audio=audio) for audio in audios]
    answers = [_timed("SpeechService.EmbedSpeaker", mesh.speech.EmbedSpeaker, request) for request in asked]
    vectors = np.array([answer.embedding.values for answer, _ in answers])
    came = Came(answers[0][1].method, answers[0][1].model, sum(came.seconds for _, came in answers))
    return VoicesCompared(tuple(voices), tuple(map(tuple, (vectors @ vectors.T).tolist())), vectors.shape[1], came)


def rank(mesh: Client, question: str, passages: Sequence[str]) -> Ranked:
    """NlpService.Embed: passages by how close their meaning is to a question's."""
    answer, came = _timed("NlpService.Embed", mesh.nlp.Embed, nlp_pb2.EmbedRequest(texts=[question, *passages]))
    asked, *rest = np.array([result.embedding.values for result in answer.results])
    closest = sorted(zip(passages, (float(asked @ vector) for vector in rest), strict=True), key=lambda pair: -pair[1])
    return Ranked(question, tuple(closest), len(asked), came)


def tell_languages(mesh: Client, texts: Sequence[str]) -> Told:
    """NlpService.DetectLanguage: the most probable language of each text."""
    request = nlp_pb2.DetectLanguageRequest(texts=texts)
    answer, came = _timed("NlpService.DetectLanguage", mesh.nlp.DetectLanguage, request)
    best = [result.detected.languages[0] for result in answer.results]
    return Told(tuple((text, each.name, each.score) for text, each in zip(texts, best, strict=True)), came)


def search(mesh: Client, letter: str) -> Searched:
    """NlpService.FindEntities: the personal data in a letter."""
    answer, came = _timed("NlpService.FindEntities", mesh.nlp.FindEntities, nlp_pb2.FindEntitiesRequest(text=letter))
    by = {nlp_pb2.ENTITY_SOURCE_MODEL: "model", nlp_pb2.ENTITY_SOURCE_PATTERN: "pattern"}
    entities = (Found(each.type, each.text, each.start, each.end, by[each.source]) for each in answer.entities)
    return Searched(letter, tuple(entities), came)


def write(mesh: Client) -> tuple[Written, ...]:
    """NlpService.Generate: answers as they are written, one of them in the form of a JSON schema."""
    formed = _request(FORMED)
    formed.json_schema = json.dumps(PERSON)
    plain = tuple(_written(mesh, prompt, "", _request(prompt)) for prompt in PROMPTS)
    return (*plain, _written(mesh, FORMED, f"(as JSON with {', '.join(PERSON_FIELDS)})", formed))


def _request(prompt: str) -> nlp_pb2.GenerateRequest:
    message = nlp_pb2.ChatMessage(role=nlp_pb2.CHAT_ROLE_USER, content=prompt)
    return nlp_pb2.GenerateRequest(chat=nlp_pb2.Chat(messages=[message]), max_tokens=MOST_TOKENS)


def _written(mesh: Client, asked: str, form: str, request: nlp_pb2.GenerateRequest) -> Written:
    began = time.perf_counter()
    pieces: list[nlp_pb2.GenerateResponse] = []
    first = 0.0
    for piece in mesh.nlp.Generate(request, timeout=WRITE_SECONDS):
        pieces.append(piece)
        if piece.text and not first:
            first = time.perf_counter() - began
    model = f"{pieces[0].model.name}@{pieces[0].model.version}"
    came = Came("NlpService.Generate", model, time.perf_counter() - began)
    text = "".join(piece.text for piece in pieces)
    return Written(asked, form, text, pieces[-1].usage.generated_tokens, first, came)


def refusals(mesh: Client, picture: Picture) -> tuple[Refused, ...]:
    """Two requests that are wrong: what is sent, and what is asked for."""
    letter = vision_pb2.ClassifyRequest(image=vision_pb2.Image(encoded=NOT_A_PICTURE))
    misspelt = vision_pb2.ClassifyRequest(model="eficientnet", image=vision_pb2.Image(encoded=picture.encoded))
    return (
        refusal("a text file in place of a picture", mesh.vision.Classify, letter),
        refusal('a misspelt model: "eficientnet"', mesh.vision.Classify, misspelt),
    )


def refusal(what: str, method: Callable[[Any], Any], request: Any) -> Refused:
    """How the mesh refuses a request. DemoFailed when it does not."""
    began = time.perf_counter()
    try:
        method(request)
    except grpc.RpcError as error:
        came = Came("VisionService.Classify", "", time.perf_counter() - began)
        fields = tuple(field for field, _ in violations(error))
        return Refused(what, error.code().name, _reason(error), error.details() or "", fields, came)
    raise DemoFailed(f"the mesh accepted {what}")


def _reason(error: grpc.RpcError) -> str:
    info = error_details_pb2.ErrorInfo()
    return next((info.reason for detail in status_of(error).details if detail.Unpack(info)), "")


def _timed(name: str, method: Callable[[Any], R], request: Any) -> tuple[R, Came]:
    """Calls a method whose answer says which model gave it."""
    began = time.perf_counter()
    answer: Any = method(request)
    seconds = time.perf_counter() - began
    model: common_pb2.ModelVersion = answer.model
    return answer, Came(name, f"{model.name}@{model.version}", seconds)
