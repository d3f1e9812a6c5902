"""NlpService.DetectLanguage: which languages texts are written in. Stage: task."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ortmesh.common.v1.common_pb2 import ModelVersion
from ortmesh.errors import BadInput
from ortmesh.front.call import Call
from ortmesh.front.status import status_of
from ortmesh.nlp.v1.nlp_pb2 import (
    DetectedLanguage,
    DetectedLanguages,
    DetectLanguageRequest,
    DetectLanguageResponse,
    DetectLanguageResult,
)
from ortmesh.serving.model import Model
from ortmesh.serving.models import Models
from ortmesh.serving.needs import Needs, Settings, asset, check_labels, classes_of, labels_of, read_lines, unfit
from ortmesh.serving.types import Array, Tensors
from ortmesh_nlp.ngrams import Dictionary, load_dictionary, rows_of
from ortmesh_nlp.texts import check_count, faults

READ_CHARACTERS = 10_000
"""What is read of a text. The model takes the mean over all n-grams, which a few thousand characters of one language
settle; 100,000 would be up to 200,000 rows, 13 MB, and all in its batch would be padded to as many."""
NORMALIZED_AT_ONCE = 256
"""Characters: putting marks in order takes time in the square of their number."""


class Facts(Settings):
    """What a model knows, in files."""

    ngrams: str = "ngrams.json"
    """Its words and n-grams by their rows."""
    names: str = "names.txt"
    """The languages' names in English, a line each, in the order of its labels."""


NEEDS = Needs(Facts, inputs={"ids": "INT64"}, outputs={"probabilities": 2})


class DetectLanguage:
    """Texts to languages; a text that is wrong spares its neighbours."""

    def __init__(self, models: Models) -> None:
        self.models = models
        models.require("detect_language", known_by)

    async def __call__(self, request: DetectLanguageRequest, call: Call) -> DetectLanguageResponse:
        """Results in the order of the texts; BadInput for a count that is wrong."""
        check_count(request.texts)
        model = self.models.choose("detect_language", request.model, call)
        known = await call.in_pool(known_by, model)
        count = checked_results(request.max_results, len(known.labels))
        prepared = await call.in_pool(prepare, list(request.texts), known.dictionary)
        outputs = await model.many(
            [text for text in prepared if not isinstance(text, BadInput)], call, outputs=NEEDS.outputs
        )
        probabilities = [each["probabilities"][0] for each in outputs]
        for each in probabilities:
            check_labels(model, known.labels, len(each))
        good = iter(probabilities)
        results = [
            failure(text) if isinstance(text, BadInput) else finish(next(good), known.labels, known.names, count)
            for text in prepared
        ]
        return DetectLanguageResponse(model=ModelVersion(name=model.name, version=model.version), results=results)


@dataclass(frozen=True, slots=True)
class Known:
    """What a model knows."""

    labels: tuple[str, ...]
    names: tuple[str, ...]
    dictionary: Dictionary


def known_by(model: Model) -> Known:
    """What a model knows, read once. ModelFailed when it lacks something, or not each of its classes has both names."""
    facts, labels = NEEDS.of(model), labels_of(model, needed=True)
    names = asset(model, read_lines, facts.names)
    check_labels(model, labels, classes_of(model, "probabilities"))
    if len(names) != len(labels):
        raise unfit(model.card, f"its file {facts.names!r} has {len(names)} names for {len(labels)} labels")
    return Known(labels, names, asset(model, load_dictionary, facts.ngrams))


def checked_results(max_results: int, languages: int) -> int:
    """How many languages to return, 1 by default. BadInput outside of what the model knows."""
    if not 0 <= max_results <= languages:
        raise BadInput("max_results", f"{max_results}: expected 1 to {languages}, or 0 for 1")
    return max_results or 1


def prepare(texts: Sequence[str], dictionary: Dictionary) -> list[Tensors | BadInput]:
    """Each text as the model reads it, `ids` int64 [1, n], or what is wrong with it; a single wrong text raises."""
    wrong = faults(texts)
    return [
        wrong[index] if index in wrong else {"ids": rows_of(readable(text), dictionary)[None]}
        for index, text in enumerate(texts)
    ]


def readable(text: str) -> str:
    """What the model reads of a text: its beginning, with composed accents, in lower case where it is in capitals.

    The model learned from running text, in which both are rare: it took the French été for Russian when its accents
    stood apart, and of one sentence in 18 languages, in capitals, it knew 7; in lower case all.
    """
    beginning = text.strip()[:READ_CHARACTERS]
    pieces = range(0, len(beginning), NORMALIZED_AT_ONCE)
    composed = "".join(unicodedata.normalize("NFC", beginning[i : i + NORMALIZED_AT_ONCE]) for i in pieces)
    return composed.lower() if composed.isupper() else composed


def finish(probabilities: Array, labels: Sequence[str], names: Sequence[str], count: int) -> DetectLanguageResult:
    """The most probable languages of probabilities f32 [languages]."""
    best = np.argsort(-probabilities, kind="stable")[:count]
    languages = [
        DetectedLanguage(code=labels[index], name=names[index], score=float(probabilities[index])) for index in best
    ]
    return DetectLanguageResult(detected=DetectedLanguages(languages=languages))


def failure(error: BadInput) -> DetectLanguageResult:
    """The result for a text that is wrong."""
    return DetectLanguageResult(error=status_of(error))
