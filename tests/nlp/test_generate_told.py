"""What generated texts leave in metrics and in the span of a sampled call."""

from __future__ import annotations

import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing
from pathlib import Path

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from ortmesh.config import TelemetrySettings
from ortmesh.errors import ExecutorFailed
from ortmesh.front.call import Call
from ortmesh.front.pool import Pool
from ortmesh.nlp.v1.nlp_pb2 import Chat, ChatMessage, ChatRole, GenerateRequest, Usage
from ortmesh.serving.models import Models
from ortmesh.telemetry import Telemetry, instruments
from ortmesh.telemetry.series import Buckets, Instrument
from ortmesh.telemetry.texts import TextMeter
from ortmesh_nlp.forms import Form
from ortmesh_nlp.generate import Generate
from ortmesh_nlp.writing import Writing
from tests.nlp.writers import NAME, writer

PATH = "/ortmesh.nlp.v1.NlpService/Generate"
SAMPLED = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
PROMPT = "Tell me of the sea and of those who sail it, please."
BUDGET = 1024
SECONDS = 100


@pytest.fixture
def spans() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def telemetry(spans: InMemorySpanExporter) -> Iterator[Telemetry]:
    made = Telemetry(TelemetrySettings(), "ortmesh-nlp", span_exporter=spans)
    yield made
    made.shutdown()


