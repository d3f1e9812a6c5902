"""Errors in words: what a call's status, a store or a catalogue says, and what to do. Stage: command line."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import grpc
import typer
from google.protobuf import json_format
from google.rpc import error_details_pb2
from rich.text import Text

from ortmesh.cli.console import err, fail
from ortmesh.client import retry_after_seconds, status_of, violations
from ortmesh.config import MISTAKES, Settings, in_words

NOT_CONNECTED = (
    "failed to connect to all addresses",
    "errors resolving",
    "DNS resolution failed",
    "empty address list",
)
"""How gRPC's texts begin when there is nobody to talk to: nothing else tells them from a server's answer."""

T = TypeVar("T", bound=Settings)


def settings(read: Callable[[], T]) -> T:
    """Settings as the environment says; ends with exit code 1 and what is wrong when it says what can't be used."""
    try:
        return read()
    except MISTAKES as mistake:
        fail(in_words(mistake))


@contextmanager
def call_errors_in_words(address: str, *, as_json: bool = False) -> Iterator[None]:
    """Prints a failed call's status on standard error, as words or as JSON, and ends with exit code 1."""
    try:
        yield
    except grpc.RpcError as error:
        if as_json:
            err.print(json_format.MessageToJson(status_of(error)), soft_wrap=True, markup=False)
        else:
            err.print(words(error, address), soft_wrap=True)
        raise typer.Exit(1) from None


@contextmanager
def errors_in_words() -> Iterator[None]:
    """Ends with exit code 1 and the text of an expected error of the store or the catalogue."""
    from ortmesh.errors import OrtmeshError
    from ortmesh.serving.faults import StoreError

    try:
        yield
    except (OrtmeshError, StoreError, OSError) as error:
        fail(str(error))


def words(error: grpc.RpcError, address: str) -> Text:
    """Code and message, a line for each wrong field, and advice."""
    code = error.code().name
    if not_reached(error):
        return Text.assemble(
            ("error: ", "bold red"),
            f"nothing answers at {address} ({error.details()}).\n",
            "Start the mesh with `ortmesh up`, or say where it is with --address or ORTMESH_ADDRESS.",
        )
    message = error.details() or "no message"
    text = Text.assemble(("error: ", "bold red"), (code, "bold"), f": {message}")
    for field, description in violations(error):
        if not _says(message, field, description):
            text.append(f"\n  {field}: {description}" if field else f"\n  {description}")
    advice = _advice(error, code)
    return text.append(f"\n{advice}") if advice else text


def not_reached(error: grpc.RpcError) -> bool:
    """True when the channel found no server at the address. A gateway whose service is away answers UNAVAILABLE too."""
    return error.code() is grpc.StatusCode.UNAVAILABLE and (error.details() or "").startswith(NOT_CONNECTED)


def _says(message: str, field: str, description: str) -> bool:
    """True for a violation that the message tells already; where one is long, the server has cut its end off."""
    return all(part.removesuffix("…") in message for part in (field, description))


def _who_does(error: grpc.RpcError) -> str | None:
    """The catalogue's model for a task that none of the mesh's does; None where that is not what is wrong."""
    missing = error_details_pb2.ResourceInfo()
    if not any(detail.Unpack(missing) for detail in status_of(error).details) or missing.resource_type != "task":
        return None
    from ortmesh import catalogue

    family, _, task = missing.resource_name.partition(".")
    able = [card for card in catalogue.cards() if card.family == family and task in card.tasks]
    able.sort(key=lambda card: (task not in card.default_for, card.optional))
    return able[0].name if able else None


def _advice(error: grpc.RpcError, code: str) -> str:
    wait = retry_after_seconds(error)
    if wait is not None:
        return f"Try again in {wait:g} s."
    if (bringing := _who_does(error)) is not None:
        return f"`ortmesh pull {bringing}` brings one."
    return {
        "UNAVAILABLE": "The service is loading or shutting down: try again in a moment.",
        "DEADLINE_EXCEEDED": "It took longer than allowed: give more time with --timeout.",
        "INTERNAL": "The service's log has the cause.",
    }.get(code, "")
