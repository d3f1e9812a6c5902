"""Equal: whether a text is the same alone and among others."""

from __future__ import annotations

from collections.abc import Sequence

from bench.generate.contest import Say
from bench.generate.jobs import Drawn
from bench.generate.plan import Plan
from bench.generate.processes import Contestant
from bench.generate.texts import Text


def equal(contestants: Sequence[Contestant], drawn: Drawn, plan: Plan, tell: Say) -> str:
    """How many texts are the same as alone, by how many are written at once."""
    jobs = drawn.stories(plan.compared, plan.compared_tokens)
    head = ["contestant", *(f"{count} at once" for count in plan.together)]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for contestant in contestants:
        alone = [_said(text) for text in contestant.write(jobs, 1).texts]
        cells = [contestant.name]
        for count in plan.together:
            among = [_said(text) for text in contestant.write(jobs, count).texts]
            cells.append(f"{sum(one == other for one, other in zip(alone, among, strict=True))} of {len(jobs)}")
        tell(f"equal texts: {', '.join(cells)}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _said(text: Text) -> tuple[Sequence[int], str]:
    return text.tokens, text.text
