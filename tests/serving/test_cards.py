"""What a card gets wrong is told as a person needs it: the file, the key, what was found, what was expected."""

from __future__ import annotations

from pathlib import Path

import pytest

from ortmesh.serving.cards import read_card

RIGHT = "name: mine\nfamily: nlp\n"
SUM = "a" * 64


def refusal(folder: Path, text: str) -> str:
    """Why a card of this text can't be read."""
    card = folder / "card.yaml"
    card.write_text(text)
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - its whole text is looked at
        read_card(card)
    return str(caught.value)


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ("descripton: x", "card.yaml: descripton: there is no such key; did you mean description?"),
        ("runtime: {engine: {slot: 4}}", "card.yaml: runtime.engine.slot: there is no such key; did you mean slots?"),
        ("sources: [{url: x}]", "card.yaml: sources.0.uri: it is missing; sources.0.url: there is no such key; "),
        ("inputs: {x: {pad: 1}}", "did you mean pad_axis or pad_value?"),
        ("batching: {q: 1}", "batching.q: there is no such key; there are max_rows, max_wait_ms, tolerance, "),
        ("batching: {max_rows: many}", 'card.yaml: batching.max_rows: found "many", expected a whole number'),
        ("batching: {max_rows: 0}", "batching.max_rows: found 0, expected at least 1"),
        ("batching: {max_rows: 5000}", "batching.max_rows: found 5000, expected at most 4096"),
        ("batching: {tolerance: [1]}", "batching.tolerance: found [1], expected a number"),
        ("optional: perhaps", 'optional: found "perhaps", expected true or false'),
        ("version: 1.5", 'version: found 1.5, expected a text: write "1.5", with quotes'),
        ("version: 2026-01-02", "version: found 2026-01-02, expected a text"),
        ("version: a b", "version: found \"a b\", expected 1 to 64 letters (A-Z, a-z), digits, '.', '_' and '-'"),
        ("tasks: embed", 'tasks: found "embed", expected a list'),
        ("runtime: cuda", 'runtime: found "cuda", expected keys with values'),
        ("runtime: {require: gpu}", "runtime.require: found \"gpu\", expected 'cuda', 'tensorrt' or 'cpu'"),
        ("files: {a: b}", 'files.a: found "b", expected the 64 hexadecimal digits'),
        ("inputs: {x: {shared: true}}", "inputs.x: a shared tensor has no batch_axis: write batch_axis: null"),
        ("files: {/a: null}", "card.yaml: files: '/a': paths must stay inside the model's folder"),
        ("description: [" + "x, " * 99 + "]", '"x",…, expected a text'),
        ("tasks: [", "card.yaml: line 4, column 1: it is no YAML: "),
        ("a: b: c", "card.yaml: line 3, column 5: it is no YAML: mapping values are not allowed here"),
    ],
)
def test_a_mistake_is_told_with_its_key_and_what_was_expected(tmp_path: Path, lines: str, told: str) -> None:
    """In one line, without the words of the libraries that found it."""
    said = refusal(tmp_path, RIGHT + lines + "\n")
    assert told in said
    assert "\n" not in said
    assert not any(word in said for word in ("pydantic", "type=", "Input", str(tmp_path)))


def test_a_key_that_is_missing_is_told(tmp_path: Path) -> None:
    assert refusal(tmp_path, "name: mine\n") == "card.yaml: family: it is missing"


@pytest.mark.parametrize(("text", "found"), [("", "nothing"), ("- a\n", '["a"]'), ("hello\n", '"hello"')])
def test_a_file_that_is_no_card_at_all(tmp_path: Path, text: str, found: str) -> None:
    assert refusal(tmp_path, text) == f"card.yaml: found {found}, expected keys with values"


def test_many_mistakes_are_counted(tmp_path: Path) -> None:
    said = refusal(tmp_path, RIGHT + "".join(f"q{number}: 1\n" for number in range(8)))
    assert said.count("there is no such key") == 5
    assert said.endswith("; and 3 mistakes more")


def test_no_digits_of_a_sha256_are_a_matter_of_case(tmp_path: Path) -> None:
    assert "files.a: found" in refusal(tmp_path, RIGHT + f"files: {{a: {SUM.upper()}}}\n")
