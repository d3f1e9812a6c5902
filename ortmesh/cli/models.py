"""`ortmesh models`: what the mesh serves or the store holds, and how a model of one's own gets there.
Stage: command line."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from ortmesh.cli.answers import print_json, table
from ortmesh.cli.console import fail, out
from ortmesh.cli.failures import errors_in_words
from ortmesh.cli.known import from_mesh, from_store, one_from_mesh, one_from_store, open_store
from ortmesh.cli.options import ADDRESS, Address, Json
from ortmesh.cli.plan import FAMILIES
from ortmesh.models.v1 import models_pb2

STATES = {"READY": "green", "LOADING": "yellow", "FAILED": "bold red", "UNLOADING": "yellow", "INSTALLED": ""}
StoreFolder = Annotated[
    Path | None, typer.Option("--models", help="The store's folder. By default ORTMESH_MODELS, else the user's cache.")
]

app = typer.Typer(no_args_is_help=True, help="List, show and add models.")


@app.command("list")
def list_models(
    family: Annotated[str, typer.Option(help="Only models of this family.")] = "",
    task: Annotated[str, typer.Option(help="Only models for this task, e.g. embed.")] = "",
    address: Address = ADDRESS,
    models: StoreFolder = None,
    as_json: Json = False,
) -> None:
    """List the models of the running mesh; of the store when no mesh answers or --models is given."""
    found = None if models else from_mesh(address, family, task)
    if found is None:
        found = from_store(open_store(models), family, task)
    if as_json:
        print_json(models_pb2.ListModelsResponse(models=found))
        return
    listing = table("MODEL", "FAMILY", "TASKS", "STATE", "")
    for model in found:
        default = " *" if model.default_version else ""
        listing.add_row(
            f"{model.name}@{model.version}{default}",
            model.family,
            ", ".join(model.tasks) or "tensors only",
            _state(model),
            escape(model.state_reason),
        )
    out.print(listing if found else "no models: `ortmesh pull` fetches the default ones")


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="NAME or NAME@VERSION.")],
    address: Address = ADDRESS,
    models: StoreFolder = None,
    as_json: Json = False,
) -> None:
    """Show one model: its state, tensors, batch size, where it runs, its licence."""
    model = None if models else one_from_mesh(address, name)
    if model is None:
        model = one_from_store(open_store(models), name)
    if as_json:
        print_json(model)
        return
    out.print(_details(model))
    for kind, tensors in (("takes", model.inputs), ("gives", model.outputs)):
        for tensor in tensors:
            shape = ", ".join("any" if size < 0 else str(size) for size in tensor.shape)
            out.print(Text.assemble((f"{kind}  ", "dim"), (tensor.name, "bold"), f"  {tensor.datatype} [{shape}]"))


@app.command()
def add(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="An ONNX file.")],
    name: Annotated[str, typer.Option(help="Its name in the mesh: lower case, digits, . _ -")],
    family: Annotated[str, typer.Option(help="Whose service runs it: vision, speech or nlp.")],
    version: Annotated[str | None, typer.Option(help="By default the next free whole number.")] = None,
    models: StoreFolder = None,
) -> None:
    """Add an ONNX file of your own; a running mesh serves it without a restart.

    It is called by tensors (Open Inference Protocol); its card in the store can be edited to give it a task.

    \b
    [bold]Example[/bold]
      ortmesh models add churn.onnx --name churn --family nlp
    """
    from ortmesh.serving.add import add as add_file

    if family not in FAMILIES:
        fail(f"{family!r} is no family: they are {', '.join(FAMILIES)}")
    store = open_store(models)
    with errors_in_words():
        card = add_file(file, name, family, store, version)
    where = f"{card.key} is in {store.folder(card.name, card.version)}"
    out.print(Text.assemble(("✓ ", "bold green"), where), soft_wrap=True)
    out.print(f"Its state, once a mesh serves it: ortmesh models show {card.name}", style="dim")


def _state(model: models_pb2.Model) -> str:
    name = models_pb2.ModelState.Name(model.state).removeprefix("MODEL_STATE_")
    name = "INSTALLED" if name == "UNSPECIFIED" else name
    style = STATES[name]
    return f"[{style}]{name}[/{style}]" if style else name


def _details(model: models_pb2.Model) -> Table:
    made = Table.grid(padding=(0, 2))
    rows = {
        "model": f"{model.name}@{model.version}{' (the default version)' if model.default_version else ''}",
        "description": model.description,
        "family": model.family,
        "tasks": ", ".join(model.tasks) or "none: tensors only",
        "state": _state(model),
        "": model.state_reason,
        "runs on": model.provider,
        "batch": f"up to {model.max_batch_size} rows",
        "licence": model.license,
        "attribution": model.attribution,
    }
    for key, value in rows.items():
        if value:
            made.add_row(f"[dim]{key}[/dim]", value if key == "state" else escape(value))
    return made
