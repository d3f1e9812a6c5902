"""Forms and the model's marks: in a form's text they are text, a grammar may name them, and none ends a text early."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from ortmesh.errors import BadInput
from ortmesh.front.call import Call
from ortmesh.front.pool import Pool
from ortmesh.nlp.v1 import nlp_pb2
from ortmesh.nlp.v1.nlp_pb2 import GenerateRequest
from ortmesh.serving.models import Models
from ortmesh.serving.types import NoMeter
from ortmesh_nlp.chat import language_of
from ortmesh_nlp.generate import Generate
from ortmesh_nlp.vocabulary import vocabulary_of
from tests.nlp.writers import writer

Said = tuple[str, "nlp_pb2.FinishReason.ValueType"]
STOP, LENGTH = nlp_pb2.FINISH_REASON_STOP, nlp_pb2.FINISH_REASON_LENGTH


@pytest.fixture
async def models(tmp_path: Path) -> AsyncIterator[Models]:
    async with Models(writer(tmp_path / "store"), "nlp", threads=1, meter=lambda *_: NoMeter()) as models:
        await models.until_loaded()
        yield models


async def said(models: Models, pieces: list[str] | None = None, **form: Any) -> Said:
    """The text and why it ended; `pieces` has what came, whatever happens."""
    request = GenerateRequest(text="Once", **{"max_tokens": 60, "sampling": {"temperature": 1.0, "seed": 3}} | form)
    pool = Pool(threads=1, max_bytes=1 << 30)
    call = Call("/ortmesh.nlp.v1.NlpService/Generate", pool)
    pieces = [] if pieces is None else pieces
    try:
        async for answer in Generate(models)(request, call):
            pieces.append(answer.text)
    finally:
        call.end()
        pool.close()
    return "".join(pieces), answer.finish_reason


@pytest.mark.parametrize(
    ("form", "text"),
    [
        ({"regex": r"ok<\|im_end\|>yes"}, "ok<|im_end|>yes"),
        ({"regex": r"<\|im_end\|>"}, "<|im_end|>"),
        ({"regex": r"<\|im_start\|>[x]{3}<\|endoftext\|>"}, "<|im_start|>xxx<|endoftext|>"),
        ({"json_schema": '{"const": "<|im_end|>"}'}, '"<|im_end|>"'),
        ({"json_schema": '{"const": {"<|im_start|>": ["a<|endoftext|>b"]}}'}, '{"<|im_start|>":["a<|endoftext|>b"]}'),
        ({"grammar": 'start: "a<|im_end|>b" // <|no|>\n'}, "a<|im_end|>b"),
    ],
)
async def test_marks_in_a_form_are_text(models: Models, form: dict[str, str], text: str) -> None:
    assert await said(models, **form) == (text, STOP)


async def test_marks_in_a_form_are_no_tokens_of_marks(models: Models) -> None:
    language = language_of(models.list()[0])
    for mark, number in language.added.items():
        assert number not in language.vocabulary.tokenize_str(f"a{mark}b")
        assert language.vocabulary.is_special_token(number)


async def test_what_a_form_forces_is_read_as_the_model_reads_it(models: Models) -> None:
    language = language_of(models.list()[0])
    for text in ("the other thing is on", '{"a": "é🙂"}'):
        encoded = language.tokenizer.encode(text, add_special_tokens=False).ids
        assert language.vocabulary.tokenize_str(text) == encoded


@pytest.mark.parametrize(
    ("grammar", "text"),
    [
        ('start: "a" <|im_start|> "b"', "a<|im_start|>b"),
        ('start: "a" <|im_start|>{2} "b"', "a<|im_start|><|im_start|>b"),
        ('start: "a" <[1]> # <|none|> "\n  | <|im_start|> "a" // /', ""),
        ('start: A <|im_start|>\nA: /<\\|im_end\\|>\\//  "<|none|>\\"" // "', '<|im_end|>/<|none|>"<|im_start|>'),
        ('start: %json {"const": "<none>"} <|im_start|>', '"<none>"<|im_start|>'),
        ('start: A <|im_start|>\nA: %regex {"substring_chunks": ["<none>"]}', "<none><|im_start|>"),
        ('%llguidance {"no_forcing": true}\nstart: <|im_start|> "<none>"', "<|im_start|><none>"),
    ],
)
async def test_a_grammar_may_name_marks(models: Models, grammar: str, text: str) -> None:
    given, reason = await said(models, grammar=grammar)
    assert given.startswith(text)
    assert reason == STOP


@pytest.mark.parametrize(
    ("grammar", "reason"),
    [
        ('start: "a"\n  <|mark|>', "can't be used: at 2(3): the model has no mark <|mark|>"),
        ('start: "a" <' + "m" * 900 + ">", f"can't be used: at 1(12): the model has no mark <{'m' * 99}"),
        ('start: "a" <[9999]>', "can't be used: at 1(8): Token range end too large: 9999"),
        ("start: <|im_start|> $", "can't be used: 1(21): lexer error"),
    ],
)
async def test_marks_that_there_are_not_are_told_with_their_place(models: Models, grammar: str, reason: str) -> None:
    with pytest.raises(BadInput) as caught:
        await said(models, grammar=grammar)
    assert str(caught.value) == f"grammar: {reason}"


@pytest.mark.parametrize("end", ["<|im_end|>", "<|endoftext|>"])
async def test_an_end_ends_a_text_only_where_it_is_whole(models: Models, end: str) -> None:
    assert await said(models, grammar=f'start: "a" {end}') == ("a", STOP)
    assert await said(models, grammar=f'start: "a" ({end} "b")?') == ("a", STOP)
    assert await said(models, grammar=f'start: "a" ({end} | "c") "b"') == ("acb", STOP)


async def test_a_form_that_goes_on_after_an_end_is_refused(models: Models) -> None:
    pieces: list[str] = []
    with pytest.raises(BadInput, match="grammar: can't be used: it goes on after a token that ends the text"):
        await said(models, pieces, grammar='start: "a" <|im_end|> "b"')
    assert "".join(pieces) == "a"
    with pytest.raises(BadInput, match="it goes on after a token"):
        await said(models, grammar='start: <[0,2]> "b"')


@pytest.mark.parametrize("seed", range(4))
async def test_any_token_is_no_end_where_the_form_goes_on(models: Models, seed: int) -> None:
    """However likely they are."""
    sampling = {"temperature": 1.0, "seed": seed, "logit_bias": {0: 100.0, 2: 100.0}}
    text, reason = await said(models, grammar='start: <[*]> <[*]> "z"', sampling=sampling)
    assert reason == STOP
    assert text.endswith("z")
    endless = 'start: x "b"\nx[stop=""]: /[a-z]*/'
    assert (await said(models, grammar=endless, max_tokens=9, sampling=sampling))[1] == LENGTH


async def test_booleans_are_schemas(models: Models) -> None:
    text, reason = await said(
        models, json_schema="true", sampling={"logit_bias": {_of(models, "7"): 100.0}}, max_tokens=3
    )
    assert (text, reason) == ("777", LENGTH)
    with pytest.raises(BadInput, match="json_schema: nothing satisfies it"):
        await said(models, json_schema=" false")
    with pytest.raises(BadInput, match="json_schema: is no JSON schema: expected an object or a boolean"):
        await said(models, json_schema="[true]")


@pytest.mark.parametrize("schema", [{"type": "object"}, {"properties": {"a": {"const": 1}}, "required": ["a"]}, {}])
async def test_json_within_a_grammar_is_compact(models: Models, schema: dict[str, Any]) -> None:
    """Whatever is likely: spaces and lines can't be written for ever."""
    blanks = {"logit_bias": {_of(models, "Ġ"): 100.0, _of(models, "Ċ"): 100.0, _of(models, "{"): 50.0}}
    grammar = f"start: %json {json.dumps(schema)}"
    text, _ = await said(models, grammar=grammar, sampling=blanks, max_tokens=8)
    assert text.startswith(("{", '{"'))
    assert not text[:2].endswith((" ", "\n"))


