"""`ortmesh call nlp generate` and `count-tokens`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from threading import Event

from ortmesh.nlp.v1 import nlp_pb2
from tests.cli.conftest import Mesh, Run, version


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
    assert "31 tokens of 2048" in run("call", "nlp", "count-tokens", "hello").stdout
