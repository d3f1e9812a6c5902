"""What requests may ask for: how many results, and how sure of them. Stage: task."""

from __future__ import annotations

import math

from ortmesh.errors import BadInput

MAX_RESULTS = 1000


def results_of(asked: int, default: int) -> int:
    """A request's `max_results`. BadInput outside 0 to 1,000; 0 is the default."""
    if not 0 <= asked <= MAX_RESULTS:
        raise BadInput("max_results", f"is {asked}; 1 to {MAX_RESULTS:,} is allowed, 0 means {default}")
    return asked or default


def min_score_of(asked: float, default: float) -> float:
    """A request's `min_score`. BadInput outside 0 to 1; 0 is the default."""
    if math.isnan(asked) or not 0 <= asked <= 1:
        raise BadInput("min_score", f"is {asked:g}; 0 to 1 is allowed, 0 means {default}")
    return asked or default
