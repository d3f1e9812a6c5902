"""Sampling: which token comes next, by the model's logits and what the caller asked for. Stage: executor.

In this order: penalties (of repetition, frequency, presence), bias, what the form allows, temperature, top-k, top-p,
min-p. From the temperature on it is that of Hugging Face's transformers (`generation/utils.py`); vLLM adds the bias
before the penalties and applies min-p before top-k and top-p. The seed alone decides: each text has a stream of random
numbers of its own (Philox), and takes one a token, so that it is the same text alone and among others.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from ortmesh.errors import ExecutorFailed
from ortmesh.serving.executor.engine.slots import Ids, Values
from ortmesh.serving.types import Array

LIKELY = (1e-3, 1e-5)
"""How likely in relation to the likeliest the tokens are that are sorted for top-p: nearly always those hold its share,
else more are sorted. To sort a vocabulary takes milliseconds, a step of a small model on a GPU two."""
LEAST_TEMPERATURE = 1e-30
"""A smaller one is as good as none, and its inverse no number of 32 bits."""
TINY = float(np.finfo(np.float32).tiny)
BLOCK = 128
"""Weights that are added up before one is drawn from all: to add up all of them one by one takes 0.2 ms."""
BITS = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little")
FORBIDDEN = np.where(BITS == 1, np.float32(0), np.float32(-np.inf))
"""f32 [256, 8]: what is added to the logits of eight tokens, by the bits of those that are allowed."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How a text's tokens are chosen."""

    temperature: float = 1.0
    """0: always the likeliest."""
    top_p: float = 1.0
    """Of the likeliest tokens that together have this probability (nucleus sampling: Holtzman et al. 2019)."""
    top_k: int = 0
    """Of so many likeliest tokens; 0: of all."""
    min_p: float = 0.0
    """Of those that are at least so likely in relation to the likeliest (Nguyen et al. 2024)."""
    repetition_penalty: float = 1.0
    """Logits of tokens that were there, in the prompt too, are divided by it, negative ones multiplied (Keskar et al.
    2019)."""
    frequency_penalty: float = 0.0
    """Taken from a token's logit for each time that it was generated."""
    presence_penalty: float = 0.0
    """Taken once from the logit of a token that was generated."""
    bias: Mapping[int, float] = field(default_factory=dict)
    """Added to the logits of tokens."""
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Chosen:
    """A token and, where likeliest ones were asked for, how likely it was by the model's own logits."""

    token: int
    top: Ids
    """The likeliest, as many as were asked for."""
    top_logprobs: Values
    logprob: float
    """Of the token; not a number where none were asked for: it takes a pass over the vocabulary."""


NOTHING, NO_LOGPROBS = np.empty(0, np.int64), np.empty(0, np.float32)


