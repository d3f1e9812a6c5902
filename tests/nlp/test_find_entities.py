"""NlpService.FindEntities on Rampart: a letter whose data is known, offsets as asked for, long texts, bad input."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence

import pytest
from tokenizers import Tokenizer

from ortmesh.errors import BadInput, ModelFailed
from ortmesh.front.call import Call
from ortmesh.nlp.v1 import nlp_pb2
from ortmesh.nlp.v1.nlp_pb2 import Entity, FindEntitiesRequest, FindEntitiesResponse
from ortmesh.serving.gate import Gate
from ortmesh.serving.models import Models
from ortmesh.serving.store import Store
from ortmesh.serving.tokenizing import load_tokenizer
from ortmesh_nlp.find_entities import LONG_CHARACTERS, FindEntities, prepare
from tests.conftest import FamilyModels

LETTER = """Eleanor Whitfield
48 Lindenhurst Avenue
Portland, OR 97205

Dear Mr. O'Connor,

thank you for your visit. In May I will move to 12 rue de la République, Lyon 69002. Please send the contract to
eleanor.whitfield@example.org or call me under +1 503-555-0142. The deposit goes to DE89 3704 0044 0532 0130 00, and the
rest was paid with my card 4111 1111 1111 1111. My social security number is 472-81-0094; the list is at
https://www.example.com/list?q=1.

