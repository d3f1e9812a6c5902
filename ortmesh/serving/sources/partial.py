"""A file that is still arriving: kept as `NAME.part`, so that the next try goes on from there. Stage: store."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from ortmesh.serving.faults import disk_errors


class Partial:
    """The `.part` file of `target`, and beside it what identified the content (an ETag) when it was begun."""

    def __init__(self, target: Path) -> None:
        self.target = target
        self._part = target.with_name(target.name + ".part")
        self._mark = target.with_name(target.name + ".part.id")

    @property
    def identity(self) -> str | None:
        """What identifies the content begun; None when there is none, or it cannot be told from other content."""
        return self._mark.read_text(encoding="utf-8") if self._mark.exists() and self._part.exists() else None

    @property
    def size(self) -> int:
        """Bytes that are here."""
        return self._part.stat().st_size if self._part.exists() else 0

    def discard(self) -> None:
        """Forgets what is here."""
        self._part.unlink(missing_ok=True)
        self._mark.unlink(missing_ok=True)

    def write(self, chunks: Iterable[bytes], start: int, identity: str | None, tell: Callable[[int], None]) -> None:
        """Writes from byte `start` on and tells how many bytes are here; what came before an error stays."""
        with disk_errors(self.target.parent):
            self.target.parent.mkdir(parents=True, exist_ok=True)
            if start == 0:
                self.discard()
                if identity is not None:
                    self._mark.write_text(identity, encoding="utf-8")
            with self._part.open("ab") as file:
                file.truncate(start)
                tell(start)
                for chunk in chunks:
                    file.write(chunk)
                    tell(file.tell())

    def complete(self) -> None:
        """Gives the file its name."""
        with disk_errors(self.target.parent):
            self._part.replace(self.target)
            self._mark.unlink(missing_ok=True)
