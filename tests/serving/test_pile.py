"""The pile: bounded, fair to the order of arrival, and never wasting work on who has left."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ortmesh.errors import Cancelled, Expired, NotReady, Overloaded
from ortmesh.serving.batcher import ArrivalOrder, CostAware, Pile, Policy
from ortmesh.serving.batcher.book import CostBook
from ortmesh.serving.batcher.policy import oldest_first
from ortmesh.serving.batcher.slack import MOST, Slack
from ortmesh.serving.types import Item, NoMeter, Owner
from ortmesh.serving.warmup import Capture


def caller() -> SimpleNamespace:
    return SimpleNamespace(cancelled=False, admitted=False)


def item(
    rows: int = 1, *, nbytes: int = 4, deadline: float = math.inf, owner: Owner | None = None, **kwargs: Any
) -> Item:
    tensors = {"x": np.zeros((rows, nbytes // 4), np.float32)}
    return Item(tensors, answer=Capture(), owner=owner or caller(), deadline=deadline, rows=rows, **kwargs)


def error_of(dropped: Item) -> BaseException | None:
    assert isinstance(dropped.answer, Capture)
    return dropped.answer.error


def book(rows: tuple[int, ...], sizes: tuple[int, ...], cost: Callable[[int, int], float]) -> CostBook:
    made = CostBook(sizes)
    made.measured({(count, size): cost(count, size) for count in rows for size in sizes})
    return made


FIVE_SECONDS = CostAware(book((1,), (1,), lambda rows, size: 5.0), sized=False)


class Waits(NoMeter):
    """Remembers why items waited."""

    def __init__(self) -> None:
        self.reasons: list[str] = []

    def queued(self, seconds: float, reason: str) -> None:
        self.reasons.append(reason)


class Drops(NoMeter):
    """Remembers why items were dropped."""

    def __init__(self) -> None:
        self.reasons: list[str] = []

    def dropped(self, reason: str) -> None:
        self.reasons.append(reason)


def test_an_idle_executor_gets_a_lone_item_at_once() -> None:
    pile, one = Pile(), item()
    pile.submit(one)
    assert pile.take(8) == [one]
    assert len(pile) == 0


def test_a_batch_is_what_piled_up_in_the_order_of_arrival() -> None:
    pile, items = Pile(), [item() for _ in range(10)]
    pile.submit_many(items)
    assert pile.take(4) == items[:4]
    assert pile.take(100) == items[4:]


def test_an_item_of_more_rows_than_the_limit_runs_alone() -> None:
    pile, large, small = Pile(), item(rows=9), item()
    pile.submit_many([large, small])
    assert pile.take(8) == [large]
    assert pile.take(8) == [small]


def test_items_of_different_groups_never_share_a_batch() -> None:
    pile = Pile()
    a, b, c = item(group="a"), item(group="b"), item(group="a")
    pile.submit_many([a, b, c])
    assert pile.take(8) == [a, c]
    assert pile.take(8) == [b]


def test_a_solo_item_runs_alone() -> None:
    pile, first, solo, last = Pile(), item(), item(solo=True), item()
    pile.submit_many([first, solo, last])
    assert pile.take(8) == [first, last]
    assert pile.take(8) == [solo]


def test_higher_priority_goes_first() -> None:
    pile, normal, urgent = Pile(), item(), item(priority=1)
    pile.submit_many([normal, urgent])
    assert pile.take(1) == [urgent]


def test_a_lower_priority_does_not_wait_for_ever() -> None:
    """While urgent items keep coming, of five turns one is another's."""
    pile = Pile()
    pile.submit_many([item() for _ in range(10)])
    pile.submit_many([item(priority=1) for _ in range(100)])
    taken = [each for _ in range(25) for each in pile.take(1) or []]
    assert sum(each.priority == 0 for each in taken) == 5


@pytest.mark.parametrize("sized", [True, False])
def test_a_higher_priority_goes_first_however_long_the_queue_is(sized: bool) -> None:
    pile = Pile(policy=CostAware(book((1, 8), (1, 64), lambda rows, size: 0.01 * rows), sized=sized))
    pile.submit_many([item(size=8) for _ in range(2000)])
    urgent = item(size=8, priority=1)
    pile.submit(urgent)
    assert urgent in (pile.take(8) or [])


def test_nobody_gets_more_by_calling_everything_urgent() -> None:
    """Between callers the turns count."""
    pile = Pile(policy=ArrivalOrder())
    urgent, plain = ([item(priority=high, caller=name) for _ in range(40)] for high, name in ((1, "a"), (0, "b")))
    pile.submit_many(urgent)
    pile.submit_many(plain)
    taken = [each for _ in range(10) for each in pile.take(4) or []]
    assert sum(each.caller == "a" for each in taken) == 20