Kind regards,
Eleanor
"""
IN_LETTER = [
    ("GIVEN_NAME", "Eleanor"),
    ("SURNAME", "Whitfield"),
    ("BUILDING_NUMBER", "48"),
    ("STREET_NAME", "Lindenhurst Avenue"),
    ("CITY", "Portland"),
    ("STATE", "OR"),
    ("ZIP_CODE", "97205"),
    ("SURNAME", "O'Connor"),
    ("BUILDING_NUMBER", "12"),
    ("STREET_NAME", "rue de la République"),
    ("CITY", "Lyon"),
    ("ZIP_CODE", "69002"),
    ("EMAIL", "eleanor.whitfield@example.org"),
    ("PHONE", "+1 503-555-0142"),
    ("IBAN", "DE89 3704 0044 0532 0130 00"),
    ("CREDIT_CARD", "4111 1111 1111 1111"),
    ("US_SSN", "472-81-0094"),
    ("URL", "https://www.example.com/list?q=1"),
    ("GIVEN_NAME", "Eleanor"),
]
MIXED = "👩‍👩‍👧 Hello, I'm Zoe\u0301 Smith from Boston 🎉 邮箱zoe@example.com。电话+86 138 0013 8000。"
IN_MIXED = [
    ("GIVEN_NAME", "Zoe\u0301"),
    ("SURNAME", "Smith"),
    ("CITY", "Boston"),
    ("EMAIL", "zoe@example.com"),
    ("PHONE", "+86 138 0013 8000"),
]
PROSE = (
    "The harbour lies below the old town, and most of the boats come home before it gets dark. In winter the wind is "
    "strong, so people stay inside and mend what was broken in the summer. The market opens at seven and closes "
    "when everything is sold, which is often long before noon. Children learn to row in the bay as soon as the water "
    "is warm. There is one road into the hills, and in the evening you can hear the bells of the sheep."
)


@pytest.fixture
async def models(family_models: FamilyModels) -> AsyncIterator[Models]:
    async with family_models("nlp") as loaded:
        yield loaded


@pytest.fixture
def tokenizer(store: Store) -> Tokenizer:
    return load_tokenizer(store.folder("rampart", "1") / "tokenizer.json")


async def find(models: Models, call: Call, text: str, **fields: object) -> FindEntitiesResponse:
    return await FindEntities(models)(FindEntitiesRequest(text=text, **fields), call)  # type: ignore[arg-type]


def named(entities: Sequence[Entity]) -> list[tuple[str, str]]:
    return [(entity.type, entity.text) for entity in entities]


def places(text: str, wanted: Sequence[tuple[str, str]]) -> list[tuple[int, int]]:
    """Where each piece is, looked for behind the one before."""
    found, at = [], 0
    for _, piece in wanted:
        start = text.index(piece, at)
        at = start + len(piece)
        found.append((start, at))
    return found


async def test_all_of_a_letter_is_found_where_it_is(models: Models, call: Call) -> None:
    answer = await find(models, call, LETTER)
    assert named(answer.entities) == IN_LETTER
    assert [(entity.start, entity.end) for entity in answer.entities] == places(LETTER, IN_LETTER)
    assert (answer.model.name, answer.model.version) == ("rampart", "1")


async def test_patterns_win_and_say_so(models: Models, call: Call) -> None:
    answer = await find(models, call, LETTER)
    by_pattern = {entity.type for entity in answer.entities if entity.source == nlp_pb2.ENTITY_SOURCE_PATTERN}
    assert by_pattern == {"EMAIL", "PHONE", "IBAN", "CREDIT_CARD", "US_SSN", "URL"}
    scores = {entity.type: entity.score for entity in answer.entities}
    assert (scores["IBAN"], scores["CREDIT_CARD"]) == (1.0, 1.0)
    assert all(0.5 <= entity.score <= 1 for entity in answer.entities)


async def test_wrong_check_digits_are_not_taken(models: Models, call: Call) -> None:
    text = LETTER.replace("0130 00", "0130 01").replace("1111.", "1112.").replace("472-81", "000-81")
    found = {entity.type for entity in (await find(models, call, text)).entities}
    assert not {"IBAN", "CREDIT_CARD", "US_SSN"} & found


async def test_ordinary_prose_holds_nothing(models: Models, call: Call) -> None:
    text = "The weather is nice in the morning. I like soup and bread, and at 12:30 the bus leaves from platform 4."
    assert not (await find(models, call, text)).entities


CODECS: Mapping[int, tuple[str, int]] = {
    nlp_pb2.OFFSET_ENCODING_UNSPECIFIED: ("utf-32-le", 4),
    nlp_pb2.OFFSET_ENCODING_UTF8: ("utf-8", 1),
    nlp_pb2.OFFSET_ENCODING_UTF16: ("utf-16-le", 2),
    nlp_pb2.OFFSET_ENCODING_UTF32: ("utf-32-le", 4),
}


@pytest.mark.parametrize("encoding", CODECS)
async def test_offsets_count_in_the_encoding_that_was_asked_for(models: Models, call: Call, encoding: int) -> None:
    """Emoji of several code points, an accent apart, Chinese: the pieces are right when cut out of the bytes."""
    codec, unit = CODECS[encoding]
    entities = (await find(models, call, MIXED, offset_encoding=encoding)).entities
    assert named(entities) == IN_MIXED
    units = MIXED.encode(codec)
    pieces = [units[entity.start * unit : entity.end * unit].decode(codec) for entity in entities]
    assert pieces == [entity.text for entity in entities]


async def test_a_long_text_loses_and_doubles_nothing_at_its_seams(models: Models, call: Call) -> None:
    """The name comes at ever other places of the windows of 126 tokens that start every 94."""
    prose = PROSE.split()
    for shift in range(0, len(prose), 5):
        text = " ".join(
            [*prose[shift:], *(f"{PROSE} My neighbour is Eleanor Whitfield from Portland." for _ in range(3))]
        )
        wanted = [("GIVEN_NAME", "Eleanor"), ("SURNAME", "Whitfield"), ("CITY", "Portland")] * 3
        entities = (await find(models, call, text)).entities
        assert named(entities) == wanted, shift
        assert [(entity.start, entity.end) for entity in entities] == places(text, wanted)


async def test_a_text_has_one_answer_alone_and_beside_others(models: Models, call: Call) -> None:
    alone = await find(models, call, LETTER)
    texts = [MIXED, LETTER, "Maria Gonzalez", LETTER * 3, LETTER]
    among = await asyncio.gather(*(find(models, call, text) for text in texts))
    assert named(among[1].entities) == named(among[4].entities) == named(alone.entities)
    assert [each.score for each in among[1].entities] == pytest.approx(
        [each.score for each in alone.entities], abs=1e-4
    )


async def test_only_what_was_asked_for_is_returned(models: Models, call: Call) -> None:
    only = await find(models, call, LETTER, types=["CITY", "IBAN"])
    assert named(only.entities) == [pair for pair in IN_LETTER if pair[0] in ("CITY", "IBAN")]
    sure = await find(models, call, LETTER, min_score=1.0)
    assert {entity.type for entity in sure.entities if entity.source == nlp_pb2.ENTITY_SOURCE_PATTERN} == {
        "IBAN",
        "CREDIT_CARD",
    }


async def test_a_model_s_guess_under_a_pattern_stays_hidden_when_the_pattern_is_not_asked_for(
    models: Models, call: Call
) -> None:
    """The model takes the card for a phone."""
    phones = await find(models, call, LETTER, types=["PHONE"])
    assert named(phones.entities) == [("PHONE", "+1 503-555-0142")]


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"text": " "}, "text: .*not empty"),
        ({"text": "x" * 100_001}, "text: 100001 characters"),
        ({"types": ["CITY", "TOWN"]}, r"types\[1\]: 'TOWN' is not known; these are: BANK_ACCOUNT, .*ZIP_CODE"),
        ({"types": ["city"]}, r"types\[0\]"),
        ({"min_score": 1.5}, "min_score: 1.5"),
        ({"min_score": -0.5}, "min_score"),
        ({"min_score": float("nan")}, "min_score"),
        ({"offset_encoding": 4}, "offset_encoding: 4: expected UTF8, UTF16 or UTF32"),
    ],
)
async def test_what_is_wrong_is_refused_by_its_field(
    models: Models, call: Call, fields: dict[str, object], why: str
) -> None:
    with pytest.raises(BadInput, match=why):
        await find(models, call, **{"text": "Maria", **fields})  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["\0", "\0Maria Gonzalez\0", "\u200d", "\u0301", "🙂🙂", "\ufeff", "가" * 200])
async def test_odd_characters_are_read(models: Models, call: Call, text: str) -> None:
    for entity in (await find(models, call, text)).entities:
        assert entity.text in ("Maria", "Gonzalez")
        assert text[entity.start : entity.end] == entity.text


async def test_long_texts_take_turns(models: Models, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """Begun, each is megabytes; a short one does not wait for them."""
    task, long = FindEntities(models), f"{LETTER} {PROSE}\n" * 12
    assert len(long) > LONG_CHARACTERS
    monkeypatch.setattr(task, "gate", Gate(1))
    async with task.gate.place(call):
        waiting = [asyncio.create_task(task(FindEntitiesRequest(text=long), call)) for _ in range(3)]
        assert named((await task(FindEntitiesRequest(text=LETTER), call)).entities) == IN_LETTER
        assert not any(each.done() for each in waiting)
    answers = await asyncio.gather(*waiting)
    assert len({str(answer) for answer in answers}) == 1


DENSE = ["word ", "a", "1.", "3 ", "+", "@", "\u0301\u0323", "각", "각 ", "뷁1", "中", "!", "🙂 ", "ﷺ ", "[SEP]"]
"""What makes many tokens of few characters."""


@pytest.mark.parametrize("unit", DENSE)
@pytest.mark.parametrize("length", [25_000, 100_000])
def test_a_text_is_at_most_as_many_tokens_as_characters(tokenizer: Tokenizer, unit: str, length: int) -> None:
    """So its windows, and with them the model's time, grow with its length whatever it is made of."""
    prepared = prepare((unit * length)[:length], tokenizer, 128, 32)
    assert len(prepared.windows) <= length / 94 + 1
    assert max(tensors["input_ids"].shape[1] for tensors in prepared.tensors) <= 128


