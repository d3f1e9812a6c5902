"""Asking: a request to generate, checked, as what the engine is asked for. Stage: task."""

from __future__ import annotations

import math
import secrets
from dataclasses import replace

import numpy as np

from ortmesh.errors import BadInput
from ortmesh.nlp.v1 import nlp_pb2
from ortmesh.serving.executor.engine.ask import Ask
from ortmesh.serving.executor.engine.sampler import Sampling
from ortmesh_nlp.chat import Language
from ortmesh_nlp.stops import check_stops

DEFAULT_TOKENS = 1024
MAX_CHOICES, MAX_TOP, MAX_BIASES = 8, 20, 300
GREEDY = Sampling(temperature=0.0)
BOUNDS: dict[str, tuple[float, float]] = {
    "temperature": (0, 5),
    "top_p": (0, 1),
    "min_p": (0, 1),
    "frequency_penalty": (-2, 2),
    "presence_penalty": (-2, 2),
}


def check(request: nlp_pb2.GenerateRequest) -> None:
    """BadInput for what is out of range, naming the field; before anything is computed."""
    _whole("max_tokens", request.max_tokens, 0, 2**31 - 1)
    _whole("choices", request.choices, 0, MAX_CHOICES)
    _whole("top_logprobs", request.top_logprobs, 0, MAX_TOP)
    check_stops(request.stop)
    given = request.sampling
    for name, (least, most) in BOUNDS.items():
        _number(f"sampling.{name}", getattr(given, name), least, most)
    if given.repetition_penalty:
        _number("sampling.repetition_penalty", given.repetition_penalty, 0.1, 10)
    _whole("sampling.top_k", given.top_k, 0, 2**31 - 1)
    if len(given.logit_bias) > MAX_BIASES:
        raise BadInput("sampling.logit_bias", f"{len(given.logit_bias)} tokens: expected at most {MAX_BIASES}")
    for token, bias in given.logit_bias.items():
        _number(f"sampling.logit_bias[{token}]", bias, -100, 100)


def asks(request: nlp_pb2.GenerateRequest, language: Language) -> list[Ask]:
    """What each of the texts asks for. BadInput for a prompt that is longer than the context has room for, and for a
    token that the model has not. It takes milliseconds: call it in the pool."""
    prompt = language.prompt(request)
    room = language.context - len(prompt)
    field = request.WhichOneof("prompt")
    if not prompt:
        raise BadInput(str(field), "has no tokens")
    if room < 1:
        raise BadInput(str(field), f"has {len(prompt)} tokens: expected at most {language.context - 1}")
    if request.max_tokens > room:
        has = f"the prompt has {len(prompt)} token{'' if len(prompt) == 1 else 's'}"
        reason = f"{request.max_tokens}: expected at most {room}, since {has}"
        raise BadInput("max_tokens", f"{reason} and both together at most {language.context}")
    vocabulary = language.facts.vocabulary
    if (
        wrong := next((token for token in request.sampling.logit_bias if not 0 <= token < vocabulary), None)
    ) is not None:
        raise BadInput("sampling.logit_bias", f"{wrong} is no token: they are 0 to {vocabulary - 1}")
    one = Ask(
        prompt=np.array(prompt, np.int64),
        max_tokens=request.max_tokens or min(room, DEFAULT_TOKENS),
        stop_tokens=frozenset(language.facts.eos_token_ids),
        sampling=sampling_of(request),
        top=request.top_logprobs,
    )
    seeds = [(one.sampling.seed + number) % 2**64 for number in range(request.choices or 1)]
    return [replace(one, sampling=replace(one.sampling, seed=seed)) for seed in seeds]


def sampling_of(request: nlp_pb2.GenerateRequest) -> Sampling:
    """How tokens are chosen; always the likeliest where nothing is said."""
    if not request.HasField("sampling"):
        return GREEDY
    given = request.sampling
    return Sampling(
        temperature=given.temperature,
        top_p=given.top_p or 1.0,
        top_k=given.top_k,
        min_p=given.min_p,
        repetition_penalty=given.repetition_penalty or 1.0,
        frequency_penalty=given.frequency_penalty,
        presence_penalty=given.presence_penalty,
        bias=dict(given.logit_bias),
        seed=given.seed % 2**64 if given.HasField("seed") else secrets.randbits(64),
    )


def _number(field: str, value: float, least: float, most: float) -> None:
    if not (math.isfinite(value) and least <= value <= most):
        raise BadInput(field, f"{value:g}: expected {least:g} to {most:g}")


def _whole(field: str, value: int, least: int, most: int) -> None:
    if not least <= value <= most:
        raise BadInput(field, f"{value}: expected {least} to {most}")
