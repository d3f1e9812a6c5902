"""`ortmesh call nlp`: tasks on texts. Stage: command line."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.markup import escape

from ortmesh.cli.answers import print_beginning, print_json, print_model
from ortmesh.cli.console import out
from ortmesh.cli.cosines import cosine_table
from ortmesh.cli.failures import call_errors_in_words
from ortmesh.cli.options import ADDRESS, TIMEOUT, Address, Json, Model, Timeout
from ortmesh.client import Client
from ortmesh.nlp.v1 import nlp_pb2

app = typer.Typer(no_args_is_help=True, rich_markup_mode="rich", help="Tasks on texts.")


@app.callback()
def nlp() -> None:
    """Tasks on texts."""


@app.command()
def embed(
    texts: Annotated[list[str], typer.Argument(help="One or more texts.")],
    model: Model = "",
    address: Address = ADDRESS,
    timeout: Timeout = TIMEOUT,
    as_json: Json = False,
) -> None:
    """Turn texts into vectors and show how close they are in meaning, as cosines.

    \b
    [bold]Examples[/bold]
      ortmesh call nlp embed "where is the station?" "the train stops there"
      ortmesh call nlp embed "good morning" --json
    """
    request = nlp_pb2.EmbedRequest(model=model, texts=texts)
    with call_errors_in_words(address, as_json=as_json), Client(address, timeout_seconds=timeout) as mesh:
        answer = mesh.nlp.Embed(request)
    if as_json:
        print_json(answer)
        return
    print_model(answer.model)
    for text, result in zip(texts, answer.results, strict=True):
        if result.HasField("error"):
            out.print(f"[red]no vector[/red] for {escape(repr(text[:40]))}: {escape(result.error.message)}")
        elif result.truncated:
            out.print(f"[yellow]cut[/yellow] after {result.tokens} tokens: {escape(repr(text[:40]))}")
    vectors = [result.embedding.values if result.HasField("embedding") else None for result in answer.results]
    if len(texts) > 1:
        out.print(cosine_table(texts, vectors))
    elif vectors[0] is not None:
        print_beginning(answer.results[0].embedding)