@pytest.mark.parametrize("unit", DENSE)
def test_what_repeats_itself_is_read_once(tokenizer: Tokenizer, unit: str) -> None:
    """100,000 characters that make 1,064 windows cost the model a few of them."""
    assert len(prepare((unit * 100_000)[:100_000], tokenizer, 128, 32).tensors) <= 5


async def test_what_stands_behind_long_rules_is_found_where_it_is(models: Models, call: Call) -> None:
    letter = f"{PROSE} My neighbour is Eleanor Whitfield from Portland. {PROSE}"
    text = "\n".join(["." * 3000, letter, "-" * 5000, letter, "=" * 3000])
    wanted = [("GIVEN_NAME", "Eleanor"), ("SURNAME", "Whitfield"), ("CITY", "Portland")] * 2
    entities = (await find(models, call, text)).entities
    assert named(entities) == wanted
    assert [(entity.start, entity.end) for entity in entities] == places(text, wanted)


@pytest.mark.parametrize(
    ("update", "named"),
    [
        ({"labels": None}, "labels"),
        ({"preprocessing": {}}, "max_tokens"),
        ({"preprocessing": {"max_tokens": 32, "overlap": 30}}, "overlap"),
        ({"preprocessing": {"max_tokens": 128, "tokenizer": "none.json"}}, r"'none\.json'.*missing"),
    ],
)
async def test_a_card_that_is_wrong_says_what(
    models: Models, call: Call, monkeypatch: pytest.MonkeyPatch, update: dict[str, object], named: str
) -> None:
    model = models.choose("find_entities", "", call)
    monkeypatch.setattr(model, "card", model.card.model_copy(update=update))
    with pytest.raises(ModelFailed, match=f"rampart@1.*{named}"):
        await find(models, call, "Maria")
