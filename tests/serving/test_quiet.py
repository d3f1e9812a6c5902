"""Quiet: nobody else uses the device while one records, and nobody waits long for it."""

from __future__ import annotations

import threading

from ortmesh.serving.executor.quiet import Quiet


def test_whoever_comes_while_one_records_waits() -> None:
    quiet, used = Quiet(), threading.Event()

    def use() -> None:
        with quiet.using():
            used.set()

    thread = threading.Thread(target=use)
    with quiet.alone() as alone:
        assert alone
        thread.start()
        assert not used.wait(0.05)
    assert used.wait(60)
    thread.join()


def test_many_use_the_device_side_by_side() -> None:
    quiet, both = Quiet(), threading.Barrier(2, timeout=60)

    def use() -> None:
        with quiet.using():
            both.wait()

    threads = [threading.Thread(target=use) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not both.broken


def test_a_recording_does_not_wait_for_what_takes_long() -> None:
    quiet = Quiet()
    with quiet.using(), quiet.alone(patience=0.01) as alone:
        assert not alone
    with quiet.alone() as alone:
        assert alone


def test_what_is_freed_while_one_records_is_freed_afterwards() -> None:
    quiet, freed = Quiet(), list[str]()
    with quiet.alone():
        quiet.free(lambda: freed.append("by who records"))
        other = threading.Thread(target=quiet.free, args=(lambda: freed.append("by another"),))
        other.start()
        other.join(60)
        assert not other.is_alive(), "it waits for nobody"
        assert freed == []
    assert freed == ["by who records", "by another"]


def test_what_is_freed_while_nobody_records_is_freed_at_once() -> None:
    quiet, freed = Quiet(), list[int]()
    quiet.free(lambda: freed.append(1))
    with quiet.using():
        quiet.free(lambda: freed.append(2))
        assert freed == [1, 2]


def test_what_is_freed_while_one_waits_to_record_is_freed_also_if_it_gives_up() -> None:
    quiet, freed = Quiet(), threading.Event()

    def record() -> None:
        with quiet.alone(patience=0.2) as alone:
            assert not alone

    with quiet.using():
        thread = threading.Thread(target=record)
        thread.start()
        while thread.is_alive() and not freed.is_set():
            quiet.free(freed.set)
        thread.join()
    assert freed.is_set()
    with quiet.alone() as alone:
        assert alone, "all uses have ended"
