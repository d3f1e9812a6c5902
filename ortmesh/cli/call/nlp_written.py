"""Texts that a model writes, as a person sees them. Stage: command line."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterable

import grpc
from rich.markup import escape

from ortmesh.cli.console import err
from ortmesh.nlp.v1 import nlp_pb2


def show_one(answers: Iterable[nlp_pb2.GenerateResponse]) -> None:
    """The text as it comes. Where it breaks off its line ends, so that the error has one of its own."""
    begun = False
    try:
        for answer in answers:
            _write(answer.text)
            begun = begun or bool(answer.text)
            if answer.finish_reason:
                _write("\n")
                cut = answer.finish_reason == nlp_pb2.FINISH_REASON_LENGTH
                _print_usage(answer.usage, "cut" if cut else "")
    except grpc.RpcError:
        if begun:
            _write("\n")
        raise


def show_many(answers: Iterable[nlp_pb2.GenerateResponse]) -> None:
    """Each text whole below its number, from 1 on and in their order: pieces of all come mixed.

    Where they break off, what there is of each.
    """
    texts: defaultdict[int, str] = defaultdict(str)
    ended: dict[int, nlp_pb2.FinishReason.ValueType] = {}
    told = 0
    usage = nlp_pb2.Usage()
    try:
        for answer in answers:
            texts[answer.choice] += answer.text
            if answer.finish_reason:
                ended[answer.choice] = answer.finish_reason
            while told in ended:
                _write_numbered(told, texts.pop(told))
                told += 1
            usage.MergeFrom(answer.usage)
    except grpc.RpcError:
        for place in sorted(texts):
            if texts[place]:
                _write_numbered(place, texts[place])
        raise
    cut = sorted(place + 1 for place, why in ended.items() if why == nlp_pb2.FINISH_REASON_LENGTH)
    _print_usage(usage, f"cut: {', '.join(map(str, cut))}" if cut else "")


def _write_numbered(place: int, text: str) -> None:
    _write(f"{place + 1}:\n{text}\n\n")


def _write(text: str) -> None:
    """On a terminal without what would steer it."""
    if sys.stdout.isatty():
        text = "".join(letter for letter in text if letter.isprintable() or letter in "\n\t")
    sys.stdout.write(text)
    sys.stdout.flush()


def _print_usage(counted: nlp_pb2.Usage, cut: str) -> None:
    """What was counted; on standard error, since standard output has the texts alone."""
    why = f" ({cut}: --max-tokens, or the context is full)" if cut else ""
    known = f", {counted.cached_tokens} of them read before" if counted.cached_tokens else ""
    told = f"tokens: {counted.generated_tokens}{why}; of the prompt: {counted.prompt_tokens}{known}"
    err.print(f"[dim]{escape(told)}[/dim]", soft_wrap=True)
