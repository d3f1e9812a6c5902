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
    assert used.wait(10)
    thread.join()


def test_many_use_the_device_side_by_side() -> None:
    quiet, both = Quiet(), threading.Barrier(2, timeout=10)

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
