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


def test_a_multiple_of_any_length_is_refused(language: Language) -> None:
    """Python's floats end at 308 digits."""
    with pytest.raises(BadInput, match="its numbers of multipleOf take too long"):
        form_of(schema(f'{{"type": "integer", "multipleOf": 1{"0" * 400}1}}'), language)
    with pytest.raises(BadInput, match="can't be used"):
        form_of(schema('{"type": "integer", "multipleOf": 1e999}'), language)


@pytest.mark.parametrize(
    ("least", "most"),
    [
        ({"minimum": -1e308}, {"maximum": -1e308}),
        ({"minimum": -(2**63)}, {"maximum": -(2**63)}),
        ({"minimum": -(2**63) + 512}, {"maximum": -(2**63) + 512}),
        ({"exclusiveMinimum": -1e300}, {"exclusiveMaximum": -1e299}),
    ],
)
def test_bounds_between_which_the_compiler_finds_no_end_are_refused(
    language: Language, least: dict[str, float], most: dict[str, float]
) -> None:
    """They ended the process."""
    both = {"type": "integer"} | least | most
    parted = {"allOf": [{"type": "integer"} | least, most]}
    for request in (schema(both), schema(parted), GenerateRequest(grammar=f"start: %json {json.dumps(both)}")):
        with pytest.raises(BadInput, match="the bounds of a number must be greater than -9223372036854775296"):
            form_of(request, language)


def test_other_large_bounds_are_followed(language: Language) -> None:
    least = -(2**63) + 1024
    assert follow(language, schema({"type": "integer", "minimum": least, "maximum": least}), str(least))
    assert follow(language, schema({"type": "integer", "minimum": 0, "maximum": 1e308}), "7")


def patterns(count: int) -> list[dict[str, str]]:
    return [{"type": "string", "pattern": f".*x{number}"} for number in range(count)]


def doubled(count: int) -> dict[str, Any]:
    """A schema whose references part in two so often, and all lead to one pattern."""
    steps = {f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(count)}
    return {"$ref": "#/$defs/d0", "$defs": steps | {f"d{count}": {"type": "string", "pattern": "a*"}}}


def circling(count: int) -> dict[str, Any]:
    """Patterns that follow each other as alternatives; the last one of which all meet."""
    steps: dict[str, Any] = {
        f"d{n}": {"anyOf": [each, {"type": "object", "properties": {"x": {"$ref": f"#/%24defs/d{n + 1}"}}}]}
        for n, each in enumerate(patterns(count))
    }
    return {
        "$ref": "#/$defs/d0",
        "$defs": steps | {f"d{count}": {"allOf": [{"$ref": f"#/$defs/d{n}"} for n in range(count)]}},
    }


@pytest.mark.parametrize(
    "written",
    [
        {"allOf": patterns(20)},
        {"allOf": [{"allOf": patterns(5)}, {"allOf": [{"anyOf": [each]} for each in patterns(5)]}]},
        {"allOf": [{"type": "object", "properties": {"a": each}, "required": ["a"]} for each in patterns(20)]},
        {"allOf": [{"type": "array", "items": each, "minItems": 1} for each in patterns(20)]},
        {"allOf": [{"type": "string", "format": "date"}] * 20},
        {"$ref": "#/$defs/0"}
        | {"$defs": {str(n): each | {"$ref": f"#/$defs/{n + 1}"} for n, each in enumerate(patterns(20))} | {"20": {}}},
        {"allOf": [{"$ref": "#/allOf/1/anyOf/0"}, {"anyOf": [{"allOf": patterns(9)}]}]},
        {"allOf": [{"$ref": "#there"}, {"$anchor": "there", "type": "string", "pattern": "a"}]},
        doubled(40),
        circling(20),
    ],
)
def test_patterns_that_meet_without_an_end_in_sight_are_refused(language: Language, written: dict[str, Any]) -> None:
    """Their compiler takes twice as long and twice the memory for each, and can't be ended."""
    for request in (schema(written), GenerateRequest(grammar=f"start: %json {json.dumps(written)}")):
        with pytest.raises(BadInput, match="at most 8 patterns and formats may meet in one string"):
            form_of(request, language)


