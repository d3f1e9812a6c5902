"""Door: where an attack goes, and the methods that it finds there."""

from __future__ import annotations

from dataclasses import dataclass

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Door:
    """An address and what is served there."""

    address: str
    """`host:port` or `unix:/path`."""
    cheap: str
    """The path of a unary method of 4 MiB that answers in little time."""
    cheap_request: bytes
    """A good request for it."""
    large: str
    """The path of a unary method of 32 MiB."""
    stream: str = ""
    """The path of a method that streams without an end; only where `readers` go."""
