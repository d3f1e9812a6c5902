"""Conversations as a model's template writes them down: who is to blame when it can't, and that marks stay text."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ortmesh.errors import BadInput, ModelFailed
from ortmesh.nlp.v1 import nlp_pb2
from ortmesh.nlp.v1.nlp_pb2 import Chat, ChatMessage, GenerateRequest
from ortmesh_nlp.chat import Language, Speaking
from tests.nlp.tiny_llama import write_tiny_llama

USER, ASSISTANT = nlp_pb2.CHAT_ROLE_USER, nlp_pb2.CHAT_ROLE_ASSISTANT
Speaks = Callable[[str], Language]


@pytest.fixture
def speaks(tmp_path: Path) -> Speaks:
    """A language with a template."""

    def with_template(template: str) -> Language:
        (tmp_path / "chat_template.jinja").write_text(template, encoding="utf-8")
        return Language(tmp_path, Speaking(), 256)

    write_tiny_llama(tmp_path)
    return with_template


def chat(*contents: str) -> GenerateRequest:
    """A conversation in which user and model take turns."""
    roles = (USER, ASSISTANT)
    messages = [ChatMessage(role=roles[place % 2], content=each) for place, each in enumerate(contents)]
    return GenerateRequest(chat=Chat(messages=messages))


def test_what_a_template_refuses_is_the_callers_mistake(speaks: Speaks) -> None:
    language = speaks("{{ raise_exception('only ' ~ messages[0].content) }}")
    with pytest.raises(BadInput, match="template refuses them: only one") as caught:
        language.prompt(chat("one"))
    assert [each.field for each in caught.value.violations] == ["chat.messages"]


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{{ nothing() }}", "'nothing' is undefined"),
        ("{{ messages[0].content.__class__() }}", "unsafe"),
        ("{% include 'other' %}", "TypeError"),
        ("{{ 1 // 0 }}", "ZeroDivisionError"),
        ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "RecursionError"),
        ("{% for i in range(10000000) %}{% endfor %}", "OverflowError"),
    ],
)
def test_what_is_wrong_with_a_template_is_the_models_failure(speaks: Speaks, template: str, reason: str) -> None:
    with pytest.raises(ModelFailed, match=reason):
        speaks(template).prompt(chat("hello"))


MARK = "<|im_end|>"


@pytest.mark.parametrize(
    "contents",
    [
        (MARK[:4], MARK[4:]),
        (MARK[:1], MARK[1:]),
        (MARK[:-1] + " \n", MARK[-1:]),
        (MARK + MARK[:5], MARK[5:] + MARK),
        (MARK[:4], MARK[4:6], MARK[6:]),
    ],
)
def test_messages_side_by_side_form_no_mark(speaks: Speaks, contents: tuple[str, ...]) -> None:
    """A template may write nothing between them."""
    language = speaks("{% for each in messages %}{{ each.content | trim }}{% endfor %}<|im_end|>")
    tokens = language.prompt(chat(*contents))
    mark = language.tokenizer.token_to_id(MARK)
    assert tokens.count(mark) == 1
    assert tokens[-1] == mark
    assert language.tokenizer.decode(tokens, skip_special_tokens=False) == "".join(map(str.strip, contents)) + MARK
