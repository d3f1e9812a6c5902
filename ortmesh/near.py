"""Near names: which of the models there are a person may have meant. Stage: shared."""

from __future__ import annotations

from collections.abc import Collection
from difflib import get_close_matches

MOST_NEAR = 3
MOST_TOLD = 10
"""Where none is near."""
NEARNESS = 0.5
"""difflib's ratio from which a name counts as near."""
SHORTEST_BEGINNING = 2
LONGEST_NAME = 128
"""Of a model. A caller's may be megabytes: no more of it is compared."""


def near(name: str, names: Collection[str]) -> list[str]:
    """At most three of the names, nearest first: those that begin like it, then those that are spelt like it."""
    wanted = name[:LONGEST_NAME].lower()
    alike = {each.lower(): each for each in sorted(names)}
    begun = [low for low in alike if len(wanted) >= SHORTEST_BEGINNING and low.startswith(wanted)]
    spelt = get_close_matches(wanted, alike, n=MOST_NEAR, cutoff=NEARNESS)
    return [alike[low] for low in dict.fromkeys((*begun, *spelt))][:MOST_NEAR]


def near_in_words(name: str, names: Collection[str]) -> str:
    """`near names: …`; where none is near, those there are."""
    if found := near(name, names):
        return f"near names: {', '.join(found)}"
    if not names:
        return "no model is served"
    more = len(names) - MOST_TOLD
    return f"served: {', '.join(sorted(names)[:MOST_TOLD])}" + (f" and {more} more" if more > 0 else "")