def test_many_patterns_that_do_not_meet_are_followed(language: Language) -> None:
    """As alternatives, and of properties each, some of which others are put together with."""
    assert follow(language, schema({"anyOf": [{"pattern": f"^x{n}$", "type": "string"} for n in range(30)]}), '"x7"')
    halves = [
        {"type": "object", "properties": {f"{side}{n}": {"type": "string", "pattern": "^a+$"} for n in range(12)}}
        for side in ("l", "r")
    ]
    assert follow(language, schema({"allOf": halves}), '{"l0":"aa","r11":"a"}')
    tree: dict[str, Any] = {
        "$ref": "#/$defs/tree",
        "$defs": {
            "named": {"type": "object", "properties": {"name": {"type": "string", "pattern": "^[a-z]+$"}}},
            "tree": {
                "allOf": [
                    {"$ref": "#/$defs/named"},
                    {"type": "object", "properties": {"next": {"$ref": "#/$defs/tree"}}},
                ]
            },
        },
    }
    assert follow(language, schema(tree), '{"name":"a","next":{"name":"b"}}')
    assert not follow(language, schema(tree), '{"name":"a","next":{"name":"B"}}')


def test_patterns_of_a_grammar_do_not_meet(language: Language) -> None:
    """Two of them can take all memory there is. In a text or a comment the sign is one like others."""
    with pytest.raises(BadInput, match=r"grammar: can't be used: patterns that meet \(&\)"):
        form_of(GenerateRequest(grammar="start: A\nA: /[a-z]+/ & /.*b/"), language)
    assert follow(language, GenerateRequest(grammar='start: A "&" /R&D/  // & more\nA: /[a-z]+/'), "ab&R&D")


@pytest.mark.parametrize(
    ("form", "text"),
    [
        ({"grammar": 'start: A "a"\nA: /a+/'}, "aaaa"),
        ({"grammar": 'start: "b" "a"\n%ignore /a*/'}, "baaa"),
        ({"grammar": '%llguidance {"no_forcing": false}\nstart: "b" "a"\n%ignore /a*/'}, "baaa"),
        ({"grammar": 'start: "b" "a"\n%ignore /a*/ // as it was written'}, "baaa"),
        ({"json_schema": '{"x-guidance": {"item_separator": "1*"}, "items": {"const": 1}, "minItems": 3}'}, "[1111"),
    ],
)
def test_what_one_terminal_takes_from_the_next_has_no_end_and_is_followed(
    language: Language, form: dict[str, str], text: str
) -> None:
    """The compiler looked for the end of what must come, and neither it nor its thread came back."""
    made = form_of(GenerateRequest(**form), language)  # type: ignore[arg-type]
    assert made is not None
    followed = Form(made, next(iter(form)), language.facts.eos_token_ids)
    for token in [language.tokenizer.token_to_id(letter) for letter in text]:
        assert followed.allowed()[token // 32] >> (token % 32) & 1
        assert not followed.accept(token)


def test_options_of_a_schema_are_followed(language: Language) -> None:
    options = {"x-guidance": {"item_separator": ", ", "key_separator": ": ", "whitespace_flexible": False}}
    listed = options | {"type": "object", "properties": {"a": {"const": 1}, "b": {"const": 2}}}
    assert follow(language, schema(listed), '{"a": 1, "b": 2}')
    assert not follow(language, schema(listed), '{"a":1,"b":2}')


@pytest.mark.parametrize(
    "written",
    [
        {"x-guidance": {"item_separator": ","}, "properties": {"x-guidance": {"const": 1}}},
        {"properties": {"x-guidance": {"const": 1}}},
        {"properties": {"x-guidance": {"x-guidance": {"whitespace_flexible": True}, "const": 1}}},
    ],
    ids=["others", "a property of that name", "within"],
)
def test_json_is_compact_unless_the_schema_itself_says_otherwise(language: Language, written: dict[str, Any]) -> None:
    """Else white space may be written for ever."""
    made = schema({"type": "object", "required": ["x-guidance"]} | written)
    assert follow(language, made, '{"x-guidance":1}')
    assert not follow(language, made, '{ "x-guidance":1}')
    assert not follow(language, made, '{"x-guidance": 1}')


@pytest.mark.parametrize(
    "grammar",
    [
        'start: a::0\na::_: "x"? a::incr([0:16]) %if lt([0:16], 60000)\n | "" %if ge([0:16], 60000)',
        'start: "z" p::0x0\np::_: "" %if is_ones([0:1])\n | "a"? p::set_bit(0) %if bit_clear(0)',
    ],
    ids=["counted", "bits"],
)
def test_rules_with_parameters_are_refused_before_they_are_compiled(language: Language, grammar: str) -> None:
    """The first would never end, nor heed a limit."""
    with pytest.raises(BadInput, match="rules with parameters"):
        form_of(GenerateRequest(grammar=grammar), language)


def test_what_looks_like_a_parameter_within_a_string_a_pattern_or_a_comment_is_none(language: Language) -> None:
    assert follow(language, GenerateRequest(grammar='start: "a::b" /c::d/ // x::_\n'), "a::bc::d")


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
