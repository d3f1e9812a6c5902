"""`ortmesh models`: what the mesh serves or the store holds, and how a model of one's own gets there.
Stage: command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from ortmesh.cli.answers import counted, print_json, print_table, table
from ortmesh.cli.console import fail, out
from ortmesh.cli.costs import print_batching
from ortmesh.cli.failures import errors_in_words
from ortmesh.cli.kept_costs import kept_batching
from ortmesh.cli.known import (
    card_file,
    from_mesh,
    from_store,
    one_from_mesh,
    one_from_store,
    open_store,
    say_what_is_not_served,
    say_what_is_not_usable,
)
from ortmesh.cli.options import ADDRESS, Address, Json, names_a_mesh
from ortmesh.cli.plan import FAMILIES
from ortmesh.models.v1 import models_pb2

STATES = {"READY": "green", "LOADING": "yellow", "FAILED": "bold red", "UNLOADING": "yellow", "INSTALLED": ""}
LEGEND = "* of a model: the version that its name alone means; of a task: answers requests that name no model"
StoreFolder = Annotated[
    Path | None, typer.Option("--models", help="The store's folder. By default ORTMESH_MODELS, else the user's cache.")
]

app = typer.Typer(no_args_is_help=True, help="List, show, add and remove models, and choose their default versions.")


@app.command("list")
def list_models(
    context: typer.Context,
    family: Annotated[str, typer.Option(help="Only models of this family.")] = "",
    task: Annotated[str, typer.Option(help="Only models for this task, e.g. embed.")] = "",
    address: Address = ADDRESS,
    models: StoreFolder = None,
    as_json: Json = False,
) -> None:
    """List the models of the running mesh; of the store with --models, or where no mesh is named and none answers."""
    if family:
        _must_be_family(family)
    must = names_a_mesh(context)
    found = every = None if models else from_mesh(address, family, task, must=must)
    if found is not None and not must:  # the mesh of this machine, which may serve the user's store
        say_what_is_not_usable()
    if found is None:
        every = from_store(open_store(models))
        found = [model for model in every if family in ("", model.family) and (not task or task in model.tasks)]
    if (family or task) and not found:
        _say_what_there_is(every or from_mesh(address, "", "", must=must) or [], family, task)
    if as_json:
        print_json(models_pb2.ListModelsResponse(models=found))
        return
    if not found:
        out.print("no models: `ortmesh pull` fetches the default ones")
        return
    _print_list(found)


@app.command()
def show(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="NAME or NAME@VERSION.")],
    address: Address = ADDRESS,
    models: StoreFolder = None,
    as_json: Json = False,
) -> None:
    """Show one model: its state and tensors, where it is from, what it must not be used for, what its batches cost."""
    must = names_a_mesh(context)
    model, measured_on = None if models else one_from_mesh(address, name, must=must), ""
    elsewhere = must and model is not None
    if model is None:
        store = open_store(models)
        model = one_from_store(store, name)
        if (kept := kept_batching(store.folder(model.name, model.version))) is not None:
            measured_on = kept[0]
            model.batching.CopyFrom(kept[1])
    if as_json:
        print_json(model)
        return
    card: dict[str, Any] = json.loads(model.card_json or "{}")
    print_table(_details(model, card, None if elsewhere else card_file(model, open_store(models))), folds=True)
    if _engine(card) is not None:  # its tensors and batches are the engine's own: it is called by its tasks
        return
    for kind, tensors in (("takes", model.inputs), ("gives", model.outputs)):
        for tensor in tensors:
            shape = ", ".join("any" if size < 0 else str(size) for size in tensor.shape)
            out.print(Text.assemble((f"{kind}  ", "dim"), (tensor.name, "bold"), f"  {tensor.datatype} [{shape}]"))
    print_batching(model, out, measured_on)


@app.command()
def add(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="An ONNX file.")],
    name: Annotated[str, typer.Option(help="Its name in the mesh: lower case, digits, . _ -")],
    family: Annotated[str, typer.Option(help="Whose service runs it: vision, speech or nlp.")],
    version: Annotated[str | None, typer.Option(help="By default the next free whole number.")] = None,
    models: StoreFolder = None,
) -> None:
    """Add an ONNX file of your own; a running mesh serves it without a restart.

    It is called by tensors (Open Inference Protocol); its card in the store can be edited to give it a task. A language
    model of onnxruntime-genai's builder generates texts at once: the files beside it come along.

    \b
    [bold]Examples[/bold]
      ortmesh models add churn.onnx --name churn --family nlp
      ortmesh models add my-llama/model.onnx --name my-llama --family nlp
    """
    from ortmesh.serving.add import add as add_file

    _must_be_family(family)
    store = open_store(models)
    with errors_in_words():
        before = store.default_of(name)
        card = add_file(file, name, family, store, version)
        now = store.default_of(name)
    _done(f"{card.key} is in {store.folder(card.name, card.version)}")
    out.print(escape(card.description), style="dim", soft_wrap=True)
    if before is not None:
        out.print(_meaning(card.key, card.name, before, now), style="dim", soft_wrap=True)
    out.print(f"Its state, once a mesh serves it: ortmesh models show {card.name}", style="dim")
    if card.runtime.engine is not None:
        out.print(f'Then: ortmesh call nlp generate --model {card.name} "Hello"', style="dim")
    if models is None:
        say_what_is_not_served([family])


@app.command()
def default(
    key: Annotated[str, typer.Argument(metavar="NAME@VERSION", help="The version that NAME alone shall mean.")],
    models: StoreFolder = None,
) -> None:
    """Choose the version that a name without one means; a running mesh follows at once.

    It stays the default when newer versions are added.

    \b
    [bold]Example[/bold]
      ortmesh models default churn@1
    """
    store = open_store(models)
    name, _, version = key.partition("@")
    with errors_in_words():
        if not version and (there := store.present(name)):
            fail(f"{name} has the versions {', '.join(there)}: name one, e.g. {name}@{there[0]}")
        before = store.default_of(name)
        if version in store.present(name) and (problem := store.problems.get(store.folder(name, version))):
            fail(f"{key} is not usable: {problem}")
        store.set_default(name, version)
    _done(f"{name} means {key}" + ("" if before in (None, version) else f" (before: {name}@{before})"))


@app.command()
def remove(
    name: Annotated[str, typer.Argument(help="NAME@VERSION, or NAME where there is one version only.")],
    every: Annotated[bool, typer.Option("--all", help="All versions of NAME.")] = False,
    models: StoreFolder = None,
) -> None:
    """Remove a model from the store; a running mesh unloads it as soon as its calls have ended.

    \b
    [bold]Examples[/bold]
      ortmesh models remove churn@1
      ortmesh models remove churn --all
    """
    store = open_store(models)
    model, _, version = name.partition("@")
    with errors_in_words():
        there = store.present(model)
        if not version and not every and len(there) > 1:
            fail(f"{model} has the versions {', '.join(there)}: name one, e.g. {model}@{there[0]}, or say --all")
        for each in [version] if version else there or [""]:
            store.remove(model, each)
            _done(f"removed {model}@{each} from {store.root}")
        if (now := store.default_of(model)) is not None:
            out.print(f"{model} means {model}@{now} now", style="dim")


def _print_list(models: list[models_pb2.Model]) -> None:
    """The models, then what is to be said of some, which may be long, and what the marks mean."""
    listing = table("MODEL", "FAMILY", "TASKS", "STATE", wraps=("TASKS",))
    for model in models:
        name = f"{model.name}@{model.version}{' *' if model.default_version else ''}"
        tasks = ", ".join(f"{task}*" if task in model.default_for else task for task in model.tasks)
        listing.add_row(name, model.family, tasks or "tensors only", _state(model))
    print_table(listing)
    for model in models:
        if reason := _reason(model):
            out.print(Text.assemble((f"{model.name}@{model.version}", "bold"), f": {reason}"), soft_wrap=True)
    out.print(LEGEND, style="dim", soft_wrap=True)


def _reason(model: models_pb2.Model) -> str:
    again = "it is tried again" if model.retrying else ""
    return "; ".join(filter(None, (model.state_reason, again)))


def _done(what: str) -> None:
    out.print(Text.assemble(("✓ ", "bold green"), what), soft_wrap=True)


def _meaning(added: str, name: str, before: str, now: str | None) -> str:
    """What the name alone means since a version was added beside others."""
    if now == before:
        return f"{name} still means {name}@{before}; to change it: ortmesh models default {added}"
    return (
        f"{name} now means {name}@{now} (before: {name}@{before}); to go back: ortmesh models default {name}@{before}"
    )


def _must_be_family(family: str) -> None:
    if family not in FAMILIES:
        fail(f"{family!r} is no family: they are {', '.join(FAMILIES)}")


def _say_what_there_is(models: list[models_pb2.Model], family: str, task: str) -> None:
    """Ends with exit code 1: no model is of the family, or for the task."""
    tasks = sorted({each for model in models if family in ("", model.family) for each in model.tasks})
    who = f"no model of the family {family}" if family else "no model"
    if not task:
        fail(f"there is {who}")
    what = f"there are models for {', '.join(tasks)}" if tasks else "the models there are called by tensors only"
    fail(f"{who} is for the task {task!r}; {what}" if models else f"{who} is for the task {task!r}: there are none")


def _state(model: models_pb2.Model) -> str:
    name = models_pb2.ModelState.Name(model.state).removeprefix("MODEL_STATE_")
    name = "INSTALLED" if name == "UNSPECIFIED" else name
    style = STATES[name]
    return f"[{style}]{name}[/{style}]" if style else name


def _details(model: models_pb2.Model, card: dict[str, Any], card_path: Path | None) -> Table:
    made = Table.grid(padding=(0, 2))
    made.add_column()
    made.add_column(overflow="fold")  # an address that is cut can't be opened
    rows = {
        "model": f"{model.name}@{model.version}{' (the default version)' if model.default_version else ''}",
        "description": model.description,
        "family": model.family,
        "tasks": ", ".join(model.tasks) or "none: tensors only",
        "default for": ", ".join(model.default_for),
        "state": _state(model),
        "": _reason(model),
        "runs on": model.provider,
        **_side_by_side(model, card),
        "licence": model.license,
        "attribution": model.attribution,
        **_from_card(card),
        "card": str(card_path or ""),
    }
    for key, value in rows.items():
        if value:
            made.add_row(f"[dim]{key}[/dim]", value if key == "state" else escape(value))
    return made


def _engine(card: dict[str, Any]) -> dict[str, Any] | None:
    """The card's `runtime.engine`; None for a model that no engine runs."""
    engine: dict[str, Any] | None = (card.get("runtime") or {}).get("engine")
    return engine