@pytest.fixture
def resting(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Set while the engine has no text in progress: from before it serves, and not from when it tells of a text, which
    is before its caller hears of it, until it has told of the end of all."""
    event, told = threading.Event(), TextMeter.held

    def held(meter: TextMeter, texts: int, *, reserved: int, kept: int, budget: int) -> None:
        told(meter, texts, reserved=reserved, kept=kept, budget=budget)
        if texts:
            event.clear()
        else:
            event.set()

    monkeypatch.setattr(TextMeter, "held", held)
    return event


@pytest.fixture
def go_on(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """While it is not set, the engine waits for it before a text's second token."""
    event, enough = threading.Event(), Writing.enough

    def waits(writing: Writing, token: int) -> bool:
        assert not writing.tokens or event.wait(SECONDS)
        return enough(writing, token)

    monkeypatch.setattr(Writing, "enough", waits)
    event.set()
    return event


@pytest.fixture
async def generate(telemetry: Telemetry, tmp_path: Path, resting: threading.Event) -> AsyncIterator[Generate]:
    store = writer(tmp_path / "store", tokens=BUDGET)
    async with Models(store, "nlp", threads=1, meter=telemetry.meter, spans=telemetry.spans) as models:
        await models.until_loaded()
        telemetry.model_state(NAME, "1", "READY")
        yield Generate(models)


@pytest.fixture
def pool() -> Iterator[Pool]:
    made = Pool(threads=1, max_bytes=1 << 30)
    yield made
    made.close()


async def usage_of(generate: Generate, request: GenerateRequest, call: Call) -> Usage:
    usage = Usage()
    async with aclosing(generate(request, call)) as answers:  # type: ignore[type-var]
        async for answer in answers:
            usage.MergeFrom(answer.usage)
    call.end()
    return usage


async def left(generate: Generate, request: GenerateRequest, call: Call, go_on: threading.Event) -> None:
    """By its caller, after its first piece."""
    go_on.clear()
    async with aclosing(generate(request, call)) as answers:  # type: ignore[type-var]
        await anext(answers)
        call.cancel()
    go_on.set()
    call.end()


class Read:
    """The metrics of the model that writes."""

    def __init__(self, telemetry: Telemetry) -> None:
        self._points = [each for each in telemetry.snapshot() if each.labels.get("model") == NAME]

    def by(self, instrument: Instrument, label: str) -> dict[str, float]:
        return {
            str(each.labels[label]): each.value
            for each in self._points
            if each.instrument is instrument and not isinstance(each.value, Buckets)
        }

    def one(self, instrument: Instrument) -> float | Buckets:
        (value,) = (each.value for each in self._points if each.instrument is instrument)
        return value

    def buckets(self, instrument: Instrument) -> Buckets:
        value = self.one(instrument)
        assert isinstance(value, Buckets)
        return value


Rested = Callable[[int], Read]


@pytest.fixture
def rested(telemetry: Telemetry, resting: threading.Event) -> Rested:
    """Reads once so many texts have ended, for the engine too."""

    def read(texts: int) -> Read:
        assert resting.wait(SECONDS), "a text is still in progress"
        read = Read(telemetry)
        assert sum(read.by(instruments.TEXTS_ENDED, "reason").values()) == texts
        assert read.one(instruments.TEXTS_RUNNING) == 0
        return read

    return read


async def test_tokens_are_counted_where_they_come_from(generate: Generate, rested: Rested, pool: Pool) -> None:
    request = GenerateRequest(text=PROMPT, max_tokens=12)
    used = [await usage_of(generate, request, Call(PATH, pool)) for _ in range(3)]
    assert used[2].cached_tokens > 0
    read = rested(3)
    prompts = read.by(instruments.PROMPT_TOKENS, "source")
    assert prompts["cached"] == sum(each.cached_tokens for each in used)
    assert prompts["computed"] == sum(each.prompt_tokens - each.cached_tokens for each in used)
    assert read.one(instruments.GENERATED_TOKENS) == sum(each.generated_tokens for each in used) == 36
    assert read.by(instruments.TEXTS_ENDED, "reason") == {"length": 3}


async def test_first_and_later_tokens_have_their_times(generate: Generate, rested: Rested, pool: Pool) -> None:
    """They end with the last token, which was there before its caller had it."""
    begun = time.monotonic()
    await usage_of(generate, GenerateRequest(text=PROMPT, max_tokens=20), Call(PATH, pool))
    took = time.monotonic() - begun
    read = rested(1)
    first, later = read.buckets(instruments.FIRST_TOKEN), read.buckets(instruments.LATER_TOKENS)
    assert (first.count, later.count) == (1, 1)
    assert 0 < first.sum + 19 * later.sum < took
    await usage_of(generate, GenerateRequest(text=PROMPT, max_tokens=1), Call(PATH, pool))
    read = rested(2)
    assert read.buckets(instruments.FIRST_TOKEN).count == 2
    assert read.buckets(instruments.LATER_TOKENS).count == 1, "a single token has no time between tokens"


async def test_the_budget_is_reserved_then_kept(
    generate: Generate, telemetry: Telemetry, rested: Rested, pool: Pool, go_on: threading.Event
) -> None:
    assert rested(0).by(instruments.CACHE_TOKENS, "state") == {"reserved": 0, "kept": 0, "free": BUDGET}
    call = Call(PATH, pool)
    go_on.clear()
    async with aclosing(generate(GenerateRequest(text=PROMPT, max_tokens=150), call)) as answers:  # type: ignore[type-var]
        await anext(answers)
        read = Read(telemetry)
        assert read.one(instruments.TEXTS_RUNNING) == 1
        assert read.by(instruments.CACHE_TOKENS, "state")["reserved"] > 150
    call.cancel()
    go_on.set()
    call.end()
    held = rested(1).by(instruments.CACHE_TOKENS, "state")
    assert held["reserved"] == 0
    assert held["kept"] > 0
    assert sum(held.values()) == BUDGET


async def test_why_texts_ended_is_told_apart(
    generate: Generate, rested: Rested, pool: Pool, go_on: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    await usage_of(generate, GenerateRequest(text=PROMPT, regex="[a-f]{4}"), Call(PATH, pool))
    await left(generate, GenerateRequest(text=PROMPT, max_tokens=200), Call(PATH, pool), go_on)
    monkeypatch.setattr(Form, "accept", breaks)
    with pytest.raises(ExecutorFailed):
        await usage_of(generate, GenerateRequest(text=PROMPT, regex="[a-f]{9}"), Call(PATH, pool))
    ended = rested(3).by(instruments.TEXTS_ENDED, "reason")
    assert ended == {"stop": 1, "cancelled": 1, "error": 1}


def breaks(self: Form, token: int) -> bool:
    raise ExecutorFailed("the text's form can't be followed")


async def test_a_sampled_call_tells_its_tokens(
    generate: Generate, telemetry: Telemetry, spans: InMemorySpanExporter, pool: Pool
) -> None:
    chat = Chat(messages=[ChatMessage(role=ChatRole.CHAT_ROLE_USER, content=PROMPT)])
    request = GenerateRequest(chat=chat, max_tokens=9, choices=2)
    usage, service, children = await traced(generate, telemetry, spans, pool, request)
    assert service.attributes is not None
    told = {name: value for name, value in service.attributes.items() if name.startswith("gen_ai.")}
    assert told == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "ortmesh",
        "gen_ai.request.model": NAME,
        "gen_ai.usage.input_tokens": usage.prompt_tokens,
        "gen_ai.usage.cache_read.input_tokens": 0,
        "gen_ai.usage.output_tokens": 18,
        "gen_ai.response.finish_reasons": ("length", "length"),
    }
    assert sorted(each.name for each in children) == ["compute", "compute", "queue", "queue"]
    assert all(each.attributes == {"model": NAME, "version": "1"} for each in children)


async def traced(
    generate: Generate, telemetry: Telemetry, spans: InMemorySpanExporter, pool: Pool, request: GenerateRequest
) -> tuple[Usage, ReadableSpan, list[ReadableSpan]]:
    """(what was counted, the call's span, the others) of a call of a sampled trace."""
    rpc = telemetry.rpc(PATH)
    span = rpc.begin(SAMPLED)
    usage = await usage_of(generate, request, Call(PATH, pool, span=span))
    rpc.end("OK", 0.1, span)
    telemetry.shutdown()
    finished = list(spans.get_finished_spans())
    service = next(each for each in finished if each.name == PATH[1:])
    finished.remove(service)
    return usage, service, finished
