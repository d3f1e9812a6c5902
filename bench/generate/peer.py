"""A peer: onnxruntime-genai or llama.cpp in a process of its own, in an environment of its own: a line of JSON asks, a
line answers.

    python peer.py generator|engine|llama PATH THREADS

It imports nothing of ours. `{"jobs": [{"ids", "max_tokens", "after"}, …], "streams": …, "stops": […]}` is answered by
`{"texts": [{"sent", "began", "at", "tokens"}, …], "seconds": …}`.
"""

import importlib
import json
import sys
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

SLOTS = 16
CONTEXT = 2048
BATCH = 512
"""Tokens that llama.cpp computes at once: its default for a run of its graph (`n_ubatch`)."""


class Writer(Protocol):
    """What writes texts side by side."""

    def room(self) -> bool:
        """Whether one more text may begin."""

    def begin(self, number: int, ids: list[int], max_tokens: int) -> None:
        """A text with this number."""

    def step(self) -> list[tuple[int, int | None]]:
        """(number, token) of those that have grown; no token of one that ended by itself."""

    def end(self, number: int) -> None:
        """No more is wanted of it."""


class Generator:
    """onnxruntime-genai's, which writes one text."""

    def __init__(self, path: str, threads: int) -> None:
        self._library, self._model = genai(path, threads)
        self._texts: dict[int, Any] = {}

    def room(self) -> bool:
        """When none is written."""
        return not self._texts

    def begin(self, number: int, ids: list[int], max_tokens: int) -> None:
        """Computes the prompt."""
        parameters = self._library.GeneratorParams(self._model)
        parameters.set_search_options(max_length=len(ids) + max_tokens, do_sample=False)
        text = self._library.Generator(self._model, parameters)
        text.append_tokens(ids)
        self._texts[number] = text

    def step(self) -> list[tuple[int, int | None]]:
        """One token."""
        ((number, text),) = self._texts.items()
        text.generate_next_token()
        return [(number, int(text.get_next_tokens()[0]))]

    def end(self, number: int) -> None:
        """Its memory goes back."""
        del self._texts[number]


class Engine:
    """onnxruntime-genai's, which writes several texts; how many at once is its business."""

    def __init__(self, path: str, threads: int) -> None:
        self._library, model = genai(path, threads)
        self._numpy = importlib.import_module("numpy")
        self._engine = self._library.Engine(model)
        self._events = self._engine.create_event_buffer(4 * SLOTS)
        self._texts: dict[int, Any] = {}

    def room(self) -> bool:
        """It has a queue of its own."""
        return True

    def begin(self, number: int, ids: list[int], max_tokens: int) -> None:
        """Into its queue."""
        options = self._library.RequestOptions()
        options.set_max_session_tokens(len(ids) + max_tokens)
        request = self._engine.create_request(options=options)
        turn = self._library.TurnOptions(request)
        turn.set_do_sample(False)
        turn.set_max_generated_tokens(max_tokens)
        request.begin_turn(self._numpy.array(ids, self._numpy.int32), turn)
        self._texts[number] = request

    def step(self) -> list[tuple[int, int | None]]:
        """What one run brought."""
        flags = self._library.EngineEventFlags
        grown: list[tuple[int, int | None]] = []
        for event in self._engine.run(self._events):
            if event.flags & flags.FAILED:
                raise RuntimeError(f"onnxruntime-genai's engine failed: {event.error_code}")
            number = next((number for number, request in self._texts.items() if request is event.request), None)
            if number is None:
                continue
            if event.flags & flags.TOKEN:
                grown.append((number, int(event.token)))
            if event.flags & flags.TURN_FINISHED:
                grown.append((number, None))
        return grown

    def end(self, number: int) -> None:
        """Leaves it."""
        self._texts.pop(number).close()


