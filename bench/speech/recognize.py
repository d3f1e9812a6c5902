"""Recognize beside faster-whisper: utterances, talks, and what is heard where nobody speaks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from bench.speech.chance import difference
from bench.speech.contest import Result, contest
from bench.speech.contestants import Contestant, Ours, measure
from bench.speech.corpus import CONDITIONS, Corpus, Recording
from bench.speech.peers import Batched, Defaults, Peer
from bench.speech.profile import profile
from bench.speech.service import Service
from bench.speech.words import normalized

CALLERS = 4
QUICK_UTTERANCES, QUICK_SECONDS = 12, 320.0
WARMED = 2
"""Files that everybody hears before it counts."""


def contestants(service: Service, peer: Peer) -> list[Contestant]:
    """Theirs and ours, alone and with four callers."""
    ours = [Ours(service.client, service.pid, callers) for callers in (1, CALLERS)]
    return [Defaults(peer), Batched(peer), *ours]


def utterances(
    service: Service, peer: Peer, corpus: Corpus, record: Path, tell: Callable[[str], None], *, quick: bool
) -> str:
    """The section on utterances."""
    chosen = few(corpus.utterances) if quick else corpus.utterances
    everyone = contestants(service, peer)
    for each in everyone:
        measure(each, [recording.path for recording in corpus.utterances[:WARMED]])
    results = contest(everyone, chosen, record, tell)
    conditions = [condition for condition in CONDITIONS if any(each.condition == condition for each in chosen)]
    lines = [
        f"{len(chosen)} recordings of {len(chosen) // len(CONDITIONS)} texts in three voices, "
        f"{sum(each.seconds for each in chosen) / 60:.0f} minutes.",
        "",
        *table(results, conditions, latencies=True),
        "",
        chances(results[0], results[-1], conditions),
        "",
        *wordless(everyone, corpus.wordless),
    ]
    return "\n".join(lines)


def talks(
    service: Service, peer: Peer, corpus: Corpus, record: Path, tell: Callable[[str], None], *, quick: bool
) -> str:
    """The section on talks: each caller of four sends the whole talk."""
    chosen = [talk for talk in corpus.talks if not quick or talk.seconds < QUICK_SECONDS]
    everyone = contestants(service, peer)
    alone = contest(everyone[:-1], chosen, record, tell, size=1)
    (together,) = contest(
        everyone[-1:], [chosen[0]] * CALLERS, record.with_suffix(".callers.jsonl"), tell, size=CALLERS
    )
    lines = [*table(alone, [each.condition for each in chosen], latencies=False), ""]
    lines += [
        f"Four callers at once, each with the first talk: word errors {together.rate():.3f}, {together.speed:.1f} "
        f"audio seconds a second, {together.cpu_a_minute:.2f} CPU seconds a minute of audio.",
        "",
        *profile(service, everyone[-2], chosen[0]),
    ]
    return "\n".join(lines)


def few(recordings: Sequence[Recording]) -> Sequence[Recording]:
    """Some of each voice in every condition."""
    return recordings[: QUICK_UTTERANCES * len(CONDITIONS)]


def table(results: Sequence[Result], conditions: Sequence[str], *, latencies: bool) -> list[str]:
    """A line for each contestant; speeds also as multiples of the first one's."""
    head = ["", *(f"word errors: {each}" for each in conditions), "all", "audio s a s", "of its defaults"]
    head += ["CPU s a minute"] + (["p50, s", "p99, s"] if latencies else [])
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for result in results:
        cells = [result.name, *(f"{result.rate(each):.3f}" for each in conditions), f"{result.rate():.3f}"]
        cells += [f"{result.speed:.1f}", f"{result.speed / results[0].speed:.2f}", f"{result.cpu_a_minute:.2f}"]
        cells += [f"{result.percentile(share):.2f}" for share in (50, 99)] if latencies else []
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def chances(theirs: Result, ours: Result, conditions: Sequence[str]) -> str:
    """How far the differences between two contestants could be chance."""
    found = {each: difference(theirs.errors[each], ours.errors[each]) for each in conditions}
    told = [f"{name} {each.rate:+.3f} ({each.least:+.3f} to {each.most:+.3f})" for name, each in found.items()]
    return (
        f"Word errors of {ours.name} less those of {theirs.name}, and between what they lie in 95 of 100 resamples "
        f"of the recordings: {', '.join(told)}."
    )


def wordless(everyone: Sequence[Contestant], recordings: Sequence[Recording]) -> list[str]:
    """How many words everybody hears where there are none."""
    head = ["words heard in half a minute of", *(each.condition for each in recordings)]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for contestant in everyone:
        heard = measure(contestant, [each.path for each in recordings]).heard
        lines.append(f"| {contestant.name} | {' | '.join(str(len(normalized(each.text).split())) for each in heard)} |")
    return lines
