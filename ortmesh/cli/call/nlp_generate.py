"""`ortmesh call nlp generate` and `count-tokens`: texts as they are generated. Stage: command line."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from ortmesh.cli.answers import counted, print_json, print_json_line, print_model
from ortmesh.cli.call.nlp_written import show_many, show_one
from ortmesh.cli.call.numbers import int32, int64
from ortmesh.cli.console import out
from ortmesh.cli.failures import call_errors_in_words
from ortmesh.cli.options import ADDRESS, TIMEOUT, Address, Json, Model, Timeout
from ortmesh.client import Client
from ortmesh.nlp.v1 import nlp_pb2

GENERATE_SECONDS = 600.0
"""A long text of a large model takes minutes."""

Prompt = Annotated[str, typer.Argument(help="What is said to the model; - reads it from standard input.")]
System = Annotated[
    str, typer.Option(help="How it is to answer, e.g. 'Be brief.'", show_default="what its template says")
]
Raw = Annotated[bool, typer.Option("--raw", help="Go on where the prompt ends, instead of answering it.")]


def generate(
    prompt: Prompt,
    system: System = "",
    raw: Raw = False,
    max_tokens: Annotated[
        int, typer.Option(help="Most tokens to write; 0: as many as there is room for, at most 1,024.")
    ] = 0,
    temperature: Annotated[
        float, typer.Option(help="How much chance decides, 0 to 5; 0: always the likeliest token.")
    ] = 0.0,
    top_p: Annotated[
        float, typer.Option(help="Only of the likeliest tokens with this probability together, up to 1: of all.")
    ] = 1.0,
    top_k: Annotated[int, typer.Option(help="Only of so many likeliest tokens; 0: of all.")] = 0,
    min_p: Annotated[
        float, typer.Option(help="Only of tokens at least so likely in relation to the likeliest, 0 to 1; 0: of all.")
    ] = 0.0,
    repetition_penalty: Annotated[
        float,
        typer.Option(help="Above 1, up to 10: what was said is less likely; under 1, down to 0.1: likelier."),
    ] = 1.0,
    seed: Annotated[
        int | None, typer.Option(help="The same seed gives the same text. By default another one each time.")
    ] = None,
    choices: Annotated[
        int, typer.Option(help="How many texts, 1 to 8: all alike at a temperature of 0, so give one too.")
    ] = 1,
    stop: Annotated[
        list[str] | None, typer.Option(help="A text that ends it, and is left out; again for more.")
    ] = None,
    json_schema: Annotated[
        Path | None, typer.Option(help="A file with a JSON schema that the text must satisfy.")
    ] = None,
    regex: Annotated[str, typer.Option(help="A regular expression that the whole text must match.")] = "",
    grammar: Annotated[
        Path | None, typer.Option(help="A file with a grammar in Lark's notation that the text must follow.")
    ] = None,
    model: Model = "",
    address: Address = ADDRESS,
    timeout: Timeout = GENERATE_SECONDS,
    as_json: Json = False,
) -> None:
    """Have a model write a text, shown as it comes, or several, each whole; on standard error, how many tokens it took.

    With --json, its pieces as they come, each on a line.

    \b
    [bold]Examples[/bold]
      ortmesh call nlp generate "What is the capital of France?"
      ortmesh call nlp generate "Invent a person." --json-schema person.json > person.txt
      ortmesh call nlp generate "Once upon a time" --raw --max-tokens 60 --temperature 0.8 --seed 1
      ortmesh call nlp generate "Name a colour." --choices 3 --temperature 1
    """
    request = nlp_pb2.GenerateRequest(
        model=model,
        max_tokens=int32(max_tokens),
        stop=stop or [],
        sampling=nlp_pb2.Sampling(
            temperature=temperature,
            top_p=top_p,
            top_k=int32(top_k),
            min_p=min_p,
            repetition_penalty=repetition_penalty,
            seed=None if seed is None else int64(seed, "--seed"),
        ),
        choices=int32(choices),
    )
    _set_prompt(request, prompt, system, raw=raw)
    _set_form(request, json_schema, regex, grammar)
    with call_errors_in_words(address, as_json=as_json), Client(address) as mesh:
        answers = mesh.nlp.Generate(request, timeout=timeout)
        if as_json:
            for answer in answers:
                print_json_line(answer)
        elif choices > 1:
            show_many(answers)
        else:
            show_one(answers)


def count_tokens(
    prompt: Prompt,
    system: System = "",
    raw: Raw = False,
    model: Model = "",
    address: Address = ADDRESS,
    timeout: Timeout = TIMEOUT,
    as_json: Json = False,
) -> None:
    """Say how many tokens a prompt has, those of the model's template included, and how many the context holds.

    \b
    [bold]Example[/bold]
      ortmesh call nlp count-tokens "What is the capital of France?"
    """
    request = nlp_pb2.CountTokensRequest(model=model)
    _set_prompt(request, prompt, system, raw=raw)
    with call_errors_in_words(address, as_json=as_json), Client(address, timeout_seconds=timeout) as mesh:
        answer = mesh.nlp.CountTokens(request)
    if as_json:
        print_json(answer)
        return
    print_model(answer.model)
    out.print(f"{counted(answer.tokens, 'token')} of {answer.context:,}")


def _set_prompt(
    request: nlp_pb2.GenerateRequest | nlp_pb2.CountTokensRequest, prompt: str, system: str, *, raw: bool
) -> None:
    """A conversation of one message, or the text itself."""
    said = sys.stdin.read() if prompt == "-" else prompt
    if raw:
        if system:
            raise typer.BadParameter("a raw prompt has no --system")
        request.text = said
        return
    if system:
        request.chat.messages.add(role=nlp_pb2.CHAT_ROLE_SYSTEM, content=system)
    request.chat.messages.add(role=nlp_pb2.CHAT_ROLE_USER, content=said)


def _set_form(request: nlp_pb2.GenerateRequest, json_schema: Path | None, regex: str, grammar: Path | None) -> None:
    if sum(map(bool, (json_schema, regex, grammar))) > 1:
        raise typer.BadParameter("of --json-schema, --regex and --grammar one: a text has one form")
    if json_schema is not None:
        request.json_schema = _read(json_schema, "--json-schema")
    elif grammar is not None:
        request.grammar = _read(grammar, "--grammar")
    elif regex:
        request.regex = regex


def _read(path: Path, option: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise typer.BadParameter(f"{path} can't be read: {error.strerror}", param_hint=option) from None
    except UnicodeDecodeError as error:
        reason = f"{path} is no text in UTF-8: {error.reason} at byte {error.start}"
        raise typer.BadParameter(reason, param_hint=option) from None
