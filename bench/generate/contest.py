"""Contest: the same jobs by all contestants in turns, and the figures of it as tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from statistics import median

from bench.generate.jobs import Drawn, Job, every_second
from bench.generate.plan import Plan
from bench.generate.processes import BARE, Contestant
from bench.generate.texts import Text, Wave, percentile

Waves = Mapping[str, list[Wave]]
"""Of each contestant, a round each."""
Say = Callable[[str], None]


def contest(contestants: Sequence[Contestant], rounds: Sequence[Sequence[Job]], streams: int, tell: Say) -> Waves:
    """All rounds by all contestants; in each another one begins."""
    waves: dict[str, list[Wave]] = {each.name: [] for each in contestants}
    for number, jobs in enumerate(rounds):
        first = number % len(contestants)
        for contestant in (*contestants[first:], *contestants[:first]):
            wave = contestant.write(jobs, streams)
            waves[contestant.name].append(wave)
            tell(f"{streams} streams, round {number + 1}: {contestant.name} {wave.rate:.0f} tokens/s")
    return waves


def streams(contestants: Sequence[Contestant], drawn: Drawn, plan: Plan, tell: Say) -> str:
    """Texts at 1, 4 and 16 streams."""
    lines = _head()
    for count, texts in zip(plan.streams, plan.texts, strict=True):
        rounds = [drawn.stories(texts, plan.tokens) for _ in range(plan.rounds)]
        lines += _rows(count, contest(contestants, rounds, count, tell))
    return "\n".join(lines)


def arriving(contestants: Sequence[Contestant], drawn: Drawn, plan: Plan, tell: Say) -> str:
    """The same while long prompts come, one a second."""
    lines = _head("first token of the long prompts, p50, s", "max, s")
    for count, texts in zip(plan.busy_streams, plan.busy_texts, strict=True):
        rounds = [
            [*drawn.stories(texts, plan.busy_tokens), *every_second(drawn, plan.came, plan.long)]
            for _ in range(plan.rounds)
        ]
        waves = contest(contestants, rounds, count, tell)
        lines += _rows(count, waves, lambda found: _firsts([text for wave in found for text in wave.came]))
    return "\n".join(lines)


def prompt(contestants: Sequence[Contestant], drawn: Drawn, plan: Plan, tell: Say) -> str:
    """A long prompt alone."""
    rounds = [[drawn.long(plan.long)] for _ in range(plan.prompts)]
    waves = contest(contestants, rounds, 1, tell)
    lines = ["| contestant | seconds to the first token, median | of the bare engine's |", "|---" * 3 + "|"]
    for name, found in waves.items():
        took = [wave.texts[0].first_seconds for wave in found]
        own = [wave.texts[0].first_seconds for wave in waves[BARE]]
        share = median(one / other for one, other in zip(took, own, strict=True))
        lines.append(f"| {name} | {median(took):.2f} | {share:.2f} |")
    return "\n".join(lines)


def _head(*more: str) -> list[str]:
    columns = [
        "streams",
        "contestant",
        "tokens/s",
        "of the bare engine's",
        "rounds",
        "tokens/s while no prompt is read",
    ]
    columns += ["first token, p50, s", "max, s", "longest gap, s", *more]
    return [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]


def _rows(count: int, waves: Waves, more: Callable[[list[Wave]], list[str]] = lambda found: []) -> Iterator[str]:
    for name, found in waves.items():
        shares = [wave.rate / own.rate for wave, own in zip(found, waves[BARE], strict=True)]
        texts = [text for wave in found for text in wave.streams]
        decoding = [rate for wave in found if (rate := wave.decode_rate)]
        cells = [str(count), name, f"{median(wave.rate for wave in found):.1f}", f"**{median(shares):.3f}**"]
        cells += [f"{min(shares):.3f}–{max(shares):.3f}", f"{median(decoding):.1f}" if decoding else ""]
        cells += [*_firsts(texts), f"{max(text.gap_seconds for text in texts):.3f}", *more(found)]
        yield f"| {' | '.join(cells)} |"


def _firsts(texts: Sequence[Text]) -> list[str]:
    took = [text.first_seconds for text in texts]
    return [f"{percentile(took, 50):.3f}", f"{max(took):.3f}"]
