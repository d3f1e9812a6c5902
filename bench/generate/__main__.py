"""`python -m bench.generate`: generated texts beside onnxruntime-genai and llama.cpp; an hour and a half in all."""

from __future__ import annotations

import argparse
import contextlib
import json
import platform
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import onnxruntime
from platformdirs import user_cache_path
from tokenizers import Tokenizer

from bench.generate import contest
from bench.generate.equal import equal
from bench.generate.hour import hour
from bench.generate.jobs import Drawn
from bench.generate.memory import memory
from bench.generate.peers import MODEL, ON_THEIRS, as_ours, genai, llama, versions
from bench.generate.plan import FULL, QUICK, Plan
from bench.generate.processes import BareEngine, Contestant, bare_engine
from bench.generate.rest import rest
from bench.generate.service import Service, running
from bench.generate.turns import turns
from ortmesh.config import StoreSettings
from ortmesh.cpus import cpus

RESULT = Path(__file__).parents[1] / "results" / "generate.md"
THREADS = 2
HEAD = """# Texts as they are generated

`python -m bench.generate --genai FOLDER --write`: SmolLM2-135M-Instruct, each part one run with all
contestants in turns on the same machine and prompts, two threads each, always the likeliest token: compare within a
part only. The bare engine is the executor's loop over its pile in a process of its own; the service is the real process
behind gRPC on a Unix socket with a caller beside it, which share the cores with the model. onnxruntime-genai (PyPI's,
on the graph that its builder makes in 4 bits, where our recipe keeps what the weights say by 8: see
docs/decisions/0022) has a Generator that writes one text after another, and an Engine that writes
several; `bare engine on onnxruntime-genai's graph` is ours with those weights, which tells engines apart from weights.
llama.cpp (PyPI's llama-cpp-python, on the GGUF of which our recipe makes its graph) gets one token of every
growing text and up to 512 of prompts in each run, as in its own server. Prompts have less than 16 tokens of their
beginnings in common, so that nobody is helped by what is kept of them.
"""
PARTS = {
    "streams": "Texts of some forty tokens of prompt, so many at once; when one ends the next begins. A first token is "
    "counted from when its text was sent, also where others are written before; the longest gap is that between two "
    "tokens of a text.",
    "arriving": "The same while prompts of 1,000 tokens come, one a second, of which one token is asked for: more than "
    "the machine can compute in that time. Rates, first tokens and gaps are those of the streams.",
    "prompt": "A prompt of 1,000 tokens alone: seconds to its first token.",
    "turns": "A conversation that goes on: seconds to the first token of each turn's answer, with what the engine "
    "keeps of the turns before, and without.",
    "equal": "How many texts are, token for token, what they are alone, by how many are written at once.",
    "memory": "The service's resident memory, with all slots as full as the card's budget allows.",
    "hour": "The service's resident memory while four callers ask for something else each time: conversations that go "
    "on, sampled texts, long prompts, several choices, forms that never repeat, texts that are left in their midst or "
    "whose deadline passes there, what is refused, and counts; with a rest after each sixth.",
    "rest": "Shares of the wall time. Bare steps: as many steps as were run, each as long as one alone takes in a "
    "session with nothing around it, at the texts' mean length; steps in the engine: what the graph's runs took there "
    "(a short last batch costs less, a busy machine more). Binding: of the buffers to the graph, with its mask and the "
    "logits. Copies: of keys and values, when texts begin, end or change places.",
}


@dataclass(frozen=True, slots=True)
class Table:
    """Who is there."""

    engine: BareEngine
    service: Service
    all: list[Contestant]
    tokenizer: Tokenizer
    model: Path
    """Its folder."""


