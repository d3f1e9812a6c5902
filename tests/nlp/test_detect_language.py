"""NlpService.DetectLanguage on lid.176: real sentences, fastText's own numbers, and bad texts that spare others."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

import pytest

from ortmesh import catalogue
from ortmesh.errors import BadInput, ModelFailed, NotFound
from ortmesh.front.call import Call
from ortmesh.nlp.v1.nlp_pb2 import DetectLanguageRequest
from ortmesh.serving.models import Models
from ortmesh.serving.needs import read_lines
from ortmesh.serving.store import Store
from ortmesh_nlp.detect_language import READ_CHARACTERS, DetectLanguage, prepare, readable
from ortmesh_nlp.ngrams import Dictionary, load_dictionary
from tests.conftest import FamilyModels

SENTENCES = [
    ("en", "All human beings are born free and equal in dignity and rights.", 0.982617),
    ("de", "Alle Menschen sind frei und gleich an Würde und Rechten geboren.", 0.992818),
    ("fr", "Tous les êtres humains naissent libres et égaux en dignité et en droits.", 0.983806),
    ("es", "Todos los seres humanos nacen libres e iguales en dignidad y derechos.", 0.960010),
    ("pt", "Todos os seres humanos nascem livres e iguais em dignidade e em direitos.", 0.989361),
    ("it", "Tutti gli esseri umani nascono liberi ed eguali in dignità e diritti.", 0.978460),
    ("nl", "Alle mensen worden vrij en gelijk in waardigheid en rechten geboren.", 0.953645),
    ("pl", "Wszyscy ludzie rodzą się wolni i równi pod względem swej godności i swych praw.", 0.998793),
    ("sv", "Alla människor äro födda fria och lika i värde och rättigheter.", 0.998664),
    ("fi", "Kaikki ihmiset syntyvät vapaina ja tasavertaisina arvoltaan ja oikeuksiltaan.", 0.973200),
    ("tr", "Bütün insanlar hür, haysiyet ve haklar bakımından eşit doğarlar.", 0.997191),
    ("cs", "Všichni lidé rodí se svobodní a sobě rovní co do důstojnosti a práv.", 0.987462),
    ("hu", "Minden emberi lény szabadon születik és egyenlő méltósága és joga van.", 0.991988),
    ("ro", "Toate ființele umane se nasc libere și egale în demnitate și în drepturi.", 1.000000),
    ("ru", "Все люди рождаются свободными и равными в своем достоинстве и правах.", 0.992991),
    ("uk", "Всі люди народжуються вільними і рівними у своїй гідності та правах.", 0.999273),
    ("el", "Όλοι οι άνθρωποι γεννιούνται ελεύθεροι και ίσοι στην αξιοπρέπεια και τα δικαιώματα.", 0.994669),
    ("ar", "يولد جميع الناس أحرارًا متساوين في الكرامة والحقوق.", 0.994540),
    ("he", "כל בני האדם נולדו בני חורין ושווים בערכם ובזכויותיהם.", 0.998941),
    ("hi", "सभी मनुष्यों को गौरव और अधिकारों के मामले में जन्मजात स्वतन्त्रता और समानता प्राप्त है।", 0.987981),
    ("th", "มนุษย์ทั้งหลายเกิดมามีอิสระและเสมอภาคกันในเกียรติศักดิ์และสิทธิ", 0.998727),
    ("zh", "人人生而自由，在尊严和权利上一律平等。", 0.689488),
    ("ja", "すべての人間は、生まれながらにして自由であり、かつ、尊厳と権利とについて平等である。", 1.000000),
    ("ko", "모든 인간은 태어날 때부터 자유로우며 그 존엄과 권리에 있어 동등하다.", 1.000000),
    ("vi", "Tất cả mọi người sinh ra đều được tự do và bình đẳng về nhân phẩm và quyền.", 0.999824),
]
"""Article 1 of the Universal Declaration of Human Rights as the United Nations have it, and the probability of the
right language by fastText itself (fasttext-predict 0.9.2.4 on the file that the model is made from)."""
EN, ES, JA = (next(text for code, text, _ in SENTENCES if code == wanted) for wanted in ("en", "es", "ja"))


@pytest.fixture
async def models(family_models: FamilyModels) -> AsyncIterator[Models]:
    async with family_models("nlp") as loaded:
        yield loaded


@pytest.fixture
def dictionary(store: Store) -> Dictionary:
    return load_dictionary(store.folder("lid-176", "1") / "ngrams.json")


async def codes(models: Models, call: Call, *texts: str) -> list[tuple[str, float]]:
    answer = await DetectLanguage(models)(DetectLanguageRequest(texts=texts), call)
    best = [result.detected.languages[0] for result in answer.results]
    return [(language.code, language.score) for language in best]


async def test_each_language_is_known_with_the_probability_of_fasttext(models: Models, call: Call) -> None:
    found = await codes(models, call, *(text for _, text, _ in SENTENCES))
    assert [code for code, _ in found] == [code for code, _, _ in SENTENCES]
    assert [score for _, score in found] == pytest.approx([score for _, _, score in SENTENCES], abs=1e-5)


@pytest.mark.parametrize(
    ("text", "code", "score"),
    [
        ("123 456", "en", 0.124504),  # nothing known: the model's prior
        ("x\0y hello world", "es", 0.743717),  # a NUL separates words
        ("__label__de guten tag wie geht es", "de", 0.926811),
        ("no-break\u00a0space here", "en", 0.714956),
        ("𝔘𝔫𝔦𝔠𝔬𝔡𝔢 text", "ml", 0.557476),
    ],
)
async def test_odd_texts_are_read_as_fasttext_reads_them(
    models: Models, call: Call, text: str, code: str, score: float
) -> None:
    assert await codes(models, call, text) == [(code, pytest.approx(score, abs=1e-5))]


async def test_a_text_alone_and_among_others_has_one_answer(models: Models, call: Call) -> None:
    (alone,) = await codes(models, call, EN)
    among = await codes(models, call, *([EN * 100, EN, "a", JA] * 16))
    assert among[1] == (alone[0], pytest.approx(alone[1], abs=1e-5))


async def test_capitals_and_accents_that_stand_apart_change_nothing(models: Models, call: Call) -> None:
    found = await codes(models, call, EN.upper(), ES.upper(), "e\u0301te\u0301")
    assert [code for code, _ in found] == ["en", "es", "fr"]


async def test_the_most_probable_languages_come_first_with_their_names(models: Models, call: Call) -> None:
    answer = await DetectLanguage(models)(DetectLanguageRequest(texts=[ES], max_results=176), call)
    languages = answer.results[0].detected.languages
    assert [(each.code, each.name) for each in languages[:3]] == [
        ("es", "Spanish"),
        ("pt", "Portuguese"),
        ("eo", "Esperanto"),
    ]
    scores = [each.score for each in languages]
    assert scores == sorted(scores, reverse=True)
    assert len({each.code for each in languages}) == 176
    assert all(0 <= score <= 1 for score in scores)
    assert (answer.model.name, answer.model.version) == ("lid-176", "1")


async def test_a_bad_text_among_good_ones_gets_its_own_error(models: Models, call: Call) -> None:
    answer = await DetectLanguage(models)(DetectLanguageRequest(texts=[EN, " ", JA]), call)
    assert [result.WhichOneof("outcome") for result in answer.results] == ["detected", "error", "detected"]
    assert answer.results[1].error.code == 3
    assert "texts[1]" in answer.results[1].error.message


@pytest.mark.parametrize(("text", "why"), [("", "not empty"), ("x" * 100_001, "100001 characters")])
async def test_a_single_bad_text_fails_the_call(models: Models, call: Call, text: str, why: str) -> None:
    with pytest.raises(BadInput, match=why):
        await DetectLanguage(models)(DetectLanguageRequest(texts=[text]), call)


@pytest.mark.parametrize("count", [0, 257])
async def test_the_number_of_texts_is_bounded(models: Models, call: Call, count: int) -> None:
    with pytest.raises(BadInput, match="1 to 256"):
        await DetectLanguage(models)(DetectLanguageRequest(texts=["x"] * count), call)


@pytest.mark.parametrize("max_results", [-1, 177])
async def test_the_number_of_results_is_bounded(models: Models, call: Call, max_results: int) -> None:
    with pytest.raises(BadInput, match=r"max_results: .*expected 1 to 176"):
        await DetectLanguage(models)(DetectLanguageRequest(texts=[EN], max_results=max_results), call)


async def test_a_model_of_another_task_or_none_is_refused(models: Models, call: Call) -> None:
    with pytest.raises(BadInput, match="these do: lid-176"):
        await DetectLanguage(models)(DetectLanguageRequest(model="rampart", texts=[EN]), call)
    with pytest.raises(NotFound, match="lid-176"):
        await DetectLanguage(models)(DetectLanguageRequest(model="lid-17", texts=[EN]), call)


@pytest.mark.parametrize(
    ("update", "named"),
    [
        ({"labels": None}, "labels"),
        ({"preprocessing": {"names": "none.txt"}}, r"'none\.txt'.*missing"),
        ({"preprocessing": {"ngrams": "labels.txt"}}, r"'labels\.txt' can't be read"),
    ],
)
async def test_a_card_that_is_wrong_says_what(
    models: Models, call: Call, monkeypatch: pytest.MonkeyPatch, update: dict[str, object], named: str
) -> None:
    model = models.choose("detect_language", "", call)
    monkeypatch.setattr(model, "card", model.card.model_copy(update=update))
    with pytest.raises(ModelFailed, match=f"lid-176@1.*{named}"):
        await codes(models, call, EN)


def test_the_beginning_of_a_long_text_is_read(dictionary: Dictionary) -> None:
    long = EN * 1500
    assert len(readable(long)) == READ_CHARACTERS
    cut, whole = prepare([long[:100_000], long[:READ_CHARACTERS]], dictionary)
    assert not isinstance(cut, BadInput)
    assert not isinstance(whole, BadInput)
    assert cut["ids"].tolist() == whole["ids"].tolist()


@pytest.mark.parametrize("unit", ["a", "a ", "\u0301\u0323", "中", "🙂", EN])
def test_the_longest_texts_do_not_take_long(dictionary: Dictionary, unit: str) -> None:
    """Milliseconds of this thread on a quiet machine."""
    text = (unit * 100_000)[:100_000]
    began = time.thread_time()
    prepare([text] * 10, dictionary)
    assert time.thread_time() - began < 5


def test_every_language_has_a_tag_and_a_name(store: Store) -> None:
    folder = store.folder("lid-176", "1")
    tags = (folder / str(catalogue.card("lid-176").labels)).read_text(encoding="utf-8").splitlines()
    names = read_lines(folder / "names.txt")
    assert len(tags) == len(set(tags)) == len(names) == len(set(names)) == 176
    assert {"gsw", "bho", "sr", "zh"} <= set(tags)
    assert dict(zip(tags, names, strict=True))["vo"] == "Volapük"
