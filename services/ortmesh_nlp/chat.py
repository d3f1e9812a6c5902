"""Chat: conversations and prompts as tokens, by the model's own template. Stage: task.

A template is written by a model's authors in Jinja; it runs in the library's sandbox. Marks that steer the model
("<|im_end|>") count only where the template wrote them: in what a caller says they are text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment
from llguidance import LLTokenizer
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ortmesh.errors import BadInput, ModelFailed
from ortmesh.nlp.v1 import nlp_pb2
from ortmesh.serving.cards import CARD_FILE, must_stay_inside, read_card
from ortmesh.serving.mistakes import mistakes_in_words
from ortmesh.serving.model import Model
from ortmesh.serving.needs import Needs, Settings, asset
from ortmesh.serving.tokenizing import load_literal_tokenizer, load_tokenizer
from ortmesh_nlp.token_bytes import TokenBytes
from ortmesh_nlp.vocabulary import vocabulary_of

MAX_MESSAGES = 1000
MAX_CHARACTERS = 400_000
"""Of a prompt: odd ones take 3 s of a core to be counted, usual ones a quarter of one."""
ROLES = {
    nlp_pb2.CHAT_ROLE_SYSTEM: "system",
    nlp_pb2.CHAT_ROLE_USER: "user",
    nlp_pb2.CHAT_ROLE_ASSISTANT: "assistant",
}
EMPTY = "expected a text that is not empty"
SEAMS = tuple(map(chr, range(0xFDD0, 0xFDF0)))
"""Unicode's noncharacters, which no text should hold: one that none does keeps a caller's marks apart."""


class Speaking(Settings):
    """How a model reads and writes."""

    tokenizer: str = "tokenizer.json"
    """The file of its tokenizer, as the library `tokenizers` writes it."""
    chat_template: str = "chat_template.jinja"
    """The file of its template, as Hugging Face's tokenizers have it."""
    generation: str = "generation.json"
    """The file that says what ends a text, and how long one may be."""


class Facts(BaseModel):
    """What `generation.json` says of a model."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    context_length: int = Field(ge=1)
    bos_token_id: int | None = None
    eos_token_ids: list[int] = Field(min_length=1)
    vocabulary: int = Field(ge=1)


NEEDS = Needs(Speaking, inputs={"prompt": "INT64"}, outputs={})


class Language:
    """What a model's files say of how it reads and writes."""

    def __init__(self, folder: Path, speaking: Speaking, context: int) -> None:
        """ValueError for a file that is missing or is not what it should be."""
        written = _file(folder, speaking.tokenizer)
        self.tokenizer = load_tokenizer(written)
        """It takes its marks in a text for control."""
        self._plain = load_literal_tokenizer(written)
        self._template = _template(_file(folder, speaking.chat_template).read_text(encoding="utf-8"))
        self.facts = _facts(_file(folder, speaking.generation))
        self.context = min(self.facts.context_length, context)
        """The most tokens of a prompt and its text together."""
        self.bytes_of = TokenBytes(self.tokenizer)
        added = self.tokenizer.get_added_tokens_decoder()
        self.added = {token.content: number for number, token in added.items()}
        """Its marks and other tokens that are no part of a text's own: a grammar may name them."""
        self._ids = {token.content: number for number, token in added.items() if token.special}
        if any(len(mark) < 2 for mark in self._ids):
            raise ValueError("a special token of one character can't be told from text")
        self._named = {
            f"{name}_token": self.tokenizer.id_to_token(number) or ""
            for name, number in (("bos", self.facts.bos_token_id), ("eos", self.facts.eos_token_ids[0]))
            if number is not None
        }
        """What templates call by name."""
        self._marks = re.compile("|".join(map(re.escape, sorted(self._ids, key=len, reverse=True))) or r"(?!)")
        self._begun = tuple({mark[:length] for mark in self._ids for length in range(1, len(mark))})
        """What marks begin with."""

    @cached_property
    def vocabulary(self) -> LLTokenizer:
        """Its tokens, for forms: made when the first is asked for, which takes a third of a second."""
        return vocabulary_of(self.tokenizer, self.facts.vocabulary, self.facts.eos_token_ids)

    def prompt(self, request: nlp_pb2.GenerateRequest | nlp_pb2.CountTokensRequest) -> list[int]:
        """A request's prompt as tokens. BadInput names the field."""
        kind = request.WhichOneof("prompt")
        if kind is None:
            raise BadInput("prompt", "chat or text is required")
        if kind == "text":
            _check_length(len(request.text), "text")
            # `encode_batch` releases the interpreter's lock, which `encode` holds
            (encoded,) = self.tokenizer.encode_batch([request.text], add_special_tokens=False)
            return list(encoded.ids)
        return self._conversation(request.chat.messages)

    def _conversation(self, messages: Sequence[nlp_pb2.ChatMessage]) -> list[int]:
        _check(messages)
        seam = _seam(messages)
        said = [{"role": ROLES[each.role], "content": self._parted(each.content, seam)} for each in messages]
        try:
            written = self._template.render(messages=said, add_generation_prompt=True, **self._named)
        except _Refused as refused:
            raise BadInput("chat.messages", f"the model's template refuses them: {refused}") from None
        except jinja2.TemplateError as error:
            raise ModelFailed(f"the model's template is broken: {error}") from error
        except Exception as error:  # what a template computes may fail in any way
            raise ModelFailed(f"the model's template failed: {type(error).__name__}") from error
        parts = list(self._parts(written))
        plain = [part.replace(seam, "") for part in parts if part not in self._ids]
        encoded = iter(self._plain.encode_batch(plain, add_special_tokens=False))
        return [token for part in parts for token in ([self._ids[part]] if part in self._ids else next(encoded).ids)]

    def _parted(self, content: str, seam: str) -> str:
        """What is said, without marks: their characters are parted by seams, so that no other mark overlaps either. One
        that it only begins is closed by a seam: a template may write nothing before the next message."""
        parted = self._marks.sub(lambda mark: seam + seam.join(mark[0]) + seam, content)
        said = parted.rstrip()
        return said + seam + parted[len(said) :] if said.endswith(self._begun) else parted

    def _parts(self, written: str) -> Iterator[str]:
        """The template's marks and what stands between them."""
        at = 0
        for mark in self._marks.finditer(written):
            if mark.start() > at:
                yield written[at : mark.start()]
            yield mark[0]
            at = mark.end()
        if at < len(written):
            yield written[at:]


