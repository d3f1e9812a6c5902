"""The bench of generated texts: its jobs, its figures, and its contestants' ways on a tiny model."""

from __future__ import annotations

import itertools
import json
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from bench.generate import contest
from bench.generate.__main__ import PARTS, write
from bench.generate.bare import Bare, bare
from bench.generate.equal import equal
from bench.generate.jobs import Drawn, Job
from bench.generate.peer import write as peer_write
from bench.generate.plan import Plan
from bench.generate.texts import Text, Wave, merged
from bench.generate.turns import turns
from tests.nlp.writers import NAME, writer

STOPS = [2, 0]
SMALL = Plan(
    rounds=1,
    streams=(1, 2),
    texts=(1, 2),
    tokens=4,
    busy_streams=(2,),
    busy_texts=(2,),
    busy_tokens=4,
    came=1,
    long=120,
    prompts=1,
    turns=2,
    turn_words=2,
    together=(2,),
    compared=2,
    compared_tokens=4,
)


class Here:
    """The bench's bare engine, in this process."""

    def __init__(self, engine: Bare, name: str = "bare engine") -> None:
        self.name = name
        self._engine = engine

    def write(self, jobs: Sequence[Job], streams: int) -> Wave:
        """As through its lines."""
        asked = {"jobs": [job.line() for job in jobs], "streams": streams, "stops": STOPS}
        return Wave.of(jobs, json.loads(json.dumps(self._engine.answer(asked))))

    def forget(self) -> None:
        """As through its lines."""
        assert self._engine.answer({"forget": True}) == {}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    shelf = writer(tmp_path_factory.mktemp("store"))
    (found,) = [place for card, place in shelf.cards() if card.name == NAME]
    return found


@pytest.fixture(scope="module")
def engine(folder: Path) -> Iterator[Here]:
    with bare(folder, 1) as made:
        yield Here(made)


@pytest.fixture
def drawn(folder: Path) -> Drawn:
    return Drawn(Tokenizer.from_file(str(folder / "tokenizer.json")), seed=1)


def test_the_same_seed_draws_the_same_prompts(folder: Path) -> None:
    """Short ones differ early, long ones are as long as is asked for."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    one, other = (Drawn(tokenizer, seed=3) for _ in range(2))
    assert one.stories(3, 8) == other.stories(3, 8)
    assert 120 <= len(one.long(120).ids) < 140
    prompts = one.conversation(3, 2)
    assert all(later.startswith(earlier) for earlier, later in itertools.pairwise(prompts))


def test_the_bare_engine_is_measured_in_all_ways(engine: Here, drawn: Drawn) -> None:
    """Each table has a row for everyone, and the bare engine is 1 of itself."""
    said: list[str] = []
    tables = [
        contest.streams([engine], drawn, SMALL, said.append),
        contest.arriving([engine], drawn, SMALL, said.append),
        contest.prompt([engine], drawn, SMALL, said.append),
    ]
    assert [len(table.splitlines()) for table in tables] == [4, 3, 3]
    assert "**1.000**" in tables[0]
    assert len(said) == 4


def test_texts_are_compared_with_themselves_alone(engine: Here, drawn: Drawn) -> None:
    assert equal([engine], drawn, SMALL, lambda line: None).endswith("| bare engine | 2 of 2 |")


def test_a_conversation_is_asked_turn_by_turn(engine: Here, drawn: Drawn) -> None:
    """With what is kept of it and without."""
    table = turns(engine, Here(engine._engine, "service"), drawn, SMALL).splitlines()
    assert [row.split("|")[1].strip() for row in table[3:]] == [
        "bare engine, forgetting between turns, s",
        "bare engine, s",
        "service, s",
    ]


def test_a_step_alone_takes_time(engine: Here) -> None:
    assert engine._engine.answer({"step": [2, 20]}) > 0
    assert set(engine._engine.answer({"sums": True})) == {"steps", "prompts", "bound", "choosing", "copying"}


class Counting:
    """A peer that writes numbers, two texts at once."""

    def __init__(self) -> None:
        self.open: dict[int, int] = {}
        self.most = 0

    def room(self) -> bool:
        return len(self.open) < 2

    def begin(self, number: int, ids: list[int], max_tokens: int) -> None:
        self.open[number] = 10 * ids[0]
        self.most = max(self.most, len(self.open))

    def step(self) -> list[tuple[int, int]]:
        for number in self.open:
            self.open[number] += 1
        return list(self.open.items())

    def end(self, number: int) -> None:
        del self.open[number]


def test_a_peer_writes_what_has_room_and_stops_at_stops() -> None:
    """Three streams, two at once, and one that comes by itself."""
    jobs = [Job("", (number,), 3, after=0.01 if number == 4 else 0.0) for number in range(5)]
    peer = Counting()
    told = peer_write(peer, {"jobs": [job.line() for job in jobs], "streams": 3, "stops": [23]})
    assert [text["tokens"] for text in told["texts"]] == [[1, 2, 3], [11, 12, 13], [21, 22], [31, 32, 33], [41, 42, 43]]
    assert peer.most == 2
    assert not peer.open
    assert told["texts"][4]["sent"] == 0.01


def test_rates_count_tokens_and_leave_out_the_reading_of_prompts() -> None:
    """Two texts of three tokens: a second is read, two are written."""
    jobs = [Job("", (1,), 3), Job("", (1,), 3)]
    texts = [Text(0.0, 0.0, [0.5, 2.0, 3.0], count=3), Text(0.0, 0.0, [1.0, 2.0, 3.0], count=3)]
    wave = Wave(jobs, texts, 3.0)
    assert wave.rate == 2.0
    assert wave.decode_rate == 2.0
    assert texts[0].first_seconds == 0.5
    assert texts[0].gap_seconds == 1.5


def test_a_wave_in_which_nothing_came_is_an_error() -> None:
    text = {"sent": 0.0, "began": 0.0, "at": [], "tokens": []}
    with pytest.raises(RuntimeError, match="nothing came of 1 of 1 prompts"):
        Wave.of([Job("?", (1,), 3)], {"texts": [text], "seconds": 1.0})


def test_spans_that_overlap_become_one() -> None:
    assert merged([(2, 3), (0, 1), (0.5, 1.5)]) == [(0, 1.5), (2, 3)]


def test_a_part_is_replaced_and_the_others_stay_in_order(tmp_path: Path) -> None:
    """Each part may be measured on a day of its own."""
    page = tmp_path / "page.md"
    written = deque(["rest", "streams", "streams"])
    while written:
        write(page, part := written.popleft(), f"## {part.capitalize()}\n\n{len(written)}")
    text = page.read_text(encoding="utf-8")
    assert text.index("## Streams\n\n0") < text.index("## Rest\n\n2")
    assert next(iter(PARTS)) == "streams"
