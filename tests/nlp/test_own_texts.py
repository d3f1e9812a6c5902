"""A language model of somebody's own: added with the files that lie beside it, it generates texts."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from ortmesh.front.call import Call
from ortmesh.nlp.v1.nlp_pb2 import CHAT_ROLE_USER, Chat, ChatMessage, GenerateRequest
from ortmesh.serving.add import add
from ortmesh.serving.faults import GraphRefused
from ortmesh.serving.models import Models
from ortmesh.serving.store import Store
from ortmesh.serving.types import NoMeter
from ortmesh_nlp.generate import Generate
from tests.nlp.tiny_llama import TEMPLATE, write_as_the_builder, write_tiny_llama

Lay = Callable[[Path], None]


@pytest.fixture
def shelf(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """The folder of a tiny model, as ortmesh's recipes write one."""
    folder = tmp_path / "own"
    folder.mkdir()
    return write_tiny_llama(folder)


def as_the_builder_leaves_it(folder: Path) -> None:
    """onnxruntime-genai's builder has two files in the place of ours."""
    for file in folder.iterdir():
        file.unlink()
    write_as_the_builder(folder)


def with_named_templates(folder: Path) -> None:
    as_the_builder_leaves_it(folder)
    templates = [{"name": "tool_use", "template": "{{ 1/0 }}"}, {"name": "default", "template": TEMPLATE}]
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": templates}))


def with_heads_of_any_size(folder: Path) -> None:
    """As the builder does it: the graph leaves open what its configuration tells."""
    as_the_builder_leaves_it(folder)
    model = onnx.load(folder / "model.onnx")
    for info in [*model.graph.input, *model.graph.output]:
        if "key" in info.name:
            info.type.tensor_type.shape.dim[3].dim_param = "head_size"
    onnx.save(model, folder / "model.onnx")


def as_it_is(folder: Path) -> None:
    """Nothing to change."""


@pytest.mark.parametrize("lay", [as_it_is, as_the_builder_leaves_it, with_named_templates, with_heads_of_any_size])
async def test_it_answers_as_soon_as_it_is_added(lay: Lay, own: Path, shelf: Store, call: Call) -> None:
    lay(own)
    card = add(own / "model.onnx", "mine", "nlp", shelf)
    assert card.tasks == ["generate", "count_tokens"]
    assert sorted(card.files) == ["chat_template.jinja", "generation.json", "model.onnx", "tokenizer.json"]
    chat = Chat(messages=[ChatMessage(role=CHAT_ROLE_USER, content="hello")])
    models = Models(shelf, "nlp", threads=1, meter=lambda *_: NoMeter())
    generate = Generate(models)
    async with models:
        await models.until_loaded()
        assert [model.state for model in models.list()] == ["READY"], models.list()[0].state_reason
        given = [answer async for answer in generate(GenerateRequest(chat=chat, max_tokens=5), call)]
    assert given[-1].usage.prompt_tokens > 5
    assert given[-1].usage.generated_tokens == 5


def test_what_is_not_beside_it_is_told(own: Path, shelf: Store) -> None:
    for name in ("tokenizer.json", "chat_template.jinja", "generation.json"):
        (own / name).unlink()
    with pytest.raises(GraphRefused) as caught:
        add(own / "model.onnx", "mine", "nlp", shelf)
    said = str(caught.value)
    assert "tokenizer.json" in said
    assert "chat_template.jinja, or tokenizer_config.json with a chat_template" in said
    assert "generation.json, or genai_config.json of onnxruntime-genai's builder" in said
    assert not shelf.cards()


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("genai_config.json", '{"model": {"context_length": 0, "eos_token_id": 2}}', "model.context_length: found 0"),
        ("genai_config.json", '{"model": {"context_length": 9, "eos_token_id": 2}}', "model.vocab_size: it is missing"),
        ("genai_config.json", "[]", "genai_config.json: expected a JSON object"),
        ("genai_config.json", "{", "genai_config.json is no JSON"),
        ("tokenizer_config.json", "{", "tokenizer_config.json is no JSON"),
        ("tokenizer_config.json", "{}", "tokenizer_config.json with a chat_template"),
        ("genai_config.json", "[" * 100_000, "genai_config.json is no JSON"),
        ("genai_config.json", '{"model": {"context_length": "\\ud800"}}', r'context_length: found "\\ud800"'),
        ("tokenizer_config.json", '{"chat_template": [{"name": []}]}', "tokenizer_config.json with a chat_template"),
        ("tokenizer_config.json", '{"chat_template": "\\ud800"}', "half of a surrogate pair"),
    ],
)
def test_a_file_that_is_wrong_is_told_by_name(name: str, text: str, told: str, own: Path, shelf: Store) -> None:
    as_the_builder_leaves_it(own)
    (own / name).write_text(text)
    with pytest.raises(GraphRefused, match=told):
        add(own / "model.onnx", "mine", "nlp", shelf)


def test_heads_whose_size_nobody_tells_are_refused(own: Path, shelf: Store) -> None:
    with_heads_of_any_size(own)
    config = json.loads((own / "genai_config.json").read_text())
    del config["model"]["decoder"]["head_size"]
    (own / "genai_config.json").write_text(json.dumps(config))
    with pytest.raises(GraphRefused, match="the graph leaves the size of heads open"):
        add(own / "model.onnx", "mine", "nlp", shelf)


def test_a_graph_that_the_engine_does_not_run_is_called_by_tensors_and_says_why(own: Path, shelf: Store) -> None:
    model = onnx.load(own / "model.onnx")
    model.graph.input.append(helper.make_tensor_value_info("position_ids", TensorProto.INT64, ["batch", "tokens"]))
    onnx.save(model, own / "model.onnx")
    card = add(own / "model.onnx", "mine", "nlp", shelf)
    assert card.tasks == []
    assert "generates no texts here: it takes position_ids beside input_ids, attention_mask and" in card.description


def test_in_another_family_its_tensors_are_called(own: Path, shelf: Store) -> None:
    card = add(own / "model.onnx", "mine", "speech", shelf)
    assert card.tasks == []
    assert card.runtime.engine is None
    assert "past_key_values.0.key" in card.inputs
