"""Hour: the service's memory while callers do with it whatever can be done, in sizes and forms that never repeat."""

from __future__ import annotations

import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import pairwise
from statistics import fmean

import grpc
from tokenizers import Tokenizer

from bench.generate.jobs import Drawn
from bench.generate.plan import Plan
from bench.generate.service import Service
from bench.memory.growth import Sample, Watched, growth
from bench.memory.processes import held
from ortmesh.nlp.v1.nlp_pb2 import (
    CHAT_ROLE_ASSISTANT,
    CHAT_ROLE_USER,
    Chat,
    ChatMessage,
    CountTokensRequest,
    GenerateRequest,
    Sampling,
)
from ortmesh.nlp.v1.nlp_pb2_grpc import NlpServiceStub

NAME = "nlp"
CALLERS = 4
LOOK_SECONDS = 1.0
PAUSE_SECONDS = 0.2
"""Between two requests of a caller: a service is not always busy."""
PATIENCE_SECONDS = 120.0
SHORT_SECONDS = 0.25
"""A deadline that passes in the midst of a text."""
PARTS = 6
"""Averages, and rests, of a whole run."""
MEGA = 1e6
EXPECTED = {"late": grpc.StatusCode.DEADLINE_EXCEEDED, "wrong": grpc.StatusCode.INVALID_ARGUMENT}
"""How these may end; the wrong ones always do."""


class Caller:
    """One of several, who asks for something else each time."""

    def __init__(self, stub: NlpServiceStub, drawn: Drawn, seed: int) -> None:
        self._stub = stub
        self._drawn = drawn
        self._random = random.Random(seed)
        self._conversation: list[ChatMessage] = []
        self.ended: Counter[str] = Counter()
        """Requests by what they were and how they ended."""

    def ask(self) -> None:
        """One request, to its end."""
        kinds: tuple[Callable[[], None], ...] = (
            self._goes_on,
            self._sampled,
            self._long,
            self._choices,
            self._schema,
            self._regex,
            self._leaves,
            self._late,
            self._wrong,
            self._counts,
        )
        kind = self._random.choice(kinds)
        name = kind.__name__.strip("_")
        try:
            kind()
        except grpc.RpcError as error:
            code = error.code()
            self.ended[f"{name}: {code.name}"] += 1
            if code != EXPECTED.get(name):
                raise
        else:
            if name == "wrong":
                raise RuntimeError("a wrong request was taken")
            self.ended[name] += 1

    def _goes_on(self) -> None:
        self._conversation.append(ChatMessage(role=CHAT_ROLE_USER, content=self._drawn.words(self._between(5, 60))))
        text = self._read(GenerateRequest(chat=Chat(messages=self._conversation), max_tokens=self._between(8, 80)))
        self._conversation.append(ChatMessage(role=CHAT_ROLE_ASSISTANT, content=text or "…"))
        if len(self._conversation) > self._between(4, 16):
            self._conversation = []

    def _sampled(self) -> None:
        sampling = Sampling(
            temperature=self._random.uniform(0.1, 1.5),
            top_p=self._random.uniform(0.5, 1.0),
            min_p=self._random.uniform(0.0, 0.1),
            repetition_penalty=self._random.uniform(1.0, 1.3),
            seed=self._between(1, 1 << 60),
        )
        stop = [self._drawn.words(1) for _ in range(self._between(0, 4))]
        self._read(self._request(sampling=sampling, stop=stop, max_tokens=self._between(1, 200)))

    def _long(self) -> None:
        self._read(GenerateRequest(text=self._drawn.words(self._between(100, 600)), max_tokens=self._between(1, 30)))

    def _choices(self) -> None:
        self._read(self._request(choices=self._between(2, 4), top_logprobs=self._between(0, 5), max_tokens=30))

    def _schema(self) -> None:
        names = [f"{self._drawn.words(1)}{self._between(1, 10_000)}" for _ in range(self._between(1, 4))]
        kinds = ({"type": "integer"}, {"type": "boolean"}, {"enum": ["yes", "no", self._drawn.words(1)]})
        properties = {name: self._random.choice(kinds) for name in names}
        schema = {"type": "object", "properties": properties, "required": names, "additionalProperties": False}
        self._read(self._request(json_schema=json.dumps(schema), max_tokens=60))

    def _regex(self) -> None:
        self._read(
            self._request(regex=f"[a-z]{{1,{self._between(1, 30)}}} [0-9]{{{self._between(1, 9)}}}", max_tokens=40)
        )

    def _leaves(self) -> None:
        answers = self._stub.Generate(self._request(max_tokens=200), timeout=PATIENCE_SECONDS)
        for _, _ in zip(answers, range(self._between(0, 20)), strict=False):
            pass
        answers.cancel()

    def _late(self) -> None:
        for _ in self._stub.Generate(self._request(max_tokens=400), timeout=SHORT_SECONDS):
            pass

    def _wrong(self) -> None:
        self._read(self._request(sampling=Sampling(temperature=-1.0), regex=f"[a-z]{{{self._between(1, 99)}"))

    def _counts(self) -> None:
        words = self._drawn.words(self._between(1, 3000))
        self._stub.CountTokens(CountTokensRequest(text=words), timeout=PATIENCE_SECONDS)

    def _request(self, **wishes: object) -> GenerateRequest:
        prompt = self._drawn.words(self._between(3, 80))
        return GenerateRequest(chat=Chat(messages=[ChatMessage(role=CHAT_ROLE_USER, content=prompt)]), **wishes)  # type: ignore[arg-type]

    def _read(self, request: GenerateRequest) -> str:
        return "".join(answer.text for answer in self._stub.Generate(request, timeout=PATIENCE_SECONDS))

    def _between(self, least: int, most: int) -> int:
        return self._random.randint(least, most)


