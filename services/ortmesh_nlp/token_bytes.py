"""TokenBytes: the bytes of a vocabulary's tokens, which may be parts of characters. Stage: task."""

from __future__ import annotations

from tokenizers import Tokenizer


class TokenBytes:
    """Of byte-level BPE, whose vocabulary writes each byte as a letter (Radford et al. 2019); of other vocabularies the
    text that a token has alone."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._bytes = {letter: byte for byte, letter in enumerate(_letters())}

    def __call__(self, token: int) -> bytes:
        """The bytes of a token; none for one that the vocabulary lacks."""
        written = self._tokenizer.id_to_token(token)
        if written is None:
            return b""
        if all(letter in self._bytes for letter in written):
            return bytes(self._bytes[letter] for letter in written)
        return str(self._tokenizer.decode([token], skip_special_tokens=False)).encode()


def _letters() -> list[str]:
    """The letter of each byte: printable ones are their own, the others follow from U+0100 on."""
    own = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    others = iter(range(256, 512))
    return [chr(byte) if byte in own else chr(next(others)) for byte in range(256)]