def test_one_callers_flood_does_not_starve_another() -> None:
    """Of two callers each second item is the other's, however many the first has sent before."""
    pile = Pile()
    flood, few = [item(caller="a") for _ in range(100)], [item(caller="b") for _ in range(5)]
    pile.submit_many(flood)
    pile.submit_many(few)
    taken = [pile.take(1)[0] for _ in range(12)]  # type: ignore[index]
    assert few == [each for each in taken if each.caller == "b"]
    assert [each for each in taken if each.caller == "a"] == flood[:7]


def test_who_comes_back_waits_for_nothing_but_what_runs() -> None:
    """Not behind the next of somebody whose many items have waited longer."""
    pile = Pile()
    pile.submit_many([item(caller="many") for _ in range(10)])
    assert pile.take(1)[0].caller == "many"  # type: ignore[index]
    pile.submit(item(caller="few"))
    assert pile.take(1)[0].caller == "few"  # type: ignore[index]
    assert pile.take(1)[0].caller == "many"  # type: ignore[index]
    pile.submit(item(caller="few"))
    assert pile.take(1)[0].caller == "few"  # type: ignore[index]


def test_callers_are_several_until_one_has_been_alone_for_a_while() -> None:
    """Then batches are as large as they pay again."""
    now = 100.0
    asked: list[bool] = []

    class Asked(ArrivalOrder):
        def choose(self, waiting: Sequence[Item], limit: int, now: float, *, shared: bool) -> list[int]:
            asked.append(shared)
            return super().choose(waiting, limit, now, shared=shared)

    pile = Pile(policy=Asked(), clock=lambda: now)
    for caller, arrival in (("a", 100.0), ("a", 101.0), ("b", 102.0), ("a", 103.0), ("a", 108.0), ("a", 114.0)):
        now = arrival
        one = item(caller=caller)
        one.arrival = arrival
        pile.submit(one)
        pile.take(1)
    assert asked == [False, False, True, True, True, False]


def silent_beside_another(pile: Pile) -> list[str]:
    """Whose items run after `b` had none for long, and then 40 as `a` has."""
    pile.submit(item(caller="b"))
    for _ in range(100):
        pile.submit(item(caller="a"))
        pile.take(1)
    pile.submit_many([item(caller="a") for _ in range(40)])
    pile.submit_many([item(caller="b") for _ in range(40)])
    return [pile.take(1)[0].caller for _ in range(50)]  # type: ignore[index]


def test_a_caller_who_used_less_than_its_part_goes_first_with_a_few_items() -> None:
    assert silent_beside_another(Pile())[:16] == ["b"] * 16


def test_no_more_than_a_few_items_are_saved_up() -> None:
    """Then each gets half, whoever was silent for how long."""
    taken = silent_beside_another(Pile())[18:]
    assert taken.count("a") == taken.count("b") == 16
    assert "aaa" not in "".join(taken)


def test_who_was_never_there_has_saved_nothing() -> None:
    pile = Pile()
    for _ in range(100):
        pile.submit_many([item(caller="a"), item(caller="a")])
        pile.take(1)
    pile.submit_many([item(caller="new") for _ in range(10)])
    taken = [pile.take(1)[0].caller for _ in range(10)]  # type: ignore[index]
    assert 4 <= taken.count("new") <= 6


def test_a_flood_leaves_room_for_another_caller() -> None:
    pile = Pile(max_items=100)
    for _ in range(50):
        pile.submit(item(caller="a"))
    with pytest.raises(Overloaded, match="as much as is free"):
        pile.submit(item(caller="a"))
    for _ in range(25):
        pile.submit(item(caller="b"))


def test_a_long_list_of_callers_is_forgotten_once_they_were_served() -> None:
    pile = Pile()
    pile.submit(item(caller="first"))
    for number in range(5000):
        pile.submit(item(caller=str(number)))
        pile.take(1)
    assert len(pile._waiting._used) < 2048


def test_an_item_that_cannot_be_done_in_time_is_not_begun() -> None:
    """By what the model's runs cost."""
    pile, late, good = Pile(policy=FIVE_SECONDS), item(deadline=time.monotonic() + 4), item()
    pile.submit_many([late, good])
    assert pile.take(1) == [good]
    assert isinstance(error_of(late), Expired)


def test_who_is_dropped_is_told_aside_while_the_rest_is_computed() -> None:
    """What takes the executor's time is done elsewhere, if it has something to compute."""
    deeds: list[Callable[[], None]] = []
    pile = Pile(policy=FIVE_SECONDS, aside=deeds.append)
    late, good = item(deadline=time.monotonic() + 4), item()
    pile.submit_many([late, good])
    assert pile.take(1) == [good]
    assert not late.done
    deeds.pop()()
    assert isinstance(error_of(late), Expired)
    expired = item(deadline=time.monotonic())
    pile.submit(expired)
    assert pile.take(1, wait=0.0) == []
    assert isinstance(error_of(expired), Expired)
    assert not deeds