def _side_by_side(model: models_pb2.Model, card: dict[str, Any]) -> dict[str, str]:
    """How much is computed together: rows of a batch, or texts."""
    engine = _engine(card)
    if engine is None:
        return {"batch": f"up to {counted(model.max_batch_size, 'row')}"}
    from ortmesh.serving.cards import EngineSettings

    given = EngineSettings.model_validate(engine)
    return {
        "context": f"{counted(given.context, 'token')} a text, its prompt included",
        "slots": f"up to {counted(given.slots, 'text')} side by side",
        "budget": f"{counted(given.tokens, 'token')} of all texts together",
        "memory": _memory(model.provider, (given.slots + 1) * given.context),
    }


def _memory(provider: str, tokens: int) -> str:
    """Of keys and values, on a device for so many tokens; nothing where it is not known yet on what they are."""
    if not provider:
        return ""
    if provider == "CPUExecutionProvider":
        return "for as many tokens as there are, within the budget"
    return f"of the device for {counted(tokens, 'token')}, from the start"


def _from_card(card: dict[str, Any]) -> dict[str, str]:
    """What only the card says of a model."""
    return {
        "from": "\n".join(source["uri"] for source in card.get("sources", [])),
        "quality": "\n".join(
            f"{figure['metric']}: {figure['value']:g} ({figure['source']})" for figure in card.get("quality", [])
        ),
        "not for": card.get("not_for", ""),
    }
