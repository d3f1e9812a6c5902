"""The text of tokens as they come: their bytes, whatever a model says, with both kinds of vocabularies."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers

from ortmesh.front.call import Call
from ortmesh.front.pool import Pool
from ortmesh.serving.answers import Outbox
from ortmesh.serving.executor.engine.ask import CACHED, REASON, Reason
from ortmesh_nlp.token_bytes import TokenBytes
from ortmesh_nlp.writing import Inbox, Writing
from tests.nlp.tiny_llama import write_tiny_llama

WORDS = ("\u2581", "\u2581the", "\u2581sea", "é", "a", "日", "\u2581\u2581")


def sentence_piece() -> Tokenizer:
    """As those of Llama 2 and Gemma: words with a mark for the space before them, and a token for each byte."""
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *WORDS]
    model = models.BPE({piece: place for place, piece in enumerate(pieces)}, [], unk_token="<unk>", byte_fallback=True)
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Replace(" ", "\u2581")
    tokenizer.add_special_tokens(["<s>", "</s>"])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return tokenizer


@pytest.fixture(scope="module")
def byte_level(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """As those of GPT-2, Llama 3 and SmolLM2."""
    return Tokenizer.from_file(str(write_tiny_llama(tmp_path_factory.mktemp("tiny")) / "tokenizer.json"))


@pytest.fixture
def call() -> Iterator[Call]:
    pool = Pool(threads=1, max_bytes=1)
    yield Call("/ortmesh.nlp.v1.NlpService/Generate", pool)
    pool.close()


def written(tokenizer: Tokenizer, tokens: list[int], call: Call, *stops: str) -> str:
    """What a reader gets of these tokens."""
    loop = asyncio.new_event_loop()
    try:
        language: Any = SimpleNamespace(bytes_of=TokenBytes(tokenizer))
        writing = Writing(call, Outbox(loop), Inbox(), language, stops, top=0)
        for token in tokens:
            if writing.enough(token):
                break
        writing.finish({CACHED: np.zeros(1, np.int64), REASON: np.array([Reason.STOP], np.int64)})
        return writing.take().text
    finally:
        loop.close()


def test_a_text_of_byte_level_tokens_is_what_the_library_decodes(byte_level: Tokenizer, call: Call) -> None:
    chance = random.Random(1)
    for _ in range(300):
        tokens = [chance.randrange(byte_level.get_vocab_size()) for _ in range(40)]
        tokens += byte_level.encode(" whole").ids
        assert written(byte_level, tokens, call) == byte_level.decode(tokens, skip_special_tokens=False)


def test_bytes_that_are_no_text_end_no_text_of_sentence_piece(call: Call) -> None:
    tokenizer = sentence_piece()
    ids = tokenizer.get_vocab()
    tokens = [ids[piece] for piece in ("<0x20>", "<0xE6>", "<0xC2>", "\u2581the", "<0xFF>", "<0xC3>", "<0xA9>", "</s>")]
    assert written(tokenizer, tokens, call) == " \ufffd\ufffd the\ufffdé</s>"
    chance = random.Random(2)
    for _ in range(300):
        tokens = [chance.randrange(len(ids)) for _ in range(40)] + [ids["a"]]
        assert written(tokenizer, tokens, call).endswith("a")


def test_a_text_that_goes_on_begins_with_its_space(call: Call) -> None:
    tokenizer = sentence_piece()
    ids = tokenizer.get_vocab()
    assert written(tokenizer, [ids["\u2581the"], ids["\u2581sea"]], call) == " the sea"


@settings(max_examples=50)
@given(st.text(max_size=30), st.text(min_size=1, max_size=4))
def test_what_was_encoded_comes_back_up_to_the_stop(text: str, stop: str) -> None:
    pool = Pool(threads=1, max_bytes=1)
    tokenizer = sentence_piece()
    text = text.replace("\u2581", "").replace("<s>", "").replace("</s>", "")
    tokens = tokenizer.encode(text, add_special_tokens=False).ids
    made = written(tokenizer, tokens, Call("/ortmesh.nlp.v1.NlpService/Generate", pool), stop)
    pool.close()
    assert made == text[: text.index(stop)] if stop in text else made == text
