"""Token texts: what tokens are written as, where a model's file says it as bytes without a tokenizer's rules.
Stage: task.
"""

from __future__ import annotations

from pathlib import Path

CONTINUED = 0x80
"""From here on, a length takes a second byte."""


def read_token_texts(path: Path) -> list[bytes]:
    """Each token's text, of the file at `path`: its length in bytes, then they, one after another. ValueError."""
    content, texts, at = path.read_bytes(), [], 0
    while at < len(content):
        length, at = content[at], at + 1
        if length >= CONTINUED and at < len(content):
            length, at = content[at] * CONTINUED + length - CONTINUED, at + 1
        texts.append(content[at : at + length])
        at += length
    if at != len(content):
        raise ValueError(f"it ends within token {len(texts) - 1}")
    return texts
