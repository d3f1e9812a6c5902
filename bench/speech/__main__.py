"""`python -m bench.speech`: speech through the running service, beside faster-whisper; some half an hour in all."""

from __future__ import annotations

import argparse
import platform
import sys
from collections.abc import Callable
from pathlib import Path

import onnxruntime
from platformdirs import user_cache_path

from bench.speech import recognize, streams, synthesize
from bench.speech.corpus import Corpus, corpus
from bench.speech.peers import peer, versions
from bench.speech.service import running
from bench.speech.voices import NoVoice
from ortmesh.config import StoreSettings
from ortmesh.cpus import cpus

RESULT = Path(__file__).parents[1] / "results" / "speech.md"
HEAD = """# Speech through the running service

`python -m bench.speech --write`, each part of it one run with all contestants in turns on the same machine: compare
within a part only. The service is the real process behind gRPC on a Unix socket, with two threads for each model, and
gets the files' bytes; faster-whisper (PyPI's, int8, two threads) runs in a process and an environment of its own on the
same weights (the CTranslate2 files out of which our recipe makes its graphs), and gets the files' paths. All texts are
public domain and synthesized, all noise is drawn with a seed: recorded voices would be heard worse by everybody. Word
errors are edits of words after Whisper's own normalization, of all words of a part; CPU is that of the process that
computes, per minute of audio.
"""
PARTS = ("utterances", "talks", "streams", "synthesize")


def main() -> None:
    """Measures and prints the parts that are asked for, one after another."""
    parser = argparse.ArgumentParser(prog="python -m bench.speech", description=__doc__)
    parser.add_argument("--part", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--quick", action="store_true", help="a few minutes, on a small part of the corpus")
    parser.add_argument("--write", action="store_true", help=f"replace these parts of bench/results/{RESULT.name}")
    parser.add_argument("--models", type=Path, default=StoreSettings().models, help="the store, with all speech models")
    parser.add_argument(
        "--cache",
        type=Path,
        default=user_cache_path("ortmesh") / "bench-speech",
        help="where the corpus, faster-whisper and what everybody heard lie; made where missing",
    )
    chosen = parser.parse_args()
    try:
        made = corpus(chosen.cache, tell)
    except NoVoice as error:
        parser.error(str(error))
    for part in chosen.part:
        text = f"{title(part)}\n\n{_part(part, made, chosen)}"
        print(text, end="\n\n", flush=True)
        if chosen.write:
            write(RESULT, part, text)


def _part(name: str, made: Corpus, chosen: argparse.Namespace) -> str:
    quick, record = chosen.quick, chosen.cache / "heard" / f"{name}.jsonl"
    asked = f"`python -m bench.speech --part {name}{' --quick' if quick else ''}`"
    with running(chosen.models) as service:
        if name == "streams":
            return f"{asked}: {_machine()}.\n\n{streams.section(service, made, tell, quick=quick)}"
        if name == "synthesize":
            return f"{asked}: {_machine()}.\n\n{synthesize.section(service, quick=quick)}"
        with peer(chosen.cache, tell) as theirs:
            part: Callable[..., str] = recognize.talks if name == "talks" else recognize.utterances
            text = part(service, theirs, made, record, tell, quick=quick)
    found = versions(chosen.cache)
    theirs_are = ", ".join(f"{each} {found[each]}" for each in ("faster-whisper", "ctranslate2"))
    return f"{asked}: {_machine()}, {theirs_are}.\n\n{text}"


def _machine() -> str:
    return f"{cpus()} cores, Python {platform.python_version()}, onnxruntime {onnxruntime.__version__}"


def title(part: str) -> str:
    """Of a section."""
    return f"## {part.capitalize()}"


def write(path: Path, part: str, text: str) -> None:
    """Replaces one section of the page and leaves the others as they are."""
    old = path.read_text(encoding="utf-8") if path.exists() else ""
    there = {
        section.partition("\n")[0]: section.rstrip() for section in (f"## {each}" for each in old.split("\n## ")[1:])
    }
    there[title(part)] = text.rstrip()
    ordered = [there[title(each)] for each in PARTS if title(each) in there]
    path.write_text("\n\n".join([HEAD.rstrip(), *ordered]) + "\n", encoding="utf-8")


def tell(line: str) -> None:
    """What goes on, for who waits."""
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
