"""Choice: which model answers a request that names none. Stage: task."""

from __future__ import annotations

from collections.abc import Iterable

from ortmesh.serving.cards import Card


def task_defaults(candidates: Iterable[tuple[Card, bool]]) -> dict[tuple[str, str], str]:
    """The model's name by (family, task), of the default versions of models as (card, whether it is ready).

    First whose card says so, then who is ready, then by name: a model that is only added takes no calls of another's.
    """
    ranked = sorted(
        (task not in card.default_for, not ready, card.name, card.family, task)
        for card, ready in candidates
        for task in card.tasks
    )
    chosen: dict[tuple[str, str], str] = {}
    for _, _, name, family, task in ranked:
        chosen.setdefault((family, task), name)
    return chosen
