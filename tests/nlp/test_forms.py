"""Forms: what a caller may ask for is bounded, and what goes wrong in the library is one text's alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from llguidance import LLMatcher

from ortmesh.errors import BadInput, ExecutorFailed
from ortmesh.nlp.v1.nlp_pb2 import GenerateRequest
from ortmesh_nlp import forms
from ortmesh_nlp.chat import Language, Speaking
from ortmesh_nlp.forms import Form, form_of
from tests.nlp.tiny_llama import write_tiny_llama


class Panic(BaseException):
    """As pyo3's PanicException: no `Exception`."""


@pytest.fixture(scope="module")
def language(tmp_path_factory: pytest.TempPathFactory) -> Language:
    return Language(write_tiny_llama(tmp_path_factory.mktemp("tiny")), Speaking(), 256)


def schema(written: Any) -> GenerateRequest:
    return GenerateRequest(json_schema=written if isinstance(written, str) else json.dumps(written))


def follow(language: Language, request: GenerateRequest, text: str) -> bool:
    """Whether the whole text has the form."""
    made = form_of(request, language)
    assert made is not None
    form = Form(made.deep_copy(), "form", language.facts.eos_token_ids)
    for token in language.tokenizer.encode(text, add_special_tokens=False).ids:
        if not form.allowed()[token // 32] >> (token % 32) & 1:
            return False
        form.accept(token)
    end = language.facts.eos_token_ids[0]
    return bool(form.allowed()[end // 32] >> (end % 32) & 1)


def chain(key: str, length: int) -> str:
    """A schema whose references follow each other."""
    steps = ", ".join(f'"{n}": {{"{key}": "#/$defs/{n + 1}"}}' for n in range(length - 1))
    return f'{{"{key}": "#/$defs/0", "$defs": {{{steps}, "{length - 1}": {{"const": 7}}}}}}'


@pytest.mark.parametrize("key", ["$ref", "\\u0024ref", "$r\\u0065f"])
def test_references_are_counted_however_they_are_written(language: Language, key: str) -> None:
    assert follow(language, schema(chain(key, 900)), "7")
    with pytest.raises(BadInput, match="json_schema: 1100 references: expected at most 1000"):
        form_of(schema(chain(key, 1100)), language)


def test_references_of_a_schema_within_a_grammar_are_counted(language: Language) -> None:
    assert follow(language, GenerateRequest(grammar=f"start: %json {chain('$ref', 900)}"), "7")
    with pytest.raises(BadInput, match="grammar: 1100 references: expected at most 1000"):
        form_of(GenerateRequest(grammar=f"start: %json\n{chain('$ref', 1100)}"), language)


@pytest.mark.parametrize("multiple", [999_983, 2**30, 0.000123457])
def test_a_multiple_that_takes_a_compiler_half_a_minute_is_refused(language: Language, multiple: float) -> None:
    dear = {"type": "number", "multipleOf": multiple}
    shared = {"allOf": [{"type": "integer", "multipleOf": each} for each in (97, 89, 83)]}
    for request in (schema(dear), schema(shared), GenerateRequest(grammar=f"start: %json {json.dumps(dear)}")):
        with pytest.raises(BadInput, match="its numbers of multipleOf take too long"):
            form_of(request, language)


def test_usual_multiples_are_followed(language: Language) -> None:
    assert follow(language, schema({"type": "integer", "multipleOf": 86_400}), "172800")
    assert not follow(language, schema({"type": "integer", "multipleOf": 86_400}), "172801")
    assert follow(language, schema({"type": "number", "multipleOf": 0.01}), "12.34")
    assert follow(language, schema({"type": "integer", "multipleOf": 1_000_000, "minimum": 1}), "3000000")


def test_what_only_speaks_of_references_has_none(language: Language) -> None:
    assert follow(language, schema({"const": 7, "description": "$ref " * 2000}), "7")


@pytest.mark.parametrize(
    ("panicking", "step"),
    [
        ("compute_bitmask", Form.allowed),
        ("is_error", Form.allowed),
        ("consume_token", lambda form: form.accept(1)),
        ("is_error", lambda form: form.accept(1)),
        ("is_stopped", lambda form: form.accept(1)),
    ],
)
def test_a_panic_of_the_library_ends_one_text_only(panicking: str, step: Callable[[Form], object]) -> None:
    """The engine's thread, in which it arises, takes an `Exception` for the text's own."""

    class Matcher:
        def compute_bitmask(self) -> bytes:
            return bytes(4)

        def consume_token(self, token: int) -> bool:
            return True

        def is_error(self) -> bool:
            return False

        def is_stopped(self) -> bool:
            return False

    def panics(*_: object) -> Any:
        raise Panic

    setattr(Matcher, panicking, panics)
    form = Form(Matcher(), "regex", [0])  # type: ignore[arg-type]
    with pytest.raises(ExecutorFailed):
        step(form)


@pytest.mark.timeout(30)
def test_a_panic_in_the_compilers_thread_is_told(language: Language, monkeypatch: pytest.MonkeyPatch) -> None:
    def panics(*_: object) -> LLMatcher:
        raise Panic

    monkeypatch.setattr(forms, "_compiled", panics)
    with pytest.raises(Panic):
        form_of(GenerateRequest(regex="a"), language)