class Sampler:
    """Chooses one text's tokens. Belongs to the engine's thread."""

    def __init__(self, sampling: Sampling, prompt: Ids) -> None:
        self._sampling = sampling
        self._random = np.random.Generator(np.random.Philox(key=sampling.seed % 2**64))
        self._generated: Counter[int] = Counter()
        self._seen = np.unique(prompt) if sampling.repetition_penalty != 1.0 else np.empty(0, np.int64)
        self._bias = np.array(list(sampling.bias), np.int64), np.array(list(sampling.bias.values()), np.float32)

    def choose(self, logits: Values, allowed: Array | None, top: int) -> Chosen:
        """The next token for logits [vocabulary], of those whose bits are set in `allowed`."""
        adjusted = self._adjusted(logits, allowed)
        token = int(adjusted.argmax())  # of what is no number, if there is any
        if not np.isfinite(adjusted[token]):
            raise ExecutorFailed("no token may come next: the model gave no numbers, or the text's form allows none")
        if self._sampling.temperature != 0:
            token = self._sampled(adjusted, token)
        self._generated[token] += 1
        if not top:
            return Chosen(token, NOTHING, NO_LOGPROBS, math.nan)
        likeliest = _largest(logits, top)
        normalizer = np.float32(_logsumexp(logits))
        return Chosen(token, likeliest, logits[likeliest] - normalizer, float(logits[token] - normalizer))

    def _adjusted(self, logits: Values, allowed: Array | None) -> Values:
        """Logits after penalties and bias, -inf where nothing may be."""
        sampling = self._sampling
        generated = np.fromiter(self._generated, np.int64, len(self._generated))
        penalized = bool(len(generated)) and (sampling.frequency_penalty or sampling.presence_penalty)
        if not (penalized or len(self._bias[0]) or allowed is not None or sampling.repetition_penalty != 1.0):
            return logits
        adjusted = logits.copy()
        if sampling.repetition_penalty != 1.0:
            seen = np.union1d(self._seen, generated)
            values = adjusted[seen]
            penalty = np.float32(sampling.repetition_penalty)
            adjusted[seen] = np.where(values > 0, values / penalty, values * penalty)
        if penalized:
            counts = np.fromiter(self._generated.values(), np.float32, len(self._generated))
            adjusted[generated] -= sampling.frequency_penalty * counts + sampling.presence_penalty
        if len(self._bias[0]):
            adjusted[self._bias[0]] += self._bias[1]
        if allowed is not None:
            adjusted += np.take(FORBIDDEN, allowed.view(np.uint8), axis=0).reshape(-1)[: len(adjusted)]
        return adjusted

    def _sampled(self, logits: Values, likeliest: int) -> int:
        """Weights are relative to the likeliest token's. Those of 32 bits find the candidates, those of 64 decide."""
        highest, draw = logits[likeliest], self._random.random()
        temperature = max(self._sampling.temperature, LEAST_TEMPERATURE)
        weights = np.exp((logits - highest) / np.float32(temperature))
        total = float(weights.sum()) if self._sampling.top_p < 1.0 else 0.0
        least = self._least(weights, total)
        if not least:
            return _drawn_of_all(weights, draw)
        tokens = np.flatnonzero(weights >= least)
        exact = np.exp((logits[tokens].astype(np.float64) - highest) / temperature)
        order = np.argsort(-exact, kind="stable")
        tokens, exact = self._nucleus(tokens[order], exact[order], total)
        sums = np.cumsum(exact)
        return int(tokens[min(int(np.searchsorted(sums, draw * sums[-1], side="right")), len(tokens) - 1)])

    def _least(self, weights: Values, total: float) -> float:
        """The least weight that a candidate may have, or less; 0 where all are candidates. `total` is that of all."""
        sampling = self._sampling
        if sampling.top_k:
            behind = len(weights) - sampling.top_k
            return max(float(np.partition(weights, behind)[behind]), TINY) if behind > 0 else TINY
        least = max(0.999 * sampling.min_p, TINY) if sampling.min_p else 0.0
        if sampling.top_p >= 1.0:
            return least
        for likely in LIKELY:
            if likely > least and float(weights[weights >= likely].sum()) > sampling.top_p * total:
                return likely
        return max(least, (1 - sampling.top_p) * total / len(weights), TINY)  # all the rest have less than top-p leaves

    def _nucleus(self, tokens: Ids, weights: Array, total: float) -> tuple[Ids, Array]:
        """The candidates among these, the likeliest first; `total` is the weight of the whole vocabulary,
        which top-p alone needs."""
        sampling = self._sampling
        if sampling.top_k:
            tokens, weights = tokens[: sampling.top_k], weights[: sampling.top_k]
            total = float(weights.sum())
        if sampling.top_p < 1.0:
            keep = np.cumsum(weights) - weights < sampling.top_p * total
            tokens, weights = tokens[keep], weights[keep]
        if sampling.min_p:
            keep = weights >= sampling.min_p * weights[0]
            tokens, weights = tokens[keep], weights[keep]
        return tokens, weights


def _drawn_of_all(weights: Values, draw: float) -> int:
    """The place of a weight at a place of the whole, from 0 to 1: first its block, then itself."""
    sums = np.cumsum(np.add.reduceat(weights, np.arange(0, len(weights), BLOCK)), dtype=np.float64)
    at = draw * sums[-1]
    block = int(np.searchsorted(sums, at, side="right"))
    begin = BLOCK * min(block, len(sums) - 1)
    inside = np.cumsum(weights[begin : begin + BLOCK], dtype=np.float64)
    place = begin + int(np.searchsorted(inside, at - (sums[block - 1] if block else 0.0), side="right"))
    if place < len(weights) and weights[place] > 0:
        return place
    return int(np.flatnonzero(weights[: begin + BLOCK])[-1])  # rounded beyond the last one of its block


def _largest(values: Array, count: int) -> Array:
    """The places of so many largest values, the largest first; of equals the first."""
    if count >= len(values):
        return np.argsort(-values, kind="stable")
    if count == 0:
        return np.empty(0, np.int64)
    descending = -values
    last = np.partition(descending, count - 1)[count - 1]
    # not `argpartition`: of those that equal the last it takes any
    before = np.flatnonzero(descending < last)
    before = before[np.argsort(descending[before], kind="stable")]
    return np.concatenate([before, np.flatnonzero(descending == last)[: count - len(before)]])


def _logsumexp(logits: Values) -> float:
    highest = float(logits.max())
    return highest + math.log(float(np.exp(logits - np.float32(highest)).sum(dtype=np.float64)))
