"""Which token comes next: beside the plain way of computing it, and by its frequencies."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ortmesh.serving.executor.engine.sampler import Sampler, Sampling
from ortmesh.serving.types import Array

VOCABULARY = 3000
"""More than are sorted first."""
NOTHING = np.empty(0, np.int64)

logits = st.integers(0, 2**32 - 1).map(
    lambda seed: (np.random.default_rng(seed).standard_normal(VOCABULARY) * 3).astype(np.float32)
)
samplings = st.builds(
    Sampling,
    temperature=st.sampled_from([0.3, 1.0, 2.5, 5.0]),
    top_p=st.sampled_from([0.01, 0.5, 0.9, 0.9999, 1.0]),
    top_k=st.sampled_from([0, 1, 7, 2000, 10_000]),
    min_p=st.sampled_from([0.0, 0.001, 0.2, 1.0]),
    seed=st.integers(0, 2**64 - 1),
)


def candidates(logits: Array, sampling: Sampling) -> tuple[Array, Array]:
    """(tokens, probabilities), the likeliest first, by the definitions and nothing else."""
    order = np.lexsort((np.arange(len(logits)), -logits))
    weights = np.exp((logits[order].astype(np.float64) - logits.max()) / sampling.temperature)
    if sampling.top_k:
        order, weights = order[: sampling.top_k], weights[: sampling.top_k]
    before = np.cumsum(weights) - weights
    keep = before < sampling.top_p * weights.sum()
    order, weights = order[keep], weights[keep]
    keep = weights >= sampling.min_p * weights[0]
    order, weights = order[keep], weights[keep]
    return order, weights / weights.sum()


@given(logits, samplings)
def test_a_token_is_drawn_from_the_candidates_at_its_place(logits: Array, sampling: Sampling) -> None:
    tokens, probabilities = candidates(logits, sampling)
    chosen = Sampler(sampling, NOTHING).choose(logits, None, 0)
    assert chosen.token in tokens
    if sampling.top_k or sampling.top_p < 1 or sampling.min_p:
        draw = np.random.Generator(np.random.Philox(key=sampling.seed)).random()
        sums = np.cumsum(probabilities)
        place = int(np.flatnonzero(tokens == chosen.token)[0])
        assert sums[place] >= draw - 1e-6
        assert sums[place] - probabilities[place] <= draw + 1e-6


@given(logits, st.integers(0, 2**64 - 1), st.sampled_from([1, 3, 40, 2999, 3000]))
def test_of_all_tokens_one_is_drawn_at_its_place(logits: Array, seed: int, allowed: int) -> None:
    """Of those that a form allows: others are never drawn, however the sums are rounded."""
    chance = np.random.default_rng(seed)
    may = np.zeros(-(-VOCABULARY // 32) * 32, np.uint8)
    may[chance.choice(VOCABULARY, allowed, replace=False)] = 1
    bits = np.packbits(may, bitorder="little").view(np.uint32)
    chosen = Sampler(Sampling(seed=seed), NOTHING).choose(logits, bits, 0)
    assert may[chosen.token]
    weights = np.where(may[:VOCABULARY] == 1, np.exp(logits.astype(np.float64) - logits.max()), 0)
    sums = np.cumsum(weights / weights.sum())
    draw = np.random.Generator(np.random.Philox(key=seed)).random()
    assert sums[chosen.token] >= draw - 1e-6
    assert sums[chosen.token] - weights[chosen.token] / weights.sum() <= draw + 1e-6


@given(logits)
def test_without_temperature_it_is_the_likeliest(logits: Array) -> None:
    assert Sampler(Sampling(temperature=0), NOTHING).choose(logits, None, 0).token == int(logits.argmax())


def test_tokens_come_as_often_as_they_are_likely() -> None:
    logits = np.log(np.array([0.5, 0.3, 0.15, 0.05], np.float32))
    sampler = Sampler(Sampling(seed=1), NOTHING)
    counted = Counter(sampler.choose(logits, None, 0).token for _ in range(20_000))
    assert [counted[token] / 20_000 for token in range(4)] == pytest.approx([0.5, 0.3, 0.15, 0.05], abs=0.015)


def test_two_texts_have_numbers_of_their_own() -> None:
    """What one draws does not depend on how often another did."""
    logits = np.zeros(100, np.float32)
    one, other = Sampler(Sampling(seed=1), NOTHING), Sampler(Sampling(seed=2), NOTHING)
    mixed = []
    for _ in range(20):
        mixed.append(one.choose(logits, None, 0).token)
        other.choose(logits, None, 0)
    again = Sampler(Sampling(seed=1), NOTHING)
    assert [again.choose(logits, None, 0).token for _ in range(20)] == mixed


def test_what_was_said_becomes_less_likely() -> None:
    logits = np.array([3.0, 2.5, -1.0], np.float32)
    greedy = Sampling(temperature=0)
    assert Sampler(replace(greedy, repetition_penalty=2.0), np.array([0])).choose(logits, None, 0).token == 1
    by_presence = Sampler(replace(greedy, presence_penalty=1.0), NOTHING)
    assert [by_presence.choose(logits, None, 0).token for _ in range(4)] == [0, 1, 0, 0]
    by_frequency = Sampler(replace(greedy, frequency_penalty=0.4), NOTHING)
    assert [by_frequency.choose(logits, None, 0).token for _ in range(4)] == [0, 0, 1, 0]


def test_a_bias_and_a_form_decide_before_the_model() -> None:
    logits = np.array([3.0, 2.0, 1.0], np.float32)
    greedy = Sampling(temperature=0)
    assert Sampler(replace(greedy, bias={2: 10.0}), NOTHING).choose(logits, None, 0).token == 2
    allowed = np.array([0b110], np.uint32)
    assert Sampler(greedy, NOTHING).choose(logits, allowed, 0).token == 1
    for seed in range(50):
        assert Sampler(Sampling(temperature=5.0, seed=seed), NOTHING).choose(logits, allowed, 0).token != 0


@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 7, 40, 2000, 2999, 3000, 10_000]))
def test_of_equally_likely_tokens_the_first_are_candidates(seed: int, count: int) -> None:
    """Which ones they are does not depend on how a library parts an array."""
    logits = np.random.default_rng(seed).integers(-3, 3, VOCABULARY).astype(np.float32)
    first = np.argsort(-logits, kind="stable")[:count]
    assert Sampler(Sampling(temperature=0), NOTHING).choose(logits, None, count).top.tolist() == first.tolist()
    sampler = Sampler(Sampling(temperature=5.0, top_k=count, seed=seed), NOTHING)
    assert {sampler.choose(logits, None, 0).token for _ in range(20)} <= set(first.tolist())


@given(logits, st.integers(1, 20))
def test_log_probabilities_are_the_models_own(logits: Array, top: int) -> None:
    """Whatever was asked for besides."""
    sampling = Sampling(temperature=3.0, bias={5: 50.0}, seed=2)
    chosen = Sampler(sampling, NOTHING).choose(logits, None, top)
    plain = logits.astype(np.float64) - np.log(np.exp(logits.astype(np.float64)).sum())
    assert chosen.token == 5
    assert chosen.logprob == pytest.approx(plain[5], abs=1e-4)
    order = np.argsort(-logits, kind="stable")[:top]
    assert chosen.top.tolist() == order.tolist()
    assert chosen.top_logprobs == pytest.approx(plain[order], abs=1e-4)
