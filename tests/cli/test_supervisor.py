"""The supervisor on real, tiny processes: kept alive with growing delays, ended in order, never left behind."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import subprocess
import sys
from typing import Any

import pytest

from ortmesh.cli.supervisor import Delays, Part, Supervisor, reason

HANG_SECONDS = 60.0
"""What lasts so long will not end by itself, however busy the machine is."""
SLEEPER = "import time; print('up', flush=True); time.sleep(600)"
STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"
)


def _part(name: str, code: str) -> Part:
    return Part(name, (sys.executable, "-c", code))


class Screen:
    """What was shown, and a way to wait for a line."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str]] = []
        self._news = asyncio.Event()

    def show(self, name: str, line: str) -> None:
        self.lines.append((name, line))
        self._news.set()

    async def until(self, name: str, text: str, times: int = 1) -> None:
        async with asyncio.timeout(HANG_SECONDS):
            while sum(text in line for each, line in self.lines if each == name) < times:
                self._news.clear()
                await self._news.wait()


@pytest.fixture
def screen() -> Screen:
    return Screen()


async def test_lines_of_both_outputs_are_shown_with_the_parts_name(screen: Screen) -> None:
    supervisor = Supervisor(screen.show)
    await supervisor.start(
        _part("a", "import sys, time; print('out', flush=True); print('err', file=sys.stderr); time.sleep(600)")
    )
    await screen.until("a", "err")
    assert ("a", "out") in screen.lines
    await supervisor.kill()


async def test_a_dead_part_is_started_again_with_a_growing_delay_and_its_reason(screen: Screen) -> None:
    deaths: list[tuple[str, int, str]] = []
    supervisor = Supervisor(
        screen.show, on_death=lambda *death: deaths.append(death), delays=Delays(first=0.05, longest=0.1, healthy=60)
    )
    await supervisor.start(_part("a", "print('starting'); raise SystemExit('no model')"))
    await screen.until("a", "starting", times=4)
    await screen.until("a", "starts again", times=4)
    await supervisor.kill()
    shown = [line for _, line in screen.lines if "starts again" in line]
    assert shown[:4] == [
        "exited with code 1: no model; starts again in 0.05 s",
        "exited with code 1: no model; starts again in 0.1 s",
        "exited with code 1: no model; starts again in 0.1 s",
        "exited with code 1: no model; starts again in 0.1 s",
    ]
    assert deaths[:3] == [("a", number, "exited with code 1: no model") for number in (1, 2, 3)]


async def test_after_a_healthy_life_the_delay_begins_anew(screen: Screen) -> None:
    supervisor = Supervisor(screen.show, delays=Delays(first=0.05, longest=5, healthy=0))
    await supervisor.start(_part("a", "pass"))
    await screen.until("a", "starts again in 0.05 s", times=3)
    await supervisor.kill()


async def test_a_killed_part_is_told_by_its_signal_and_lives_again(screen: Screen) -> None:
    supervisor = Supervisor(screen.show, delays=Delays(first=0.01))
    await supervisor.start(_part("a", SLEEPER))
    await screen.until("a", "up")
    first = supervisor.pid("a")
    assert first
    os.kill(first, signal.SIGKILL)
    await screen.until("a", "was ended by SIGKILL; starts again")
    await screen.until("a", "up", times=2)
    assert supervisor.pid("a") not in (None, first)
    await supervisor.kill()


async def test_parts_end_in_the_order_that_is_asked(screen: Screen) -> None:
    goodbye = (
        "import signal, time\n"
        "def end(*_): print('bye', flush=True); raise SystemExit\n"
        "signal.signal(signal.SIGTERM, end); print('up', flush=True); time.sleep(600)"
    )
    supervisor = Supervisor(screen.show)
    for name in ("service", "gateway"):
        await supervisor.start(_part(name, goodbye))
        await screen.until(name, "up")
    await supervisor.stop(["gateway"], HANG_SECONDS)
    assert supervisor.pid("service")
    await supervisor.stop(["service"], HANG_SECONDS)
    assert [name for name, line in screen.lines if line == "bye"] == ["gateway", "service"]
    assert not any("starts again" in line for _, line in screen.lines)


async def test_a_part_that_ignores_its_end_is_killed_after_the_grace(screen: Screen) -> None:
    supervisor = Supervisor(screen.show)
    await supervisor.start(_part("a", STUBBORN))
    await screen.until("a", "up")
    pid = supervisor.pid("a")
    assert pid
    await supervisor.stop(["a"], 0.2)
    assert ("a", "did not end within 0.2 s and is killed") in screen.lines
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_a_kill_during_a_grace_ends_it(screen: Screen) -> None:
    supervisor = Supervisor(screen.show)
    await supervisor.start(_part("a", STUBBORN))
    await screen.until("a", "up")
    async with asyncio.timeout(HANG_SECONDS), asyncio.TaskGroup() as group:
        group.create_task(supervisor.stop(["a"], 600))
        group.create_task(supervisor.kill())


async def test_a_part_between_two_lives_ends_at_once(screen: Screen) -> None:
    supervisor = Supervisor(screen.show, delays=Delays(first=600))
    await supervisor.start(_part("a", "pass"))
    await screen.until("a", "starts again in 600 s")
    async with asyncio.timeout(HANG_SECONDS):
        await supervisor.stop(["a"], 600)


async def test_a_grandchild_that_holds_the_pipe_does_not_hide_a_death(screen: Screen) -> None:
    """Envoy outlives a killed gateway for a moment and has its standard error."""
    code = (
        "import subprocess, sys\n"
        "print(subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']).pid, flush=True)"
    )
    supervisor = Supervisor(screen.show, delays=Delays(first=600))
    await supervisor.start(_part("a", code))
    await screen.until("a", "exited with code 0")
    os.kill(int(screen.lines[0][1]), signal.SIGKILL)
    await supervisor.kill()