class Llama:
    """llama.cpp's sequences side by side: in each run one token of all that grow, and prompts in the room behind them,
    as its own server does it."""

    def __init__(self, path: str, threads: int) -> None:
        self._library: Any = importlib.import_module("llama_cpp")
        self._numpy = importlib.import_module("numpy")
        library = self._library
        library.llama_backend_init()
        self._silent = library.llama_log_callback(lambda level, text, data: None)
        library.llama_log_set(self._silent, None)
        self._model = library.llama_model_load_from_file(path.encode(), library.llama_model_default_params())
        settings = library.llama_context_default_params()
        settings.n_ctx, settings.n_batch, settings.n_ubatch, settings.n_seq_max = SLOTS * CONTEXT, BATCH, BATCH, SLOTS
        settings.n_threads = settings.n_threads_batch = threads
        self._context = library.llama_init_from_model(self._model, settings)
        self._memory = library.llama_get_memory(self._context)
        self._vocabulary = library.llama_vocab_n_tokens(library.llama_model_get_vocab(self._model))
        self._batch = library.llama_batch_init(BATCH, 0, 1)
        self._free = list(range(SLOTS))
        self._slots: dict[int, int] = {}
        self._unread: dict[int, list[int]] = {}
        """Tokens to compute, of each text."""
        self._read: dict[int, int] = {}

    def room(self) -> bool:
        """While a sequence is free."""
        return bool(self._free)

    def begin(self, number: int, ids: list[int], max_tokens: int) -> None:
        """Takes a sequence."""
        self._slots[number], self._unread[number], self._read[number] = self._free.pop(), list(ids), 0

    def step(self) -> list[tuple[int, int | None]]:
        """One run: those that grow first, since they have one token each."""
        batch, last, filled = self._batch, {}, 0
        for number in sorted(self._unread, key=lambda number: len(self._unread[number]) > 1):
            unread = self._unread[number]
            taken = unread[: BATCH - filled]
            for token in taken:
                batch.token[filled], batch.pos[filled] = token, self._read[number]
                batch.n_seq_id[filled], batch.seq_id[filled][0] = 1, self._slots[number]
                batch.logits[filled] = False
                self._read[number] += 1
                filled += 1
            self._unread[number] = unread[len(taken) :]
            if taken and not self._unread[number]:
                batch.logits[filled - 1] = True
                last[number] = filled - 1
        batch.n_tokens = filled
        if code := self._library.llama_decode(self._context, batch):
            raise RuntimeError(f"llama_decode says {code}")
        return [(number, self._likeliest(number, place)) for number, place in last.items()]

    def end(self, number: int) -> None:
        """Gives its sequence back."""
        slot = self._slots.pop(number)
        self._library.llama_memory_seq_rm(self._memory, slot, -1, -1)
        self._free.append(slot)
        del self._unread[number], self._read[number]

    def _likeliest(self, number: int, place: int) -> int:
        logits = self._library.llama_get_logits_ith(self._context, place)
        token = int(self._numpy.ctypeslib.as_array(logits, (self._vocabulary,)).argmax())
        self._unread[number] = [token]
        return token


WRITERS: dict[str, Callable[[str, int], Writer]] = {"generator": Generator, "engine": Engine, "llama": Llama}


def genai(path: str, threads: int) -> tuple[Any, Any]:
    """The library and its model with so many threads."""
    library: Any = importlib.import_module("onnxruntime_genai")
    config = library.Config(path)
    config.overlay(json.dumps({"model": {"decoder": {"session_options": {"intra_op_num_threads": threads}}}}))
    return library, library.Model(config)


def write(writer: Writer, asked: Any) -> dict[str, Any]:
    """All jobs: so many streams at once, and beside them those that come by themselves."""
    jobs, stops = asked["jobs"], set(asked["stops"])
    waiting = deque(number for number, job in enumerate(jobs) if not job["after"])
    later = deque(sorted((n for n, job in enumerate(jobs) if job["after"]), key=lambda n: jobs[n]["after"]))
    queue: deque[int] = deque()
    growing: set[int] = set()
    texts: list[dict[str, Any]] = [{"sent": 0.0, "began": 0.0, "at": [], "tokens": []} for _ in jobs]
    streams, start = asked["streams"], time.perf_counter()

    def send(number: int, at: float) -> None:
        texts[number]["sent"] = at
        queue.append(number)

    while waiting or later or queue or growing:
        now = time.perf_counter() - start
        while later and jobs[later[0]]["after"] <= now:
            send(later[0], jobs[later.popleft()]["after"])
        busy = sum(not jobs[number]["after"] for number in (*queue, *growing))
        while waiting and busy < streams:
            send(waiting.popleft(), now)
            busy += 1
        while queue and writer.room():
            number = queue.popleft()
            texts[number]["began"] = time.perf_counter() - start
            writer.begin(number, jobs[number]["ids"], jobs[number]["max_tokens"])
            growing.add(number)
        if not growing:
            time.sleep(0.001)
            continue
        for number, token in writer.step():
            if number not in growing:
                continue
            at, text = time.perf_counter() - start, texts[number]
            ended = token is None or token in stops
            if not ended:
                text["at"].append(at)
                text["tokens"].append(token)
            if ended or len(text["tokens"]) == jobs[number]["max_tokens"]:
                writer.end(number)
                growing.discard(number)
    return {"texts": texts, "seconds": time.perf_counter() - start}


def main() -> None:
    """Answers until its input ends."""
    kind, path, threads = sys.argv[1], sys.argv[2], int(sys.argv[3])
    writer = WRITERS[kind](path, threads)
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        print(json.dumps(write(writer, json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
