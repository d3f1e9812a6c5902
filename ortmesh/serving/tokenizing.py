"""Tokenizers of texts, for all families; the library's threads keep to the process's CPUs. Stage: task."""

from __future__ import annotations

import os
from pathlib import Path

from tokenizers import Tokenizer

from ortmesh.cpus import cpus

THREADS = "RAYON_NUM_THREADS"
"""What the library reads when it starts its threads; an operator's own value stays."""


def load_tokenizer(path: Path) -> Tokenizer:
    """A tokenizer without padding and truncation: the batcher pads, and tasks cut and say so."""
    os.environ.setdefault(THREADS, str(cpus()))  # before the library's first work: it starts its threads once
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def load_literal_tokenizer(path: Path) -> Tokenizer:
    """A tokenizer to which `<|endoftext|>` in a caller's text is text, and no command to the model."""
    tokenizer = load_tokenizer(path)
    tokenizer.encode_special_tokens = True
    return tokenizer