async def test_long_lines_and_strange_bytes_do_not_stop_the_reading(screen: Screen) -> None:
    code = r"import sys; sys.stdout.buffer.write(b'x' * 200_000 + b'\n\xff\xfe\n' + b'last'); sys.stdout.flush()"
    supervisor = Supervisor(screen.show, delays=Delays(first=600))
    await supervisor.start(_part("a", code))
    await screen.until("a", "exited with code 0: last")
    await supervisor.kill()
    assert sum(line.count("x") for _, line in screen.lines if line.startswith("xx")) == 200_000


async def test_a_program_that_is_not_there_is_told(screen: Screen) -> None:
    supervisor = Supervisor(screen.show, delays=Delays(first=600))
    await supervisor.start(Part("a", ("/nowhere/program",)))
    await screen.until("a", "No such file or directory")
    await supervisor.kill()


async def test_the_environment_of_a_part_is_added_to_ours(screen: Screen) -> None:
    supervisor = Supervisor(screen.show)
    code = "import os, time; print(os.environ['ORTMESH_X'], 'PATH' in os.environ, flush=True); time.sleep(600)"
    await supervisor.start(Part("a", (sys.executable, "-c", code), {"ORTMESH_X": "7"}))
    await screen.until("a", "7 True")
    await supervisor.kill()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ties a child to its parent")
def test_children_end_when_the_supervisor_is_killed() -> None:
    """The parent writes its child's number and is killed: the child must end too, and soon."""
    code = (
        "import asyncio, sys\n"
        "from ortmesh.cli.supervisor import Part, Supervisor\n"
        "async def main():\n"
        "    supervisor = Supervisor(lambda name, line: print(supervisor.pid(name), flush=True))\n"
        f"    await supervisor.start(Part('a', (sys.executable, '-c', {SLEEPER!r})))\n"
        "    await asyncio.sleep(600)\n"
        "asyncio.run(main())\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout
        child = os.pidfd_open(int(parent.stdout.readline()))
        parent.kill()
        ended, _, _ = select.select([child], [], [], HANG_SECONDS)
        os.close(child)
    assert ended


@pytest.mark.parametrize(
    ("code", "last", "words"),
    [
        (1, "no model", "exited with code 1: no model"),
        (0, "", "exited with code 0"),
        (-9, "", "was ended by SIGKILL"),
        (-15, "draining", "was ended by SIGTERM"),
    ],
)
def test_the_reason_is_in_words(code: int, last: str, words: str) -> None:
    assert reason(code, last) == words


async def test_a_start_that_fails_is_a_death_like_others(screen: Screen, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that has no process or pipe left for a moment must not cost the part for good."""
    spawn, deaths = asyncio.create_subprocess_exec, []
    supervisor = Supervisor(
        screen.show, on_death=lambda *death: deaths.append(death), delays=Delays(first=0.01, longest=0.01)
    )
    await supervisor.start(_part("a", SLEEPER))
    await screen.until("a", "up")

    async def refuse_twice(*arguments: Any, **options: Any) -> Any:
        if len(deaths) < 3:
            raise BlockingIOError(11, "Resource temporarily unavailable")
        return await spawn(*arguments, **options)

    monkeypatch.setattr(asyncio, "create_subprocess_exec", refuse_twice)
    pid = supervisor.pid("a")
    assert pid
    os.kill(pid, signal.SIGKILL)
    await screen.until("a", "up", times=2)
    refused = "could not be started: [Errno 11] Resource temporarily unavailable"
    assert deaths == [("a", 1, "was ended by SIGKILL"), ("a", 2, refused), ("a", 3, refused)]
    await supervisor.kill()


async def test_a_part_that_is_told_to_end_while_it_starts_anew_does(
    screen: Screen, monkeypatch: pytest.MonkeyPatch
) -> None:
    spawn, starting, go_on = asyncio.create_subprocess_exec, asyncio.Event(), asyncio.Event()
    supervisor = Supervisor(screen.show, delays=Delays(first=0.01))
    await supervisor.start(_part("a", SLEEPER))
    await screen.until("a", "up")

    async def wait(*arguments: Any, **options: Any) -> Any:
        starting.set()
        await go_on.wait()
        return await spawn(*arguments, **options)

    monkeypatch.setattr(asyncio, "create_subprocess_exec", wait)
    pid = supervisor.pid("a")
    assert pid
    os.kill(pid, signal.SIGKILL)
    await starting.wait()
    stopping = asyncio.create_task(supervisor.stop(["a"], 600))
    await asyncio.sleep(0)
    go_on.set()
    await asyncio.wait_for(stopping, HANG_SECONDS)


async def test_the_signals_that_end_a_part_are_the_callers_choice(screen: Screen) -> None:
    code = (
        "import signal, time\n"
        "def say(number, _): print(signal.Signals(number).name, flush=True)\n"
        "def end(*_): print('SIGINT', flush=True); raise SystemExit\n"
        "signal.signal(signal.SIGTERM, say); signal.signal(signal.SIGINT, end)\n"
        "print('up', flush=True)\n"
        "while True: time.sleep(600)"
    )
    supervisor = Supervisor(screen.show)
    await supervisor.start(_part("a", code))
    await screen.until("a", "up")
    await supervisor.stop(["a"], HANG_SECONDS, (signal.SIGTERM, signal.SIGINT))
    assert {"SIGTERM", "SIGINT"} >= {line for _, line in screen.lines} - {"up"} >= {"SIGINT"}