def main() -> None:
    """Measures and prints the parts that are asked for, one after another."""
    parser = argparse.ArgumentParser(prog="python -m bench.generate", description=__doc__)
    parser.add_argument("--part", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--quick", action="store_true", help="a few minutes")
    parser.add_argument("--write", action="store_true", help=f"replace these parts of bench/results/{RESULT.name}")
    parser.add_argument("--models", type=Path, default=StoreSettings().models, help="the store")
    parser.add_argument(
        "--genai",
        type=Path,
        metavar="FOLDER",
        help="the model as onnxruntime-genai's builder makes it, which needs torch; without it that one is left out",
    )
    parser.add_argument("--no-llama", action="store_true", help="leave llama.cpp out, which is built from source once")
    parser.add_argument(
        "--cache",
        type=Path,
        default=user_cache_path("ortmesh") / "bench-generate",
        help="where the peers' environments lie; made where missing",
    )
    chosen = parser.parse_args()
    folder = next(iter(sorted((chosen.models / MODEL).glob("*/card.yaml"))), None)
    if folder is None:
        parser.error(f"{chosen.models} has no {MODEL}: ortmesh pull {MODEL}")
    plan = QUICK if chosen.quick else FULL
    with contestants(folder.parent, chosen) as table:
        for part in chosen.part:
            text = f"{title(part)}\n\n{told(part, chosen, table)}\n\n{PARTS[part]}\n\n{measured(part, table, plan)}"
            print(text, end="\n\n", flush=True)
            if chosen.write:
                write(RESULT, part, text)


@contextlib.contextmanager
def contestants(model: Path, chosen: argparse.Namespace) -> Iterator[Table]:
    """All that are asked for, ready."""
    stops = json.loads((model / "generation.json").read_text(encoding="utf-8"))["eos_token_ids"]
    with contextlib.ExitStack() as stack:
        engine = stack.enter_context(bare_engine(model, THREADS, stops))
        service = stack.enter_context(running(model, THREADS))
        found: list[Contestant] = [engine, service]
        if chosen.genai is not None:
            theirs = chosen.genai.resolve()
            found.append(
                stack.enter_context(bare_engine(stack.enter_context(as_ours(theirs)), THREADS, stops, ON_THEIRS))
            )
            found += stack.enter_context(genai(theirs, chosen.cache, THREADS, stops, tell))
        if not chosen.no_llama:
            found.append(stack.enter_context(llama(chosen.cache, THREADS, stops, tell)))
        tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
        for contestant in found:  # what is made at the first run is measured of nobody
            contestant.write(Drawn(tokenizer, seed=len(PARTS)).stories(4, 8), 4)
        yield Table(engine, service, found, tokenizer, model)


def measured(part: str, table: Table, plan: Plan) -> str:
    """The tables of one part."""
    drawn = Drawn(table.tokenizer, seed=list(PARTS).index(part))
    match part:
        case "turns":
            return turns(table.engine, table.service, drawn, plan)
        case "equal":
            return equal(table.all, drawn, plan, tell)
        case "memory":
            with running(table.model, THREADS) as fresh:
                return memory(fresh, drawn, plan)
        case "hour":
            with running(table.model, THREADS) as fresh:
                return hour(fresh, table.tokenizer, plan)
        case "rest":
            return rest(table.engine, table.service, drawn, plan)
    ways = {"streams": contest.streams, "arriving": contest.arriving, "prompt": contest.prompt}
    return ways[part](table.all, drawn, plan, tell)


def told(part: str, chosen: argparse.Namespace, table: Table) -> str:
    """By which command and with what."""
    machine = f"{cpus()} cores, Python {platform.python_version()}, onnxruntime {onnxruntime.__version__}"
    libraries = [machine, *versions(chosen.cache, [each.name for each in table.all])]
    given = " --genai FOLDER" if chosen.genai is not None else ""
    return (
        f"`python -m bench.generate --part {part}{' --quick' if chosen.quick else ''}{given}`: {', '.join(libraries)}."
    )


def title(part: str) -> str:
    """Of a section."""
    return f"## {part.capitalize()}"


def write(path: Path, part: str, text: str) -> None:
    """Replaces one section of the page and leaves the others as they are."""
    old = path.read_text(encoding="utf-8") if path.exists() else ""
    sections = (f"## {each}" for each in old.split("\n## ")[1:])
    there = {section.partition("\n")[0]: section.rstrip() for section in sections}
    there[title(part)] = text.rstrip()
    ordered = [there[title(each)] for each in PARTS if title(each) in there]
    path.write_text("\n\n".join([HEAD.rstrip(), *ordered]) + "\n", encoding="utf-8")


def tell(line: str) -> None:
    """What goes on, for who waits."""
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
