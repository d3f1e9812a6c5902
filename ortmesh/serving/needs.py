"""What a task needs of its models: constants of the card, tensors of the graph, files. Stage: task.

A card is written by hand. What it gets wrong is told to callers as ModelFailed, naming the key, the tensor or the
file: it is neither their mistake nor a bug of ours.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from ortmesh.errors import ModelFailed, NotFound
from ortmesh.front.call import Call
from ortmesh.serving.cards import Card
from ortmesh.serving.mistakes import MOST_TOLD, mistakes_in_words, shown

if TYPE_CHECKING:
    from ortmesh.serving.model import Model
    from ortmesh.serving.models import Models


MISSPELT = 0.75
"""difflib's ratio from which one key may be meant by another: a letter or two of a word are wrong. Cards say much for
people alone, as `sample_rate`, which must not be taken for `frame`."""


MOST_LOOKED_AT, LONGEST_KEY = 100, 64
"""Of a card's constants, which may be thousands."""


class Settings(BaseModel):
    """A task's constants in a card's `preprocessing`. A card may say more than a task reads."""

    model_config = ConfigDict(extra="ignore", frozen=True)


S = TypeVar("S", bound=Settings)
T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False)
class Needs(Generic[S]):
    """What a task needs of one of its models."""

    constants: type[S]
    """In the card's `preprocessing`."""
    inputs: Mapping[str, str]
    """All tensors that the task gives, with their data types by OIP's names."""
    outputs: Mapping[str, int]
    """The tensors that the task reads, with their numbers of dimensions."""
    may_take: Mapping[str, str] = field(default_factory=dict)
    """Tensors that the task gives, when they are asked for, to models that take them: as `inputs`."""
    may_give: Mapping[str, int] = field(default_factory=dict)
    """Tensors that the task reads, when they are asked for, of models that give them: as `outputs`."""

    def of(self, model: Model) -> S:
        """The constants of a model that has all of it. ModelFailed names what is missing or wrong.

        Looked at once for each graph: a task asks at every request.
        """
        return model.checked(self, self._check)

    def _check(self, model: Model) -> S:
        must = {name for name, info in model.inputs.items() if not info.optional}
        if not must <= self.inputs.keys() <= model.inputs.keys():
            raise unfit(model.card, f"its graph takes {_named(model.inputs)}, and the task gives {_named(self.inputs)}")
        for name, datatype in {**self.inputs, **self.may_take}.items():
            if name in model.inputs and model.inputs[name].datatype != datatype:
                raise unfit(model.card, f"its input {name!r} is {model.inputs[name].datatype}, not {datatype}")
        for name in self.outputs:
            if name not in model.outputs:
                raise unfit(model.card, f"its graph gives {_named(model.outputs)}, and the task needs {name!r}")
        for name, dimensions in {**self.outputs, **self.may_give}.items():
            shape = model.outputs[name].shape if name in model.outputs else ()
            if shape and len(shape) != dimensions:  # an empty one: unknown
                raise unfit(model.card, f"its output {name!r} has {len(shape)} dimensions, not {dimensions}")
        return settings(model.card, self.constants)

    def with_labels(self, model: Model) -> tuple[S, tuple[str, ...]]:
        """What `of` gives, and the labels of the model's classes; none when its card names no file.

        ModelFailed of both. It blocks, as `asset`.
        """
        return self.of(model), labels_of(model)


def settings(card: Card, kind: type[S]) -> S:
    """The card's constants. ModelFailed, naming the key, when they are not of the kind."""
    written: dict[str, Any] = card.preprocessing
    try:
        return kind.model_validate(written)
    except ValidationError as error:
        mistakes = f"preprocessing: {mistakes_in_words(error, kind)}"
        raise unfit(card, "; ".join(filter(None, (mistakes, _meant(card, kind.model_fields))))) from None


def misspelt(model: Model) -> str:
    """What a card's `preprocessing` says that no task of its reads, where one does without what is spelt nearly so.
    Empty otherwise: a card may say more than tasks read. Once each task has looked at what it needs."""
    kinds = [needs.constants for needs in model.looked_at if isinstance(needs, Needs)]
    return _meant(model.card, {name for kind in kinds for name in kind.model_fields})


def _meant(card: Card, read: Collection[str]) -> str:
    """For the constants that are not among those that are read, which of those that are not given may be meant."""
    left = [name for name in read if name not in card.preprocessing]
    keys = [key for key in card.preprocessing if key not in read and len(key) <= LONGEST_KEY][:MOST_LOOKED_AT]
    meant = {key: get_close_matches(key.lower(), left, n=1, cutoff=MISSPELT) for key in keys}
    told = [
        f"preprocessing: no task reads {shown(key)}; did you mean {near[0]}?" for key, near in meant.items() if near
    ]
    return "; ".join(told[:MOST_TOLD])


def asset(model: Model, load: Callable[[Path], T], file: str) -> T:
    """A file of the model as the named function `load` reads it, once for this version. It blocks: call it in the pool.

    ModelFailed when the file is missing or is not what `load` reads.
    """
    try:
        return model.asset(load, file)
    except BaseException as error:  # libraries of other languages raise no narrower one, and panics
        reason = str(error) if (model.folder / file).is_file() else "it is missing"
        raise unfit(model.card, f"its file {file!r} can't be read: {reason}") from error


def labels_of(model: Model, *, needed: bool = False) -> tuple[str, ...]:
    """The labels of a model's classes, by index; none when its card names no file. It blocks, as `asset`.

    ModelFailed when they can't be read, and when there are none though they are needed.
    """
    labels = asset(model, read_lines, model.card.labels) if model.card.labels is not None else ()
    if needed and not labels:
        raise unfit(model.card, "the task needs its labels, and it has none")
    return labels


def classes_of(model: Model, output: str) -> int:
    """How many classes an output tells of, by its last dimension; -1 when the graph does not say."""
    shape = model.outputs[output].shape
    return shape[-1] if shape else -1


def check_labels(model: Model, labels: Sequence[str], classes: int) -> None:
    """ModelFailed when labels are not as many as a model's classes; -1 classes are unknown."""
    if classes >= 0 and len(labels) != classes:
        raise unfit(model.card, f"it has {len(labels)} labels for {classes} classes")


def read_lines(path: Path) -> tuple[str, ...]:
    """A file's lines, without their ends."""
    return tuple(path.read_text(encoding="utf-8").splitlines())


def companion(models: Models, model: Model, key: str, name: str, call: Call) -> Model:
    """The other model that a card's `preprocessing` names under a key, leased until the call ends.

    ModelFailed when there is none; NotReady and ModelFailed of the other itself.
    """
    try:
        return models.named(name, "", call)
    except NotFound as error:
        raise unfit(model.card, f"preprocessing: {key}: {error.message}") from None


def unfit(card: Card, reason: str) -> ModelFailed:
    """The error for a card that a task can't use."""
    return ModelFailed(f"the card of {card.key} can't be used: {reason}", resource=("model", card.key))


def _named(tensors: Mapping[str, Any]) -> str:
    return ", ".join(map(repr, tensors)) or "nothing"