def test_items_that_are_thought_to_be_late_are_tried_when_nothing_else_waits() -> None:
    """The costs may be wrong, and only a run can show it."""
    pile = Pile(policy=FIVE_SECONDS)
    first, second = item(deadline=time.monotonic() + 4), item(deadline=time.monotonic() + 4)
    pile.submit_many([first, second])
    assert pile.take(1) == [first]
    assert first.hopeless, "that it is late teaches nothing"
    good = item()
    pile.submit(good)
    assert pile.take(1) == [good]
    assert isinstance(error_of(second), Expired)


def test_a_model_that_was_slow_for_a_moment_refuses_nobody_for_long() -> None:
    """Late answers have taught it to want much time; in time it forgets that, whether or not anybody is tried."""
    clock = SimpleNamespace(now=0.0)
    slack = Slack(lambda: clock.now)
    for _ in range(100):
        slack.ended(late=True)
    assert slack.factor == pytest.approx(MOST)
    clock.now += 10
    assert slack.factor < 1.2


def test_bytes_too_are_shared_among_callers() -> None:
    pile = Pile(max_bytes=100)
    for _ in range(4):
        pile.submit(item(nbytes=12, caller="a"))
    with pytest.raises(Overloaded, match="as much as is free"):
        pile.submit(item(nbytes=12, caller="a"))
    pile.submit(item(nbytes=40, caller="b"))
    while len(pile):
        pile.take(8)
    pile.submit(item(nbytes=100, caller="a"))


def test_why_an_item_waited_is_told() -> None:
    """Not at all; because all executors computed; because others overtook it. Who is behind in line was not."""
    meter = Waits()
    pile = Pile(policy=CostAware(book((1, 2), (1,), lambda rows, size: 1.0), sized=False), meter=meter)
    executor = threading.Thread(target=pile.take, args=(1,))
    executor.start()
    while not pile._free:
        time.sleep(0.001)
    pile.submit(item())
    executor.join()
    pile.submit_many([item(group="a"), item(group="b"), item(group="a"), item(group="b")])
    pile.take(2)
    pile.take(2)
    assert meter.reasons == ["free", "busy", "busy", "passed_over", "busy"]


def test_every_item_that_is_refused_or_left_is_counted() -> None:
    meter = Drops()
    pile = Pile(max_items=4, meter=meter)
    pile.submit_many([item() for _ in range(4)])
    with pytest.raises(Overloaded):
        pile.submit_many([item() for _ in range(3)])
    assert meter.reasons == ["overloaded"] * 3


def test_a_caller_that_leaves_at_its_deadline_was_late() -> None:
    """Callers watch their deadlines themselves: what reaches a service is that they left."""
    meter = Drops()
    pile, late, gone, good = Pile(meter=meter), item(), item(), item()
    for each in (late, gone):
        each.owner.cancelled = True  # type: ignore[misc]
        each.arrival -= 10
    late.deadline, gone.deadline = time.monotonic() + 0.5, time.monotonic() + 60
    pile.submit_many([late, gone, good])
    assert pile.take(8) == [good]
    assert meter.reasons == ["expired", "cancelled"]


def test_cancelled_and_expired_items_are_dropped_before_they_cost() -> None:
    pile, gone, late, good = Pile(), item(), item(deadline=time.monotonic() - 1), item()
    gone.owner.cancelled = True  # type: ignore[misc]
    pile.submit_many([gone, late, good])
    assert pile.take(8) == [good]
    assert isinstance(error_of(gone), Cancelled)
    assert isinstance(error_of(late), Expired)
    assert len(pile) == 0


def test_over_a_bound_in_items_the_error_says_when_to_come_back() -> None:
    pile = Pile(max_items=2)
    pile.submit_many([item(), item()])
    with pytest.raises(Overloaded) as refused:
        pile.submit(item())
    assert refused.value.retry_after_seconds is not None
    assert len(pile) == 2


def test_a_quiet_hour_does_not_make_callers_wait_longer() -> None:
    clock = SimpleNamespace(now=0.0)
    pile = Pile(max_items=4, clock=lambda: clock.now)
    clock.now = 3600.0
    for _ in range(3):
        pile.submit_many([item() for _ in range(4)])
        assert pile.take(4)
        clock.now += 0.5
    pile.submit_many([item() for _ in range(4)])
    with pytest.raises(Overloaded) as refused:
        pile.submit(item())
    assert refused.value.retry_after_seconds is not None
    assert refused.value.retry_after_seconds < 1


