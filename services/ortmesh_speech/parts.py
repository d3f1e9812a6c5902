"""Parts: calls for a part of a call's work, which can be admitted, cancelled and end alone. Stage: task."""

from __future__ import annotations

from ortmesh.front.call import Call


def part_of(call: Call) -> Call:
    """A call for a part of a call's work, which can be cancelled alone; whoever makes it cancels it in any case."""
    part = Call(
        call.method, call.pool, deadline=call.deadline, caller=call.caller, priority=call.priority, span=call.span
    )
    part.admitted = call.admitted
    return part
