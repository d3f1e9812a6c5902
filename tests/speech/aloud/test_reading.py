"""Sentences to phonemes, with the real lexicon."""

from __future__ import annotations

import pytest
from hibari.g2p import G2P
from hypothesis import given
from hypothesis import strategies as st

from ortmesh.serving.store import Store
from ortmesh_speech.aloud.lexicon import read_lexicon
from ortmesh_speech.aloud.reading import Reader
from ortmesh_speech.aloud.spelling import Spelling, read_spelling
from ortmesh_speech.aloud.tagger import read_tagger
from ortmesh_speech.speaking import read_symbols
from tests.speech.voices import SENTENCES


@pytest.fixture(scope="session")
def reader(store: Store) -> Reader:
    folder = store.folder("hibari", "1")
    return Reader(read_lexicon(folder / "lexicon.json"), read_tagger(folder / "tagger.json"))


@pytest.fixture(scope="session")
def theirs() -> G2P:
    """What the voice was published with."""
    return G2P()


@pytest.mark.parametrize("sentence", SENTENCES)
def test_plain_sentences_have_the_phonemes_that_the_voice_was_taught(
    reader: Reader, theirs: G2P, sentence: str
) -> None:
    assert reader.read(sentence).phonemes({}) == theirs(sentence)


@pytest.mark.parametrize(
    "sentence",
    [
        "I've used to say that they're well-known, state-of-the-art and it's the end, isn't it?",
        "The apple, an egg and a cup: to eat or to drink?",
        "She said: “Come in! (Nobody did.) — NASA's HTTP went on…",
        "The ladies' boxes were planted, baked, waiting and running by.",
        "YouTube's PDFs and URLs are an iPhone's, to be sure.",
    ],
)
def test_rules_of_the_language(reader: Reader, theirs: G2P, sentence: str) -> None:
    reading = reader.read(sentence)
    assert reading.unknown == []
    assert reading.phonemes({}) == theirs(sentence)


@pytest.mark.parametrize(
    ("one", "other", "word"),
    [
        ("I read it yesterday.", "I will read it tomorrow.", ("ɹˈɛd", "ɹˈid")),
        ("They live here.", "It was a live show.", ("lˈɪv", "lˈIv")),
        ("We record the song.", "It is a record.", ("ɹəkˈɔɹd", "ɹˈɛkəɹd")),
    ],
)
def test_words_that_are_written_alike(reader: Reader, one: str, other: str, word: tuple[str, str]) -> None:
    assert word[0] in reader.read(one).phonemes({})
    assert word[1] in reader.read(other).phonemes({})


def test_unknown_words_are_asked_for_once_and_taken(reader: Reader) -> None:
    reading = reader.read("Zyxgor and zyxgor-like Zyxgor met.")
    assert reading.unknown == ["Zyxgor", "zyxgor"]
    assert reading.phonemes({"Zyxgor": "zˈɪk", "zyxgor": "zˈɪk"}).count("zˈɪk") == 2
    assert "zˌɪklˈIk" in reading.phonemes({"zyxgor": "zˈɪk"})


@pytest.mark.parametrize("letter", ["a", "A", "I", "a."])
def test_the_shortest_words_are_something_to_say(reader: Reader, letter: str) -> None:
    assert reader.read(letter).phonemes({})


def test_accents_do_not_hide_a_word(reader: Reader) -> None:
    assert reader.read("a résumé in a café").unknown == []


@given(text=st.text(max_size=120))
def test_all_that_is_read_can_be_said(reader: Reader, store: Store, text: str) -> None:
    symbols = read_symbols(store.folder("hibari", "1") / "symbols.json")
    assert set(reader.read(text).phonemes({})) <= set(symbols)


def test_spelling_takes_long_words_in_parts_and_reads_what_ctc_gives(store: Store) -> None:
    spelling = read_spelling(store.folder("hibari-spelling", "1") / "spelling.json")
    assert [part.shape for part in spelling.parts("a" * 50)] == [(1, 24), (1, 24), (1, 2)]
    assert spelling.parts("你好") == []
    made = Spelling({"a": 1}, ["", "x", "y"], 4)
    assert made.read(made.parts("a")[0][0]) == "x"
