"""`ortmesh call nlp generate` and `count-tokens`: texts as they are generated. Stage: command line."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import grpc
import typer
from rich.markup import escape

from ortmesh.cli.answers import print_json, print_model
from ortmesh.cli.console import err, out
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
    repetition_penalty: Annotated[
        float,
        typer.Option(help="Above 1, up to 10: what was said is less likely; under 1, down to 0.1: likelier."),
    ] = 1.0,
    seed: Annotated[
        int | None, typer.Option(help="The same seed gives the same text. By default another one each time.")
    ] = None,
    stop: Annotated[
        list[str] | None, typer.Option(help="A text that ends it, and is left out; again for more.")
    ] = None,
    json_schema: Annotated[
        Path | None, typer.Option(help="A file with a JSON schema that the text must satisfy.")
    ] = None,
    regex: Annotated[str, typer.Option(help="A regular expression that the whole text must match.")] = "",
    model: Model = "",
    address: Address = ADDRESS,
    timeout: Timeout = GENERATE_SECONDS,
    as_json: Json = False,
) -> None:
    """Have a model write a text, shown as it comes; on standard error, how many tokens that took.

    \b
    [bold]Examples[/bold]
      ortmesh call nlp generate "What is the capital of France?"
      ortmesh call nlp generate "Invent a person." --json-schema person.json > person.txt
      ortmesh call nlp generate "Once upon a time" --raw --max-tokens 60 --temperature 0.8 --seed 1
    """
    request = nlp_pb2.GenerateRequest(
        model=model,
        max_tokens=max_tokens,
        stop=stop or [],
        sampling=nlp_pb2.Sampling(
            temperature=temperature, top_p=top_p, top_k=top_k, repetition_penalty=repetition_penalty, seed=seed
        ),
    )
    _set_prompt(request, prompt, system, raw=raw)
    if json_schema is not None and regex:
        raise typer.BadParameter("--json-schema and --regex: a text has one form")
    if json_schema is not None:
        request.json_schema = _read(json_schema)
    elif regex:
        request.regex = regex
    with call_errors_in_words(address, as_json=as_json), Client(address) as mesh:
        answers = mesh.nlp.Generate(request, timeout=timeout)
        if as_json:
            for answer in answers:
                print_json(answer)
        else:
            _show(answers)


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
    out.print(f"{answer.tokens} tokens of {answer.context}")


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


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise typer.BadParameter(f"{path} can't be read: {error.strerror}", param_hint="--json-schema") from None
    except UnicodeDecodeError as error:
        reason = f"{path} is no text in UTF-8: {error.reason} at byte {error.start}"
        raise typer.BadParameter(reason, param_hint="--json-schema") from None


def _show(answers: Iterable[nlp_pb2.GenerateResponse]) -> None:
    """The text as it comes. Where it breaks off its line ends, so that the error has one of its own."""
    begun = False
    try:
        for answer in answers:
            sys.stdout.write(_shown(answer.text))
            sys.stdout.flush()
            begun = begun or bool(answer.text)
            if answer.finish_reason:
                _print_end(answer)
    except grpc.RpcError:
        if begun:
            sys.stdout.write("\n")
            sys.stdout.flush()
        raise


def _shown(text: str) -> str:
    """On a terminal without what would steer it."""
    if not sys.stdout.isatty():
        return text
    return "".join(letter for letter in text if letter.isprintable() or letter in "\n\t")


def _print_end(answer: nlp_pb2.GenerateResponse) -> None:
    """What was counted; on standard error, since standard output has the text alone."""
    sys.stdout.write("\n")
    sys.stdout.flush()
    counted = answer.usage
    cut = " (cut: --max-tokens, or the context is full)" if answer.finish_reason == nlp_pb2.FINISH_REASON_LENGTH else ""
    known = f", {counted.cached_tokens} of them read before" if counted.cached_tokens else ""
    told = f"tokens: {counted.generated_tokens}{cut}; of the prompt: {counted.prompt_tokens}{known}"
    err.print(f"[dim]{escape(told)}[/dim]", soft_wrap=True)
