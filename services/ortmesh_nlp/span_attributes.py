"""Span attributes: what the span of a sampled call says of its texts, as OpenTelemetry's conventions for generative AI
name it. Stage: task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ortmesh.nlp.v1.nlp_pb2 import GenerateRequest
from ortmesh.serving.model import Model
from ortmesh_nlp.writing import Writing, cached_of

if TYPE_CHECKING:
    from opentelemetry.trace import Span


def set_attributes(
    span: Span, request: GenerateRequest, model: Model, prompt_tokens: int, writings: Sequence[Writing]
) -> None:
    """Sets the attributes, also of a call that was left in the middle: reasons are those of texts that ended well."""
    span.set_attributes(
        {
            "gen_ai.operation.name": "chat" if request.HasField("chat") else "text_completion",
            "gen_ai.provider.name": "ortmesh",
            "gen_ai.request.model": model.name,
            "gen_ai.usage.input_tokens": prompt_tokens,
            "gen_ai.usage.cache_read.input_tokens": cached_of(writings),
            "gen_ai.usage.output_tokens": sum(each.tokens for each in writings),
            "gen_ai.response.finish_reasons": [
                each.reason.name.lower() for each in writings if each.reason is not None
            ],
        }
    )
