"""Mesh: the processes of a plan, started, watched until they are ready, and ended in order. Stage: command line."""

from __future__ import annotations

import asyncio
import signal
import time

from rich.text import Text

from ortmesh.cli.console import PartLines, out
from ortmesh.cli.failed_models import not_served, nothing_to_serve, waits_for
from ortmesh.cli.failures import settings
from ortmesh.cli.health import Models, NothingToServe, until_loaded, until_ready, until_serving
from ortmesh.cli.hints import print_hints, reachable
from ortmesh.cli.plan import SERVICES, Plan, ServicePart
from ortmesh.cli.supervisor import Supervisor
from ortmesh.config import GatewaySettings, ServiceSettings

START_ATTEMPTS = 3
"""A part that dies as often before the mesh was ready will not live: the start is given up."""
MARGIN_SECONDS = 10.0
"""What a part may need to end beyond the time that its calls have."""


NOW = (signal.SIGTERM, signal.SIGINT)
"""Ends a service without the time that callers get to look elsewhere. SIGTERM alone ends one that is still starting."""


class NotStarted(Exception):
    """The mesh did not get ready; the text says which part and why."""


class Mesh:
    """The processes of a plan, from start to end."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._front = (plan.gateway, plan.proxy)
        self._gateway = settings(GatewaySettings)
        # The limits of all families come from the same variables.
        self._service = settings(lambda: ServiceSettings(family="nlp"))
        self._lines = PartLines(plan.names)
        self._supervisor = Supervisor(self._lines.show, on_death=self._died)
        self._missing = dict.fromkeys(plan.names)
        self._waiting: dict[str, str] = {}
        """For which models of a part it is waited, and why."""
        self._models: Models = ()
        self._dead: asyncio.Future[str] | None = None
        self._signals: asyncio.Queue[signal.Signals] = asyncio.Queue()

    async def run(self, ready_within: float | None) -> None:
        """Serves until a signal comes. NotStarted when it is not ready within so many seconds; None: it may take
        for ever."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            # nohup has SIGHUP ignored; a shell's background job has SIGINT ignored too, and must end all the same.
            if number is not signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
                loop.add_signal_handler(number, self._signals.put_nowait, number)
        try:
            if await self._start(ready_within):
                await self._signals.get()
        finally:
            await self._stop()

    async def _start(self, ready_within: float | None) -> bool:
        """True once all is ready, False when a signal came before."""
        began = time.monotonic()
        self._dead = asyncio.get_running_loop().create_future()
        for path in self._plan.leftovers:
            path.unlink(missing_ok=True)
        for service in self._plan.services:
            await self._supervisor.start(service.part)
        for part in self._front:
            await self._supervisor.start(part)
        ready = asyncio.create_task(self._until_ready())
        signalled = asyncio.create_task(self._signals.get())
        waiting: set[asyncio.Future[object]] = {ready, signalled, self._dead}  # type: ignore[arg-type]
        done, _ = await asyncio.wait(waiting, timeout=ready_within, return_when=asyncio.FIRST_COMPLETED)
        for task in (ready, signalled):
            task.cancel()
        await asyncio.wait([ready, signalled])
        if self._dead in done:
            raise NotStarted(self._dead.result())
        if not done:
            raise NotStarted(self._too_late(ready_within or 0))
        if ready not in done:
            return False
        ready.result()
        self._dead = None
        out.print(Text(f"ready in {time.monotonic() - began:.1f} s", style="bold green"))
        for line in not_served(self._models):
            out.print(Text(line, style="yellow"), soft_wrap=True)
        print_hints(self._plan)
        return True

    async def _until_ready(self) -> None:
        """Every replica by itself, then the mesh as a caller sees it."""
        async with asyncio.TaskGroup() as group:
            for service in self._plan.services:
                group.create_task(self._until_service_ready(service))
        address, families = reachable(self._plan.address), self._plan.families
        await until_serving(address, ["", *(SERVICES[family] for family in families)])
        self._models = await until_loaded(address)
        for part in self._front:
            self._is_ready(part.name)

    async def _until_service_ready(self, service: ServicePart) -> None:
        name = service.part.name
        try:
            await until_ready(service.address, lambda failed: self._waits(name, waits_for(failed)))
        except NothingToServe as nothing:
            others = [family for family in self._plan.families if family != service.family]
            self._give_up(nothing_to_serve(service.family, nothing.models, others, self._plan.store))
            return
        self._waiting.pop(name, None)
        self._is_ready(name)

    def _waits(self, name: str, told: str) -> None:
        self._waiting[name] = told
        self._lines.show(name, told)

    def _too_late(self, seconds: float) -> str:
        parts = ", ".join(self._missing)
        told = [f"  {name} {why}" for name, why in self._waiting.items()]
        return "\n".join([f"not ready within {seconds:g} s: {parts}; a longer time is --timeout", *told])

    def _is_ready(self, name: str) -> None:
        del self._missing[name]
        self._lines.show(name, "is ready")

    def _died(self, name: str, deaths: int, reason: str) -> None:
        if deaths >= START_ATTEMPTS:
            self._give_up(f"{name} does not start ({deaths} attempts), it {reason}")

    def _give_up(self, why: str) -> None:
        """Ends the start; once the mesh is ready nothing does."""
        if self._dead is not None and not self._dead.done():
            self._dead.set_result(why)

    async def _stop(self) -> None:
        """The front first: its calls end, no new ones come; then the services. A second signal ends all at once."""
        out.print(Text("stopping; Ctrl-C again ends at once", style="bold"))
        stopping = asyncio.create_task(self._stop_in_order())
        again = asyncio.create_task(self._signals.get())
        await asyncio.wait([stopping, again], return_when=asyncio.FIRST_COMPLETED)
        if not stopping.done():
            await self._supervisor.kill()
        again.cancel()
        await asyncio.wait([again])
        await stopping
        out.print(Text("stopped", style="bold"))

    async def _stop_in_order(self) -> None:
        await self._supervisor.stop([part.name for part in self._front], _seconds_to_end(self._gateway))
        services = [each.part.name for each in self._plan.services]
        await self._supervisor.stop(services, _seconds_to_end(self._service), NOW)


def _seconds_to_end(settings: GatewaySettings | ServiceSettings) -> float:
    return settings.drain_seconds + settings.grace_seconds + MARGIN_SECONDS
