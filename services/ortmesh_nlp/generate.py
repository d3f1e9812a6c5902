"""NlpService.Generate: a text, piece by piece as it is generated. Stage: task."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace

from ortmesh.common.v1.common_pb2 import ModelVersion
from ortmesh.front.call import Call
from ortmesh.nlp.v1 import nlp_pb2
from ortmesh.nlp.v1.nlp_pb2 import FinishReason, GenerateRequest, GenerateResponse, Usage
from ortmesh.serving.executor.engine.ask import Ask, Reason, TextItem
from ortmesh.serving.model import Model
from ortmesh.serving.models import Models
from ortmesh_nlp.asking import asks, check
from ortmesh_nlp.chat import Language, language_of
from ortmesh_nlp.forms import Form, form_of
from ortmesh_nlp.span_attributes import set_attributes
from ortmesh_nlp.writing import Inbox, Piece, Writing, cached_of


class Generate:
    """Prompts to texts, which grow in the model's engine beside all others."""

    def __init__(self, models: Models) -> None:
        self.models = models
        models.require("generate", language_of)

    async def __call__(self, request: GenerateRequest, call: Call) -> AsyncIterator[GenerateResponse]:
        """Pieces of the texts as they come. BadInput for a prompt, a form or a number that is wrong."""
        check(request)
        model = self.models.choose("generate", request.model, call)
        language, prepared = await call.in_pool(prepare, request, model)
        inbox = Inbox()
        writings = [
            Writing(call, model.outbox, inbox, language, request.stop, top=request.top_logprobs) for _ in prepared
        ]
        try:
            items = [item(ask, each, call, model.outbox.wake) for ask, each in zip(prepared, writings, strict=True)]
            for each in items:
                model.trace(each, call)
            model.submit_all(items)
            first: ModelVersion | None = ModelVersion(name=model.name, version=model.version)
            async for choice, piece, last in pieces(writings, inbox):
                answer = GenerateResponse(
                    model=first,
                    choice=choice,
                    text=piece.text,
                    logprobs=piece.logprobs,
                    finish_reason=finish_reason(piece.reason),
                )
                if last:
                    answer.usage.CopyFrom(usage(len(prepared[0].prompt), writings))
                yield answer
                first = None
        finally:
            for writing in writings:
                writing.left = True
            if call.span is not None:
                set_attributes(call.span, request, model, len(prepared[0].prompt), writings)


def prepare(request: GenerateRequest, model: Model) -> tuple[Language, list[Ask]]:
    """What each text asks for, with a form of its own. Errors as `asks` and `form_of`."""
    language = language_of(model)
    prepared = asks(request, language)
    form = form_of(request, language)
    if form is None:
        return language, prepared
    field = str(request.WhichOneof("form"))
    ends = language.facts.eos_token_ids
    return language, [replace(ask, grammar=Form(form.deep_copy(), field, ends)) for ask in prepared]


def item(ask: Ask, writing: Writing, call: Call, wake: Callable[[], None]) -> TextItem:
    """One text's work."""
    return TextItem(
        replace(ask, enough=writing.enough),
        answer=writing,
        owner=writing,
        deadline=call.deadline,
        priority=call.priority,
        caller=call.caller,
        wake=wake,
    )


async def pieces(writings: Sequence[Writing], inbox: Inbox) -> AsyncIterator[tuple[int, Piece, bool]]:
    """(which text, what has come of it, whether all have ended), until then. Raises what went wrong with one."""
    open_ = set(range(len(writings)))
    while open_:
        await inbox.wait()
        for choice in sorted(open_):
            writing = writings[choice]
            error = writing.error  # asked first: what came before it is shown
            piece = writing.take()
            if piece.reason is not None:
                open_.discard(choice)
            if piece.text or piece.logprobs or piece.reason is not None:
                yield choice, piece, not open_
            if error is not None and not writing.more:
                raise error


def finish_reason(reason: Reason | None) -> FinishReason.ValueType:
    """The API's name of why a text has ended; unspecified while it goes on."""
    if reason is None:
        return nlp_pb2.FINISH_REASON_UNSPECIFIED
    return nlp_pb2.FINISH_REASON_STOP if reason is Reason.STOP else nlp_pb2.FINISH_REASON_LENGTH


def usage(prompt: int, writings: Sequence[Writing]) -> Usage:
    """What was counted."""
    return Usage(
        prompt_tokens=prompt,
        cached_tokens=cached_of(writings),
        generated_tokens=sum(writing.tokens for writing in writings),
    )
