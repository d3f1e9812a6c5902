"""NlpService.CountTokens: how many tokens a prompt has for a model. Stage: task."""

from __future__ import annotations

from ortmesh.common.v1.common_pb2 import ModelVersion
from ortmesh.front.call import Call
from ortmesh.nlp.v1.nlp_pb2 import CountTokensRequest, CountTokensResponse
from ortmesh.serving.model import Model
from ortmesh.serving.models import Models
from ortmesh_nlp.chat import language_of


class CountTokens:
    """Prompts to numbers, as Generate counts them."""

    def __init__(self, models: Models) -> None:
        self.models = models
        models.require("count_tokens", language_of)

    async def __call__(self, request: CountTokensRequest, call: Call) -> CountTokensResponse:
        """BadInput for what is no prompt."""
        model = self.models.choose("count_tokens", request.model, call)
        tokens, context = await call.in_pool(count, request, model)
        return CountTokensResponse(
            model=ModelVersion(name=model.name, version=model.version), tokens=tokens, context=context
        )


def count(request: CountTokensRequest, model: Model) -> tuple[int, int]:
    """(the prompt's tokens, how many it and its text may have together)."""
    language = language_of(model)
    return len(language.prompt(request)), language.context
