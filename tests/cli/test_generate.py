"""`ortmesh call nlp generate` and `count-tokens`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from threading import Event

import pytest

from ortmesh.nlp.v1 import nlp_pb2
from tests.cli.conftest import Mesh, Run, status, version


def pieces(*texts: str) -> list[nlp_pb2.GenerateResponse]:
    made = [nlp_pb2.GenerateResponse(text=text) for text in texts]
    made[0].model.CopyFrom(version("smollm2-135m-instruct"))
    made[-1].finish_reason = nlp_pb2.FINISH_REASON_STOP
    made[-1].usage.CopyFrom(nlp_pb2.Usage(prompt_tokens=31, cached_tokens=28, generated_tokens=len(texts)))
    return made


def test_a_text_is_shown_as_it_comes(mesh: Mesh, run: Run) -> None:
    mesh.answers["Generate"] = [pieces("The [bold]", " sea\n", "is wide")]
    shown = run("call", "nlp", "generate", "What is the sea?", "--system", "Be brief.", "--stop", "!")
    assert shown.stdout == "The [bold] sea\nis wide\n"
    assert shown.stderr == "tokens: 3; of the prompt: 31, 28 of them read before\n"
    (asked,) = mesh.requests
    assert [message.content for message in asked.chat.messages] == ["Be brief.", "What is the sea?"]
    assert asked.sampling.temperature == 0
    assert not asked.sampling.HasField("seed")
    assert list(asked.stop) == ["!"]


def test_a_form_and_a_raw_prompt_are_asked_for(mesh: Mesh, run: Run, tmp_path: Path) -> None:
    (tmp_path / "schema.json").write_text('{"type": "integer"}')
    mesh.answers["Generate"] = [pieces("7")]
    run("call", "nlp", "generate", "2 + 5 =", "--raw", "--json-schema", tmp_path / "schema.json", "--seed", 3)
    (asked,) = mesh.requests
    assert asked.text == "2 + 5 ="
    assert asked.json_schema == '{"type": "integer"}'
    assert asked.sampling.seed == 3


def test_a_grammar_choices_and_all_of_sampling_are_asked_for(mesh: Mesh, run: Run, tmp_path: Path) -> None:
    (tmp_path / "yes.lark").write_text('start: "yes" | "no"')
    mesh.answers["Generate"] = [pieces("yes")]
    run("call", "nlp", "generate", "Is it?", "--grammar", tmp_path / "yes.lark", "--choices", 2, "--min-p", 0.25)
    (asked,) = mesh.requests
    assert asked.grammar == 'start: "yes" | "no"'
    assert (asked.choices, asked.sampling.min_p) == (2, 0.25)


def test_a_text_has_one_form(mesh: Mesh, run: Run, tmp_path: Path) -> None:
    (tmp_path / "yes.lark").write_text('start: "yes"')
    done = run("call", "nlp", "generate", "Is it?", "--grammar", tmp_path / "yes.lark", "--regex", "a")
    assert done.exit_code == 2
    assert not mesh.requests


def test_each_of_several_texts_is_shown_whole(mesh: Mesh, run: Run) -> None:
    mesh.answers["Generate"] = [mixed()]
    shown = run("call", "nlp", "generate", "Name a colour.", "--choices", 3)
    assert shown.stdout == "1:\nred wine\n\n2:\nblue\n\n3:\ngreen\n\n"
    assert shown.stderr == "tokens: 5 (cut: 1, 3: --max-tokens, or the context is full); of the prompt: 31\n"


def test_of_several_texts_that_break_off_all_there_is_is_shown(mesh: Mesh, run: Run) -> None:
    def breaks() -> Iterator[nlp_pb2.GenerateResponse]:
        yield from mixed()[:4]
        raise RuntimeError

    mesh.answers["Generate"] = [breaks()]
    shown = run("call", "nlp", "generate", "Name a colour.", "--choices", 3)
    assert shown.exit_code == 1
    assert shown.stdout == "1:\nred\n\n2:\nblue\n\n"


def mixed() -> list[nlp_pb2.GenerateResponse]:
    """Three texts whose pieces come mixed, and the second one's end first."""
    stop, cut = nlp_pb2.FINISH_REASON_STOP, nlp_pb2.FINISH_REASON_LENGTH
    goes_on = nlp_pb2.FINISH_REASON_UNSPECIFIED
    told = [
        (1, "bl", goes_on),
        (0, "red", goes_on),
        (1, "ue", goes_on),
        (1, "", stop),
        (0, " wine", cut),
        (2, "green", cut),
    ]
    made = [nlp_pb2.GenerateResponse(choice=choice, text=text, finish_reason=why) for choice, text, why in told]
    made[-1].usage.CopyFrom(nlp_pb2.Usage(prompt_tokens=31, generated_tokens=5))
    return made


def test_pieces_are_lines_of_json(mesh: Mesh, run: Run) -> None:
    mesh.answers["Generate"] = [pieces("The\n", "[sea]")]
    lines = run("call", "nlp", "generate", "What is the sea?", "--json").stdout.splitlines()
    assert [json.loads(line)["text"] for line in lines] == ["The\n", "[sea]"]


@pytest.mark.parametrize("option", ["--max-tokens", "--top-k", "--choices"])
@pytest.mark.parametrize("number", [99999999999, -99999999999])
def test_the_service_says_which_numbers_are_out_of_range(mesh: Mesh, run: Run, option: str, number: int) -> None:
    mesh.answers["Generate"] = status("INVALID_ARGUMENT", "out of range")
    done = run("call", "nlp", "generate", "hi", option, number)
    assert "INVALID_ARGUMENT: out of range" in done.stderr


def test_a_seed_of_more_than_64_bits_is_a_mistake_of_usage(mesh: Mesh, run: Run) -> None:
    done = run("call", "nlp", "generate", "hi", "--seed", "99999999999999999999")
    assert done.exit_code == 2
    assert "expected a number of 64 bits" in done.stderr


def test_a_text_that_takes_longer_than_allowed_is_an_error(mesh: Mesh, run: Run) -> None:
    ended = Event()

    def slow() -> Iterator[nlp_pb2.GenerateResponse]:
        yield nlp_pb2.GenerateResponse(text="The sea")
        ended.wait(10)

    mesh.answers["Generate"] = [slow()]
    done = run("call", "nlp", "generate", "What is the sea?", "--timeout", "0.5")
    ended.set()
    assert done.exit_code == 1
    assert done.stdout == "The sea\n"
    assert done.stderr.startswith("error: DEADLINE_EXCEEDED")


def test_a_schema_that_is_not_there_is_named_once(mesh: Mesh, run: Run) -> None:
    done = run("call", "nlp", "generate", "Invent a person.", "--json-schema", "none.json")
    assert done.exit_code == 2
    assert "none.json can't be read: No such file or directory" in done.stderr
    assert not mesh.requests


def test_tokens_are_counted(mesh: Mesh, run: Run) -> None:
    answer = nlp_pb2.CountTokensResponse(model=version("smollm2-135m-instruct"), tokens=31, context=2048)
    mesh.answers["CountTokens"] = answer
    assert "31 tokens of 2,048" in run("call", "nlp", "count-tokens", "hello").stdout