def test_submit_many_admits_all_or_nothing() -> None:
    pile = Pile(max_items=3)
    pile.submit_many([item(), item()])
    with pytest.raises(Overloaded):
        pile.submit_many([item(), item()])
    assert len(pile) == 2


def test_no_items_are_admitted_too() -> None:
    """All pictures of a request may be bad."""
    pile = Pile()
    pile.submit_many([])
    assert not len(pile)


def test_bytes_are_bounded_and_freed_when_items_leave() -> None:
    pile = Pile(max_bytes=100)
    pile.submit(item(nbytes=80))
    with pytest.raises(Overloaded):
        pile.submit(item(nbytes=40))
    pile.take(1)
    pile.submit(item(nbytes=40))


def test_a_single_item_over_the_bound_in_bytes_still_runs() -> None:
    pile = Pile(max_bytes=100)
    pile.submit(item(nbytes=400))
    assert pile.take(1)


def test_a_caller_whose_work_was_begun_is_not_refused_later() -> None:
    """Neither by this pile nor by another, of its model's later stage; a new caller is."""
    first, second = Pile(max_items=1), Pile(max_items=1, max_bytes=4)
    page = caller()
    first.submit(item(owner=page))
    second.submit(item())
    second.submit_many([item(owner=page, nbytes=8) for _ in range(3)])
    first.submit(item(owner=page))
    assert (len(first), len(second)) == (2, 4)
    for pile in (first, second):
        with pytest.raises(Overloaded):
            pile.submit(item())


def test_a_caller_that_was_refused_is_refused_again() -> None:
    pile, late = Pile(max_items=1), caller()
    pile.submit(item())
    for _ in range(2):
        with pytest.raises(Overloaded):
            pile.submit_many([item(owner=late), item(owner=late)])
    assert not late.admitted


def test_take_waits_for_work_and_returns_none_once_closed() -> None:
    pile, taken = Pile(), []
    executor = threading.Thread(target=lambda: taken.extend([pile.take(8), pile.take(8)]))
    executor.start()
    one = item()
    pile.submit(one)
    pile.close()
    executor.join(60)
    assert taken == [[one], None]


def test_take_gives_up_after_its_wait() -> None:
    assert Pile().take(8, wait=0.01) == []


def test_a_closed_pile_takes_nothing_more() -> None:
    pile = Pile()
    pile.close()
    with pytest.raises(NotReady):
        pile.submit(item())


def test_closing_with_an_error_ends_what_waits() -> None:
    pile, waiting = Pile(), item()
    pile.submit(waiting)
    pile.close(NotReady("unloaded"))
    assert isinstance(error_of(waiting), NotReady)
    assert pile.take(8) is None


def test_a_maximum_wait_gathers_more() -> None:
    pile, first, second = Pile(max_wait_seconds=5), item(), item()
    pile.submit(first)
    later = threading.Timer(0.05, pile.submit, [second])
    later.start()
    assert pile.take(2) == [first, second]


shapes = st.tuples(
    st.integers(1, 6),
    st.sampled_from("abc"),
    st.booleans(),
    st.integers(0, 2),
    st.sampled_from(["", "x", "y"]),
    st.integers(0, 99),
)
BOOK = book((1, 8), (1, 64), lambda rows, size: 0.01 + rows * size)
UNKNOWN = CostBook((1,))


@pytest.mark.parametrize(
    "policy",
    [ArrivalOrder(), CostAware(BOOK, sized=True), CostAware(BOOK, sized=False), CostAware(UNKNOWN, sized=True)],
    ids=["arrival", "by cost", "of one size", "unknown"],
)
@given(described=st.lists(shapes, min_size=1, max_size=40), limit=st.integers(1, 8))
def test_every_item_is_taken_exactly_once_within_the_limit(
    policy: Policy, described: list[tuple[int, str, bool, int, str, int]], limit: int
) -> None:
    items = [
        item(rows, group=group, solo=solo, priority=priority, caller=caller, size=size)
        for rows, group, solo, priority, caller, size in described
    ]
    pile, seen = Pile(policy=policy), []
    for each in items:
        pile.submit(each)
    while len(pile):
        batch = pile.take(limit)
        assert batch
        assert len(batch) == 1 or sum(each.rows for each in batch) <= limit
        assert len({each.group for each in batch}) == 1
        assert len(batch) == 1 or not any(each.solo for each in batch)
        seen += batch
    assert sorted(map(id, seen)) == sorted(map(id, items))


@given(st.lists(shapes, min_size=1, max_size=40), st.integers(1, 8))
def test_within_a_batch_the_order_of_arrival_is_kept(
    described: list[tuple[int, str, bool, int, str, int]], limit: int
) -> None:
    items = [item(rows, group=group, solo=solo, priority=priority) for rows, group, solo, priority, *_ in described]
    chosen = oldest_first(items, limit)
    assert chosen == sorted(set(chosen))
