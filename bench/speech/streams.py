"""Streams: dialogues as they are spoken, alone and four at once, and an hour of them in one stream."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from bench.speech.contestants import Ours, cpu_seconds
from bench.speech.corpus import DIALOGUES, Corpus, Recording
from bench.speech.service import Service
from bench.speech.stream import Answers, follow, samples_of
from bench.speech.words import Errors, errors, normalized, total

HOUR_SECONDS, QUICK_HOUR_SECONDS = 3600.0, 300.0
HOUR_PACE = 15.0
"""Times as quickly as it is spoken, where the service keeps up."""
WATCH_SECONDS = 1.0
MB = 1e6
SECTION = """\
Dialogues of two voices, {turns} utterances of some 5 s each, sent as they are spoken in chunks of 100 ms. `final` is
the time from the end of an utterance's sound to its final result, less the 0.5 s of silence that end it; `age` how
long ago the last sample was spoken that an interim result knows; `flaps` interim results that took back what was
stable; `missed` utterances without a result. `Recognize` has the same file as a whole."""


@dataclass(frozen=True, slots=True)
class Streamed:
    """Some streams that ran side by side."""

    recordings: Sequence[Recording]
    answers: Sequence[Answers]
    whole: Sequence[str]
    """What Recognize hears in the same files."""
    cpu_seconds: float


def section(service: Service, corpus: Corpus, tell: Callable[[str], None], *, quick: bool) -> str:
    """The section on streams."""
    clean, noisy = corpus.dialogues[:DIALOGUES], corpus.dialogues[DIALOGUES:]
    groups = [clean[:1], noisy[:1]] if quick else [clean[:1], noisy[:1], clean, noisy]
    ran = []
    for group in groups:
        tell(f"{len(group)} dialogue(s), {group[0].condition}, as they are spoken")
        ran.append(streamed(service, group))
    lines = [SECTION.format(turns=len(clean[0].ends)), "", *table(ran), ""]
    lines += wordless(service, corpus.wordless[-2:] if quick else corpus.wordless)
    tell("an hour in one stream")
    lines += ["", hour(service, clean[0], QUICK_HOUR_SECONDS if quick else HOUR_SECONDS)]
    return "\n".join(lines)


def streamed(service: Service, recordings: Sequence[Recording]) -> Streamed:
    """The recordings as streams, all at once, in real time."""
    samples = [samples_of(each) for each in recordings]
    before = cpu_seconds(service.pid)
    with ThreadPoolExecutor(len(samples)) as pool:
        answers = list(pool.map(lambda each: follow(service.client, each), samples))
    used = cpu_seconds(service.pid) - before
    whole = Ours(service.client, service.pid).hear([each.path for each in recordings])
    return Streamed(recordings, answers, [heard.text for heard in whole], used)


def table(ran: Sequence[Streamed]) -> list[str]:
    """A line for each group of streams."""
    head = ["streams", "final p50, s", "final max, s", "missed", "age p50, s", "age p99, s", "interims a s", "flaps"]
    head += ["word errors", "of Recognize", "CPU s a minute"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for each in ran:
        pairs = list(zip(each.recordings, each.answers, strict=True))
        delays = sorted(delay for recording, answers in pairs for delay in answers.delays(recording.ends))
        known = [delay for delay in delays if delay != float("inf")]
        ages = sorted(interim.came - interim.heard for answers in each.answers for interim in answers.interims)
        spoken = sum(end - begin for recording in each.recordings for begin, end in recording.ends)
        audio = sum(recording.seconds for recording in each.recordings)
        cells = [f"{len(pairs)}, {each.recordings[0].condition}", *_percentiles(known, 50, 100)]
        cells += [str(len(delays) - len(known)), *_percentiles(ages, 50, 99), f"{len(ages) / spoken:.1f}"]
        cells += [str(sum(answers.flaps() for answers in each.answers))]
        cells += [f"{_rate(each.recordings, [answers.text for answers in each.answers]):.3f}"]
        cells += [f"{_rate(each.recordings, each.whole):.3f}", f"{60 * each.cpu_seconds / audio:.1f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def wordless(service: Service, recordings: Sequence[Recording]) -> list[str]:
    """Streams without a word, as quickly as they are taken."""
    head = ["words heard in half a minute of", *(each.condition for each in recordings)]
    finals, interims = ["finals"], ["interims"]
    for each in recordings:
        answers = follow(service.client, samples_of(each), pace=4.0)
        finals.append(str(len(normalized(answers.text).split())))
        interims.append(str(max((len(interim.text.split()) for interim in answers.interims), default=0)))
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), finals, interims)]


def hour(service: Service, dialogue: Recording, wanted: float) -> str:
    """One stream of a dialogue again and again, and the service's memory meanwhile."""
    repeats = round(wanted / dialogue.seconds)
    resting = service.resident_bytes()
    service.forget_peak()
    held: list[int] = []
    over = threading.Event()
    watch = threading.Thread(target=_watch, args=(service, held, over))
    watch.start()
    try:
        answers = follow(service.client, samples_of(dialogue), pace=HOUR_PACE, repeats=repeats)
    finally:
        over.set()
        watch.join()
    audio = repeats * dialogue.seconds
    found = errors(" ".join([dialogue.text] * repeats), answers.text)
    quarters = [held[min(len(held) - 1, round(share * (len(held) - 1)))] / MB for share in (0.1, 0.25, 0.5, 0.75, 1)]
    return (
        f"One stream of {audio / 60:.0f} minutes, sent {audio / answers.ended:.1f} times as quickly as it is spoken: "
        f"memory {resting / MB:.0f} MB before it; after a tenth, a quarter, half, three quarters and all of it "
        f"{', '.join(f'{each:.0f}' for each in quarters)} MB, at most {service.peak_bytes() / MB:.0f}. "
        f"{len(answers.finals)} results, word errors {found.rate:.3f}, the last result "
        f"{answers.ended - answers.sent:.1f} s after the last sample."
    )


def _watch(service: Service, held: list[int], over: threading.Event) -> None:
    held.append(service.resident_bytes())
    while not over.wait(WATCH_SECONDS):
        held.append(service.resident_bytes())


def _percentiles(ordered: Sequence[float], *shares: float) -> list[str]:
    if not ordered:
        return ["none"] * len(shares)
    return [f"{ordered[min(len(ordered) - 1, int(len(ordered) * share / 100))]:.2f}" for share in shares]


def _rate(recordings: Sequence[Recording], texts: Sequence[str]) -> float:
    found: list[Errors] = [errors(each.text, text) for each, text in zip(recordings, texts, strict=True)]
    return total(found).rate
