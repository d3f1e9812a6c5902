"""`python -m demo`: pulls the models, starts the mesh, asks it, shows the answers, stops it. Stage: process.

Exits 0 when all went well, 1 with the cause when not (also when a default model is missing: the rest is shown all the
same), 130 after Ctrl-C.
"""

from __future__ import annotations

import argparse
import signal
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import NoReturn

from rich.markup import escape

from demo import inputs, page, terminal
from demo.answers import Answers
from demo.failure import DemoFailed
from demo.mesh import Mesh
from demo.models import MIB, Models, default_cards, pull_all
from demo.steps import Steps
from demo.tasks import ask_all
from ortmesh.cli.console import out
from ortmesh.client import Client
from ortmesh.config import StoreSettings
from ortmesh.serving.faults import StoreError
from ortmesh.serving.store import Store

INTERRUPTED = 130


def main() -> int:
    """The exit status."""
    arguments = _arguments()
    console = out
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    try:
        missing = run(Steps(console), Store(arguments.models), arguments.page)
    except (DemoFailed, StoreError, OSError, ImportError) as error:
        console.print(f"[bold red]The demo failed:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
        return 1
    except KeyboardInterrupt:
        console.print("\nInterrupted: the mesh is stopped.")
        return INTERRUPTED
    return 1 if missing else 0


def run(steps: Steps, store: Store, path: Path) -> dict[str, str]:
    """The whole demo; returns why models are missing, by their names."""
    models = _pull(steps, store)
    with steps.step("Reading and making the inputs: pictures, pages, speech"):
        sent = inputs.make()
    answers = _ask(steps, store, models, sent)
    terminal.show(steps.console, answers)
    path.write_text(page.render(answers, models, datetime.now()), encoding="utf-8")
    calls = terminal.times(answers)
    steps.console.print(f"\n{len(calls)} calls took {terminal.took(sum(calls))}, the demo {steps.elapsed():.0f} s.")
    steps.console.print(f"The same with pictures and sound: [bold]{escape(str(path.resolve()))}[/]", soft_wrap=True)
    for name in models.missing:
        steps.warn(f"{name} was missing, so that what needs it was left out; run the demo again to try once more")
    return models.missing


def _pull(steps: Steps, store: Store) -> Models:
    steps.note(f"Models lie in {store.root} (ORTMESH_MODELS moves them)")
    with steps.step("Pulling the default models (some 420 MB the first time)", spins=False):
        models = pull_all(default_cards(), store, steps)
    terminal.show_models(steps.console, models)
    total = sum(had.nbytes for had in models.had) / MIB
    steps.note(f"{len(models.had)} models, {total:.0f} MiB; what they were made from is kept in {store.cache}")
    return models


def _ask(steps: Steps, store: Store, models: Models, sent: inputs.Inputs) -> Answers:
    with Mesh(store.root) as mesh:
        with steps.step(f"Starting the mesh on {mesh.address} (ortmesh up): gateway, vision, speech, nlp"):
            mesh.wait([had.card.name for had in models.had])
        with Client(mesh.address) as client, steps.step("Asking it"):
            answers = ask_all(client, mesh.address, sent, models)
        with steps.step("Stopping the mesh: calls end, then the processes"):
            mesh.stop()
    return answers


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m demo", description="Shows the mesh at work.")
    parser.add_argument("--page", type=Path, default=Path("demo.html"), help="where the page goes (demo.html)")
    parser.add_argument(
        "--models", type=Path, default=StoreSettings().models, help="the store's folder (default: ORTMESH_MODELS)"
    )
    return parser.parse_args()


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    """SIGTERM and SIGHUP end the demo as Ctrl-C does."""
    raise KeyboardInterrupt


if __name__ == "__main__":
    raise SystemExit(main())
