"""Contest: the same files heard by all contestants in turns, and what each made of them."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.speech.contestants import Contestant, Measured, measure
from bench.speech.corpus import Recording
from bench.speech.words import Errors, errors, total

ROUND = 16
"""Files that one contestant hears before the next one's turn."""
Score = Callable[[str, str], Errors]


@dataclass
class Result:
    """All that one contestant heard."""

    name: str
    errors: dict[str, list[Errors]] = field(default_factory=lambda: defaultdict(list))
    """By condition."""
    latencies: list[float] = field(default_factory=list)
    audio_seconds: float = 0.0
    seconds: float = 0.0
    cpu_seconds: float = 0.0

    def add(self, recordings: Sequence[Recording], measured: Measured) -> list[Errors]:
        """What one turn brought; the errors of each file."""
        made = [errors(each.text, heard.text) for each, heard in zip(recordings, measured.heard, strict=True)]
        for recording, found in zip(recordings, made, strict=True):
            self.errors[recording.condition].append(found)
        self.latencies += [heard.seconds for heard in measured.heard]
        self.audio_seconds += sum(each.seconds for each in recordings)
        self.seconds += measured.seconds
        self.cpu_seconds += measured.cpu_seconds
        return made

    @property
    def speed(self) -> float:
        """Audio seconds a second of wall time."""
        return self.audio_seconds / self.seconds

    @property
    def cpu_a_minute(self) -> float:
        """CPU seconds a minute of audio."""
        return 60 * self.cpu_seconds / self.audio_seconds

    def rate(self, condition: str | None = None) -> float:
        """Word errors of a condition, or of all."""
        found = self.errors.values() if condition is None else [self.errors[condition]]
        return total(each for part in found for each in part).rate

    def percentile(self, percent: float) -> float:
        """Seconds of a file."""
        took = sorted(self.latencies)
        return took[min(len(took) - 1, int(len(took) * percent / 100))]


def contest(
    contestants: Sequence[Contestant],
    recordings: Sequence[Recording],
    record: Path,
    tell: Callable[[str], None],
    size: int = ROUND,
) -> list[Result]:
    """All recordings by all contestants, so many at a turn; the next round another one begins.

    What everyone heard is written to `record`, a line of JSON for each file.
    """
    results = {each.name: Result(each.name) for each in contestants}
    record.parent.mkdir(parents=True, exist_ok=True)
    with record.open("w", encoding="utf-8") as lines:
        for number, part in enumerate(rounds(recordings, size)):
            first = number % len(contestants)
            heard = {}
            for contestant in (*contestants[first:], *contestants[:first]):
                measured = measure(contestant, [each.path for each in part])
                made = results[contestant.name].add(part, measured)
                heard[contestant.name] = [
                    {"text": each.text, "wrong": found.wrong, "seconds": round(each.seconds, 3)}
                    for each, found in zip(measured.heard, made, strict=True)
                ]
            _write(lines.write, part, heard)
            lines.flush()
            tell(f"round {number + 1}: " + ", ".join(f"{each.name} {each.speed:.1f}" for each in results.values()))
    return list(results.values())


def rounds(recordings: Sequence[Recording], size: int) -> Iterable[Sequence[Recording]]:
    """The recordings, so many at a time."""
    return (recordings[start : start + size] for start in range(0, len(recordings), size))


def _write(
    write: Callable[[str], object], part: Sequence[Recording], heard: dict[str, list[dict[str, object]]]
) -> None:
    for place, recording in enumerate(part):
        texts = {name: each[place] for name, each in heard.items()}
        line = {"file": Path(recording.path).name, "condition": recording.condition, "voice": recording.voice}
        write(json.dumps({**line, "said": recording.text, "heard": texts}) + "\n")
