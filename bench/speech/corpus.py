"""Corpus: what is said in the bench, made once into a folder of the cache and the same on every machine.

Texts are public domain: Alice in Wonderland, Sherlock Holmes, Moby-Dick, Pride and Prejudice, speeches of Lincoln's and
others, and the Harvard sentences (IEEE, 1969).
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import soundfile

from bench.speech import sounds
from bench.speech.sounds import FLOOR, RATE, Samples
from bench.speech.voices import VOICES, need_espeak, say

TEXTS = Path(__file__).parent / "texts"
SOURCES = ("corpus.py", "sounds.py", "voices.py", "texts/utterances.txt", "texts/talks.txt")
"""What the corpus depends on: when one changes, it is made anew."""
CONDITIONS = ("clean", "white noise", "babble", "echo")
DECIBELS = 10.0
"""By which speech is louder than the noise."""
BEFORE, AFTER = 0.3, 0.5
"""Seconds of the room around an utterance."""
TALKS = (("5 minutes, Hibari", 300, 0, VOICES[:1]), ("10 minutes, espeak-ng", 600, 10, VOICES[1:2]))
LONG_TALK = ("20 minutes, three voices, pink noise at 20 dB", 1200, 0, VOICES)
TALK_DECIBELS = 20.0
PAUSES, LONG_PAUSES = (0.3, 1.0), (1.0, 2.0)
"""Seconds between sentences, and between paragraphs."""
TURNS, TURN_PAUSES = 8, (0.9, 2.5)
"""Utterances of a dialogue, and the seconds between them."""
DIALOGUES = 4
TURN_CHARACTERS = (60, 95)
"""Of a turn's text: some 4 to 6 s."""

Say = Callable[[str, str], Samples]


@dataclass(frozen=True, slots=True)
class Recording:
    """A file of the corpus."""

    path: str
    text: str
    seconds: float
    condition: str
    voice: str = ""
    ends: tuple[tuple[float, float], ...] = ()
    """Of a dialogue: when each of its utterances begins and ends."""


@dataclass(frozen=True, slots=True)
class Corpus:
    """All that is said and heard."""

    utterances: Sequence[Recording]
    """Each text by one voice, in every condition."""
    talks: Sequence[Recording]
    dialogues: Sequence[Recording]
    """Clean ones, then the same in noise."""
    wordless: Sequence[Recording]
    """Silence and music: no words are right."""


def corpus(cache: Path, tell: Callable[[str], None], speak: Say = say) -> Corpus:
    """The corpus, made when the cache does not have it. NoVoice without espeak-ng."""
    folder = cache / f"corpus-{_digest()}"
    index = folder / "index.json"
    if not index.exists():
        need_espeak()
        for old in cache.glob("corpus-*"):
            shutil.rmtree(old)
        folder.mkdir(parents=True)
        tell("the corpus is made, some two minutes")
        made = Corpus(
            utterances=list(utterances(folder, lines("utterances"), speak)),
            talks=list(talks(folder, speak)),
            dialogues=list(dialogues(folder, lines("utterances"), speak)),
            wordless=list(wordless(folder)),
        )
        index.write_text(json.dumps(asdict(made)), encoding="utf-8")
    found = json.loads(index.read_text(encoding="utf-8"))
    return Corpus(**{part: [_recording(each) for each in found[part]] for part in found})


def lines(name: str) -> list[str]:
    """The lines of a file of texts: utterances or paragraphs."""
    return (TEXTS / f"{name}.txt").read_text(encoding="utf-8").splitlines()


def sentences(paragraph: str) -> list[str]:
    """What is said in one breath, or nearly so."""
    return re.split(r"(?<=[.!?;])(?<!Mr\.)(?<!Mrs\.) ", paragraph)


def utterances(folder: Path, texts: Sequence[str], speak: Say) -> Iterator[Recording]:
    """Each text by one voice in turn, in every condition."""
    spoken = [sounds.at_level(speak(text, _voice(number))) for number, text in enumerate(texts)]
    for number, text in enumerate(texts):
        others = spoken[:number] + spoken[number + 1 :]
        for condition in CONDITIONS:
            heard = in_condition(spoken[number], condition, others, seed=number)
            name = f"utterance-{number:02}-{condition.replace(' ', '-')}"
            yield _write(folder, name, heard, text, condition, _voice(number))


def in_condition(speech: Samples, condition: str, others: Sequence[Samples], seed: int) -> Samples:
    """An utterance with the room around it; `others` are those whose babble may be heard."""
    room = [sounds.silence(BEFORE), speech, sounds.silence(AFTER)]
    whole = np.concatenate(room)
    quiet = whole + FLOOR * sounds.white(len(whole), seed)
    if condition == "white noise":
        return sounds.with_noise(quiet, sounds.white(len(whole), seed), DECIBELS)
    if condition == "babble":
        return sounds.with_noise(quiet, sounds.babble(len(whole), others, seed), DECIBELS)
    if condition == "echo":
        return sounds.with_echo(quiet, seed)
    return sounds.bounded(quiet)