def language_of(model: Model) -> Language:
    """How a model reads and writes, read once. ModelFailed for a model that lacks any of it. It blocks."""
    NEEDS.of(model)
    return asset(model, _language, CARD_FILE)


def _language(path: Path) -> Language:
    card = read_card(path)
    if card.runtime.engine is None:
        raise ValueError("runtime.engine: the task needs a model that an engine runs")
    return Language(path.parent, Speaking.model_validate(card.preprocessing), card.runtime.engine.context)


def _file(folder: Path, name: str) -> Path:
    must_stay_inside(name)
    if not (folder / name).is_file():
        raise ValueError(f"its file {name!r} is missing")
    return folder / name


def _facts(path: Path) -> Facts:
    try:
        return Facts.model_validate_json(path.read_text(encoding="utf-8"))
    except ValidationError as error:
        raise ValueError(f"{path.name}: {mistakes_in_words(error, Facts)}") from None


class _Refused(jinja2.TemplateError):
    """The template's own `raise_exception`: what else goes wrong in one is its mistake, not the caller's."""


def _template(written: str) -> jinja2.Template:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=["jinja2.ext.loopcontrols"],
        undefined=jinja2.ChainableUndefined,
    )
    environment.globals["raise_exception"] = _refuse
    environment.globals["strftime_now"] = _now
    environment.filters["tojson"] = _to_json
    return environment.from_string(written)


def _now(form: str) -> str:
    return datetime.now(UTC).strftime(form)


def _refuse(reason: str) -> None:
    raise _Refused(reason)


def _to_json(value: Any, **options: Any) -> str:
    """As Hugging Face's templates expect: without HTML's escapes."""
    return json.dumps(value, ensure_ascii=False, **options)


def _check(messages: Sequence[nlp_pb2.ChatMessage]) -> None:
    if not 1 <= len(messages) <= MAX_MESSAGES:
        raise BadInput("chat.messages", f"{len(messages)} messages: expected 1 to {MAX_MESSAGES}")
    for place, message in enumerate(messages):
        field = f"chat.messages[{place}]"
        if message.role not in ROLES:
            raise BadInput(f"{field}.role", "expected CHAT_ROLE_SYSTEM, CHAT_ROLE_USER or CHAT_ROLE_ASSISTANT")
        if message.role == nlp_pb2.CHAT_ROLE_SYSTEM and place:
            raise BadInput(f"{field}.role", "only the first message may be the system's")
        if message.role != nlp_pb2.CHAT_ROLE_ASSISTANT and not message.content.strip():
            raise BadInput(f"{field}.content", EMPTY)
    _check_length(sum(len(message.content) for message in messages), "chat.messages")


def _check_length(characters: int, field: str) -> None:
    if not characters:
        raise BadInput(field, EMPTY)
    if characters > MAX_CHARACTERS:
        raise BadInput(field, f"{characters} characters: expected at most {MAX_CHARACTERS}")


def _seam(messages: Sequence[nlp_pb2.ChatMessage]) -> str:
    """A character that no message has. BadInput when each of 32 noncharacters is there."""
    used: set[str] = set()
    for message in messages:
        used.update(message.content)
    seam = next((seam for seam in SEAMS if seam not in used), None)
    if seam is None:
        raise BadInput("chat.messages", "they hold all of Unicode's noncharacters U+FDD0 to U+FDEF")
    return seam
