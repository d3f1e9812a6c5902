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

LIKELIEST = 1024
"""So many candidates are sorted first: nearly always they hold top-p's share, and the vocabulary need not be sorted."""


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
            token = self._sampled(adjusted)
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
            bits = np.unpackbits(allowed.view(np.uint8), bitorder="little", count=len(adjusted))
            adjusted[bits == 0] = -np.inf
        return adjusted

    def _sampled(self, logits: Values) -> int:
        sampling = self._sampling
        draw = self._random.random()
        scaled = (logits.astype(np.float64) - logits.max()) / sampling.temperature
        weights = np.exp(scaled)
        if sampling.top_k == 0 and sampling.top_p >= 1.0 and sampling.min_p == 0.0:
            return _drawn(np.arange(len(weights)), weights, draw)
        return _drawn(*self._nucleus(weights), draw)

    def _nucleus(self, weights: Array) -> tuple[Array, Array]:
        """(tokens, weights) of the candidates, the likeliest first."""
        sampling = self._sampling
        total = float(weights.sum())
        tokens = _largest(weights, sampling.top_k or LIKELIEST)
        if not sampling.top_k and not self._cut(weights, tokens, total):
            tokens = _largest(weights, len(weights))
        found = weights[tokens]
        if sampling.top_p < 1.0:
            whole = found.sum() if sampling.top_k else total
            before = np.cumsum(found) - found
            keep = before < sampling.top_p * whole
            tokens, found = tokens[keep], found[keep]
        if sampling.min_p:
            keep = found >= sampling.min_p * found[0]
            tokens, found = tokens[keep], found[keep]
        return tokens, found

    def _cut(self, weights: Array, tokens: Array, total: float) -> bool:
        """True when no token beyond these can be a candidate."""
        by_share = self._sampling.top_p < 1.0 and float(weights[tokens].sum()) >= self._sampling.top_p * total
        return by_share or float(weights[tokens[-1]]) < self._sampling.min_p * float(weights[tokens[0]])


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


def _drawn(tokens: Array, weights: Array, draw: float) -> int:
    """The token at a place of the whole weight, from 0 to 1."""
    sums = np.cumsum(weights)
    return int(tokens[min(int(np.searchsorted(sums, draw * sums[-1], side="right")), len(tokens) - 1)])


def _logsumexp(logits: Values) -> float:
    highest = float(logits.max())
    return highest + math.log(float(np.exp(logits - np.float32(highest)).sum(dtype=np.float64)))
