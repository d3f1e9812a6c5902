"""`python -m bench.mixed`: texts of mixed lengths through the running service, as a share of the best grouping."""

from __future__ import annotations

import argparse
import functools
import sys
from pathlib import Path

from bench.mixed.contest import contest
from bench.mixed.items import items
from bench.mixed.report import HEAD, section, title
from ortmesh.config import StoreSettings
from ortmesh.serving.store import Store
from ortmesh.serving.tokenizing import load_tokenizer

RESULTS = Path(__file__).parents[1] / "results" / "mixed.md"
MODEL = "all-minilm-l6-v2"
THREADS = (1, 2)
SEED = 7


def main() -> None:
    """Some four minutes for each number of threads."""
    parser = argparse.ArgumentParser(prog="python -m bench.mixed", description=__doc__)
    parser.add_argument("--items", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, nargs="+", default=THREADS, help="one contest each")
    parser.add_argument("--write", action="store_true", help=f"replace these sections of bench/results/{RESULTS.name}")
    chosen = parser.parse_args()
    found = {each.name: (each, folder) for each, folder in Store(StoreSettings().models).cards()}
    if MODEL not in found:
        parser.error(f"{MODEL} is not in the store: ortmesh pull {MODEL}")
    card, folder = found[MODEL]
    texts = items(chosen.items, load_tokenizer(folder / "tokenizer.json"), SEED)
    say = functools.partial(print, file=sys.stderr)
    for threads in chosen.threads:
        text = section(contest(card, folder, texts, threads, chosen.rounds, say))
        print(text, end="\n\n")
        if chosen.write:
            write(RESULTS, title(threads), text)


def write(path: Path, name: str, text: str) -> None:
    """Replaces one section of a page and leaves the others as they are."""
    old = path.read_text(encoding="utf-8") if path.exists() else ""
    sections = {part.partition("\n")[0]: part.rstrip() for part in _sections(old)}
    sections[name] = text
    made = [HEAD.rstrip(), *(sections[each] for each in sorted(sections))]
    path.write_text("\n\n".join(made) + "\n", encoding="utf-8")


def _sections(page: str) -> list[str]:
    return [f"## {part}" for part in page.split("\n## ")[1:]]


if __name__ == "__main__":
    main()