async def test_a_schema_within_a_grammar_may_have_spaces_by_its_own_word(models: Models) -> None:
    schema = {"type": "object", "x-guidance": {"whitespace_flexible": True}}
    blanks = {"logit_bias": {_of(models, "Ġ"): 100.0}}
    text, _ = await said(models, grammar=f"start: %json {json.dumps(schema)}", sampling=blanks, max_tokens=5)
    assert text == "{    "


def _of(models: Models, token: str) -> int:
    number = language_of(models.list()[0]).tokenizer.token_to_id(token)
    assert number is not None
    return int(number)


def _sentencepiece(kind: str) -> Tokenizer:
    """As the library writes those of Llama 2 (BPE) and T5 (Unigram)."""
    marks = ["<unk>", "<s>", "</s>"]
    pieces = [*marks, *(f"<0x{byte:02X}>" for byte in range(256)), "\u2581", *"abs</>"]
    if kind == "BPE":
        vocab: Any = {piece: number for number, piece in enumerate(pieces)}
        model = {"type": kind, "unk_token": "<unk>", "fuse_unk": True, "byte_fallback": True, "merges": []}
    else:
        vocab = [[piece, -1.0] for piece in pieces]
        model = {"type": kind, "unk_id": 0, "byte_fallback": True}
    decoders = [{"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "}, {"type": "ByteFallback"}]
    flags = dict.fromkeys(["single_word", "lstrip", "rstrip", "normalized"], False)
    added = [{"id": number, "content": mark, "special": number < 2, **flags} for number, mark in enumerate(marks)]
    normalizers = [
        {"type": "Prepend", "prepend": "\u2581"},
        {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"},
    ]
    written = {
        "version": "1.0",
        "added_tokens": added,
        "normalizer": {"type": "Sequence", "normalizers": normalizers},
        "decoder": {"type": "Sequence", "decoders": [*decoders, {"type": "Fuse"}]},
        "model": model | {"vocab": vocab},
    }
    return Tokenizer.from_str(json.dumps(written))


@pytest.mark.parametrize("kind", ["BPE", "Unigram"])
def test_marks_of_sentencepiece_are_text(kind: str) -> None:
    made = vocabulary_of(_sentencepiece(kind), 300, [2])
    assert made.eos_tokens == [2]
    for text in ("a</s>b", "<s> a", "<unk>", "é"):
        tokens = made.tokenize_str(text)
        assert min(tokens) > 2
        assert made.decode_str(tokens) == text