def hour(service: Service, tokenizer: Tokenizer, plan: Plan) -> str:
    """Resident memory of the service over `plan.mixed_minutes`, and what was asked of it."""
    with grpc.insecure_channel(service.address) as channel:
        stub = NlpServiceStub(channel)
        callers = [Caller(stub, Drawn(tokenizer, seed), seed) for seed in range(CALLERS)]
        run = _watch(service, callers, plan)
    ended = sum((caller.ended for caller in callers), Counter[str]())
    return "\n".join([*_table(run, plan.mixed_rest_seconds), "", _told(ended)])


def _watch(service: Service, callers: Sequence[Caller], plan: Plan) -> Watched:
    """Some stretches of use, each followed by a rest; the first is to get warm."""
    minutes, samples = plan.mixed_minutes, list[Sample]()
    rests: list[Sample] = []
    began = time.monotonic()

    def look() -> Sample:
        return Sample((time.monotonic() - began) / 60, held({NAME: service.pid}))

    for _ in range(PARTS):
        until = time.monotonic() + 60 * minutes / PARTS
        with _asking(callers):
            while time.monotonic() < until:
                samples.append(look())
                time.sleep(LOOK_SECONDS)
        time.sleep(plan.mixed_rest_seconds)
        rests.append(look())
    return Watched(samples, rests, warm=rests[0].minute, window=minutes / PARTS / 4)


@contextmanager
def _asking(callers: Sequence[Caller]) -> Iterator[None]:
    """They ask, each in a thread of its own. What went wrong with one of them is raised at the end."""
    over = threading.Event()

    def ask(caller: Caller) -> None:
        while not over.wait(PAUSE_SECONDS):
            caller.ask()

    with ThreadPoolExecutor(len(callers)) as pool:
        asking = [pool.submit(ask, caller) for caller in callers]
        try:
            yield
        finally:
            over.set()
    for each in asking:
        each.result()


def _table(run: Watched, rest_seconds: float) -> Iterator[str]:
    """A column for each stretch."""
    edges = [0.0, *(rest.minute for rest in run.rests)]
    yield "| minutes | " + " | ".join(f"{first:.0f}-{last:.0f}" for first, last in pairwise(edges)) + " |"
    yield "|---" * len(edges) + "|"
    inside = [
        [sample.held[NAME].resident / MEGA for sample in run.samples if first <= sample.minute < last]
        for first, last in pairwise(edges)
    ]
    yield "| mean, MB | " + " | ".join(f"{fmean(each):.0f}" for each in inside) + " |"
    yield "| most, MB | " + " | ".join(f"{max(each):.0f}" for each in inside) + " |"
    rests = " | ".join(f"{rest.held[NAME].resident / MEGA:.0f}" for rest in run.rests)
    yield f"| {rest_seconds:.0f} s after it, MB | {rests} |"
    yield ""
    found = growth(NAME, run)
    yield (
        f"From the end of the first stretch to that of the last: {found.rest_grown:+.1%} at rest, trend "
        f"{found.rest_trended:+.1%}; under load the second half against the first {found.grown:+.1%} "
        f"± {found.uncertainty:.1%}."
    )


def _told(ended: Counter[str]) -> str:
    """What was asked, and how it ended."""
    return f"{ended.total()} requests: " + ", ".join(f"{count} {name}" for name, count in sorted(ended.items())) + "."
