"""`ortmesh call nlp`: tasks on texts. Stage: command line."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.markup import escape
from rich.text import Text

from ortmesh.cli.answers import bar, counted, print_beginning, print_json, print_model, table
from ortmesh.cli.call.nlp_generate import count_tokens, generate
from ortmesh.cli.call.numbers import int32
from ortmesh.cli.console import out
from ortmesh.cli.cosines import cosine_table
from ortmesh.cli.failures import call_errors_in_words
from ortmesh.cli.options import ADDRESS, TIMEOUT, Address, Json, Model, Timeout
from ortmesh.client import Client
from ortmesh.nlp.v1 import nlp_pb2

app = typer.Typer(no_args_is_help=True, rich_markup_mode="rich", help="Tasks on texts.")
app.command()(generate)
app.command("count-tokens")(count_tokens)


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
            out.print(f"[yellow]cut[/yellow] after {counted(result.tokens, 'token')}: {escape(repr(text[:40]))}")
    vectors = [result.embedding.values if result.HasField("embedding") else None for result in answer.results]
    if len(texts) > 1:
        out.print(cosine_table(texts, vectors))
    elif vectors[0] is not None:
        print_beginning(answer.results[0].embedding)


@app.command("detect-language")
def detect_language(
    texts: Annotated[list[str], typer.Argument(help="One or more texts.")],
    max_results: Annotated[int, typer.Option("--max", help="How many languages a text, 1 to 176.")] = 1,
    model: Model = "",
    address: Address = ADDRESS,
    timeout: Timeout = TIMEOUT,
    as_json: Json = False,
) -> None:
    """Say which languages texts are written in, most probable first.

    \b
    [bold]Examples[/bold]
      ortmesh call nlp detect-language "Guten Morgen, wie geht es dir?" "今日は天気がいいですね。"
      ortmesh call nlp detect-language "God morgen, alle sammen" --max 3
    """
    request = nlp_pb2.DetectLanguageRequest(model=model, texts=texts, max_results=int32(max_results))
    with call_errors_in_words(address, as_json=as_json), Client(address, timeout_seconds=timeout) as mesh:
        answer = mesh.nlp.DetectLanguage(request)
    if as_json:
        print_json(answer)
        return
    print_model(answer.model)
    listing = table("CODE", "LANGUAGE", "SCORE", "", "TEXT", right=["SCORE"])
    for text, result in zip(texts, answer.results, strict=True):
        if result.HasField("error"):
            out.print(f"[red]no language[/red] for {escape(repr(text[:40]))}: {escape(result.error.message)}")
        for place, language in enumerate(result.detected.languages):
            shown = escape(text[:60]) if place == 0 else ""
            listing.add_row(language.code, language.name, f"{language.score:.3f}", bar(language.score, 10), shown)
    if listing.row_count:
        out.print(listing)


@app.command("find-entities")
def find_entities(
    text: Annotated[str, typer.Argument(help="The text.")],
    types: Annotated[
        list[str] | None, typer.Option("--type", help="Only this type, e.g. EMAIL; several times.")
    ] = None,
    min_score: Annotated[float, typer.Option(help="Leave out what is below this score; 0 means 0.5.")] = 0.0,
    model: Model = "",
    address: Address = ADDRESS,
    timeout: Timeout = TIMEOUT,
    as_json: Json = False,
) -> None:
    """Find names, places, numbers and other personal data in a text.

    \b
    [bold]Example[/bold]
      ortmesh call nlp find-entities "Call Maria Gonzalez in Boston: +1 617-555-0142"
    """
    request = nlp_pb2.FindEntitiesRequest(model=model, text=text, types=types or [], min_score=min_score)
    with call_errors_in_words(address, as_json=as_json), Client(address, timeout_seconds=timeout) as mesh:
        answer = mesh.nlp.FindEntities(request)
    if as_json:
        print_json(answer)
        return
    print_model(answer.model)
    marked = Text(text)
    listing = table("TYPE", "FROM", "TO", "SCORE", "BY", "TEXT", right=["FROM", "TO", "SCORE"])
    for entity in answer.entities:
        marked.stylize("bold reverse", entity.start, entity.end)
        by = "pattern" if entity.source == nlp_pb2.ENTITY_SOURCE_PATTERN else "model"
        places = str(entity.start), str(entity.end)
        listing.add_row(entity.type, *places, f"{entity.score:.2f}", by, escape(entity.text))
    out.print(marked, soft_wrap=True)
    out.print(listing if answer.entities else "nothing was found")