def talks(folder: Path, speak: Say) -> Iterator[Recording]:
    """Five and ten minutes by one voice, twenty by three in noise."""
    paragraphs = lines("talks")
    for name, seconds, first, voices in (*TALKS, LONG_TALK):
        samples, text = talk(paragraphs[first:] + paragraphs[:first], seconds, voices, speak)
        if name == LONG_TALK[0]:
            samples = sounds.with_noise(samples, sounds.pink(len(samples), 0), TALK_DECIBELS)
        yield _write(folder, f"talk-{seconds}", samples, text, name, ", ".join(voices))


def talk(paragraphs: Sequence[str], seconds: float, voices: Sequence[str], speak: Say) -> tuple[Samples, str]:
    """(samples, text) of so many seconds or a sentence more: the paragraphs, each by the next voice."""
    chance = np.random.default_rng(7)
    parts, said, length = [sounds.silence(0.5)], [], 0
    for number, paragraph in enumerate(paragraphs):
        for sentence in sentences(paragraph):
            parts += [sounds.at_level(speak(sentence, voices[number % len(voices)])), _pause(chance, PAUSES)]
            said.append(sentence)
            length += len(parts[-2]) + len(parts[-1])
            if length >= seconds * RATE:
                break
        if length >= seconds * RATE:
            break
        parts.append(_pause(chance, LONG_PAUSES))
        length += len(parts[-1])
    samples = np.concatenate(parts)
    return sounds.bounded(samples + FLOOR * sounds.white(len(samples), 0)), " ".join(said)


def dialogues(folder: Path, texts: Sequence[str], speak: Say) -> Iterator[Recording]:
    """Two voices in turns, with pauses; each dialogue has texts of its own."""
    shortest, longest = TURN_CHARACTERS
    fitting = [text for text in texts if shortest <= len(text) <= longest]
    clean = [_dialogue(fitting[number::DIALOGUES][:TURNS], number, speak) for number in range(DIALOGUES)]
    for noisy in (False, True):
        for number, (samples, text, ends) in enumerate(clean):
            heard = samples
            if noisy:
                heard = sounds.with_noise(samples, sounds.pink(len(samples), number), DECIBELS)
            condition = f"pink noise at {DECIBELS:.0f} dB" if noisy else "clean"
            yield _write(folder, f"dialogue-{number}-{'noisy' if noisy else 'clean'}", heard, text, condition, "", ends)


def wordless(folder: Path) -> Iterator[Recording]:
    """Half a minute each of nothing, of a quiet room, of hum and of music."""
    length = 30 * RATE
    hum = np.sin(2 * np.pi * 50 * np.arange(length) / RATE) + 0.3 * np.sin(2 * np.pi * 150 * np.arange(length) / RATE)
    kinds = {
        "digital silence": sounds.silence(30),
        "a quiet room": FLOOR * sounds.white(length, 1),
        "hum": (0.02 * hum).astype(np.float32),
        "pink noise": sounds.LEVEL * sounds.pink(length, 2),
        "music": sounds.music(30, 3),
    }
    for name, samples in kinds.items():
        yield _write(folder, name.replace(" ", "-"), sounds.bounded(samples), "", name, "")


def _dialogue(texts: Sequence[str], seed: int, speak: Say) -> tuple[Samples, str, tuple[tuple[float, float], ...]]:
    chance = np.random.default_rng(seed)
    parts, ends = [sounds.silence(1.0)], []
    for number, text in enumerate(texts):
        begin = sum(map(len, parts)) / RATE
        parts.append(sounds.at_level(speak(text, VOICES[number % 2])))
        ends.append((begin, begin + len(parts[-1]) / RATE))
        parts.append(_pause(chance, TURN_PAUSES))
    samples = np.concatenate(parts)
    return sounds.bounded(samples + FLOOR * sounds.white(len(samples), seed)), " ".join(texts), tuple(ends)


def _pause(chance: np.random.Generator, seconds: tuple[float, float]) -> Samples:
    return sounds.silence(chance.uniform(*seconds))


def _voice(number: int) -> str:
    return VOICES[number % len(VOICES)]


def _write(
    folder: Path,
    name: str,
    samples: Samples,
    text: str,
    condition: str,
    voice: str,
    ends: tuple[tuple[float, float], ...] = (),
) -> Recording:
    path = folder / f"{name}.flac"
    soundfile.write(path, samples, RATE, subtype="PCM_16")
    return Recording(str(path), text, len(samples) / RATE, condition, voice, ends)


def _recording(found: dict[str, object]) -> Recording:
    made = Recording(**found)  # type: ignore[arg-type]
    return made


def _digest() -> str:
    digest = hashlib.sha256(version("hibari-tts").encode())
    for name in SOURCES:
        digest.update((Path(__file__).parent / name).read_bytes())
    return digest.hexdigest()[:12]
