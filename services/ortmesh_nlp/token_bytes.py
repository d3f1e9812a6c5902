"""TokenBytes: the bytes of a vocabulary's tokens, which may be parts of characters. Stage: task.

A text is its tokens' bytes, one after the other. The library's own decoders are for whole texts: that of SentencePiece
takes away the space a text begins with, which matters where the text goes on from a prompt, and its `DecodeStream`
fails at bytes that are no UTF-8.
"""

from __future__ import annotations

import json
import re

from tokenizers import Tokenizer

BYTE = re.compile(r"<0x([0-9A-F]{2})>")
"""How SentencePiece's vocabularies write a byte that is no character."""
SPACE = "\u2581"
"""And a space."""


class TokenBytes:
    """Of byte-level BPE, which writes each byte as a letter (Radford et al. 2019), and of SentencePiece."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._special = {token.content for token in tokenizer.get_added_tokens_decoder().values()}
        decoder = json.loads(tokenizer.to_str()).get("decoder") or {}
        kinds = [decoder.get("type"), *(each.get("type") for each in decoder.get("decoders", []))]
        self._bytes = {letter: byte for byte, letter in enumerate(_letters())} if "ByteLevel" in kinds else {}

    def __call__(self, token: int) -> bytes:
        """The bytes of a token; none for one that the vocabulary lacks."""
        written = self._tokenizer.id_to_token(token)
        if written is None:
            return b""
        if written in self._special:
            return written.encode()
        if self._bytes:
            return bytes(self._bytes[letter] for letter in written if letter in self._bytes)
        if (byte := BYTE.fullmatch(written)) is not None:
            return bytes([int(byte[1], 16)])
        return written.replace(SPACE, " ").encode()


def _letters() -> list[str]:
    """The letter of each byte: printable ones are their own, the others follow from U+0100 on."""
    own = {*range(ord("!"), ord("~") + 1), *range(ord("\u00a1"), ord("\u00ac") + 1), *range(ord("\u00ae"), 256)}
    others = iter(range(256, 512))
    return [chr(byte) if byte in own else chr(next(others)) for byte in range(256)]
