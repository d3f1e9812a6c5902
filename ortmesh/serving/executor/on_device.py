"""OnDevice: batches on a GPU, with one copy each way and one wait a run. Stage: executor.

What is copied: items are stacked, and padded, right in pinned memory; from there they go to the GPU in one piece, in
the order of the session's stream, without waiting; the graph runs on the same stream; the outputs that somebody
wants come to pinned memory, in one piece; then the thread waits, once. What came is the answer: its memory serves
another run when nobody reads it any more. (ONNX Runtime's own ways, `run` and `bind_ortvalue_input`, copy from memory
that is not pinned, and wait for every tensor.)

What is prepared: the addresses of a shape's tensors are bound once, and used again whenever the shape comes again.
"""

from __future__ import annotations

from typing import NamedTuple

from ortmesh.serving.cards import MAX_RECORDED
from ortmesh.serving.executor.buckets import Buckets, cut, padded_shape, rows_and_size
from ortmesh.serving.executor.cuda import Memory, Stream, raw_of
from ortmesh.serving.executor.interruptible import UNRECORDED, InterruptibleSession
from ortmesh.serving.executor.lent import LEAST_BYTES, Lender
from ortmesh.serving.executor.quiet import QUIET
from ortmesh.serving.executor.recording import Recorder, Recording
from ortmesh.serving.executor.room import Bound, Plan, Room, Shapes
from ortmesh.serving.executor.stack import must_have_rows
from ortmesh.serving.signature import Signature
from ortmesh.serving.types import Array, Tensors

MAX_PLANS = 1024
"""Shapes whose bindings are kept, some kilobytes each: those of texts are lengths times rows."""
MOST_RECORDINGS = 4 * MAX_RECORDED
"""Ever: ONNX Runtime keeps the recordings of memory that was given back until the session ends."""
UNLIKE = ("shape verification failed", "computed output shape")
"""What ONNX Runtime says when an output has not the shape that it had before."""


class Recorded(NamedTuple):
    """One shape's memory at fixed addresses, and the run that is recorded on it."""

    room: Room
    plan: Plan
    recording: Recording


class Fit(NamedTuple):
    """A batch and its bucket."""

    rows: int
    size: int
    many: int
    """Rows of the bucket."""
    long: int
    """Size of the bucket."""


class Placed(NamedTuple):
    """Where the next run's inputs are written."""

    plan: Plan
    feeds: Tensors
    """What was given out, and may have got other arrays since."""
    places: Tensors


class OnDevice:
    """Runs feeds on a session of a GPU. By one thread at a time."""

    def __init__(
        self, session: InterruptibleSession, stream: Stream, signature: Signature, buckets: Buckets | None = None
    ) -> None:
        """With `buckets` runs of those shapes are recorded the second time and replayed from then on."""
        self._session = session
        self._stream = stream
        self._signature = signature
        self._buckets = buckets if session.records and signature.stackable else None
        places = zip(signature.inputs, session.input_devices(), strict=True)
        self._apart = {name for name, place in places if place.lower() != stream.kind}
        self._room = Room(stream)
        self._plans: dict[object, Plan] = {}
        self._lender = Lender(stream)
        self._small: Memory | None = None
        self._placed: Placed | None = None
        self._varies = False
        """True when outputs of the same inputs' shapes were found to differ in shape."""
        self._recordings: dict[object, Recorded] = {}
        self._shrunk = session.shrunk
        self._beyond = False
        """True when a run was too large to be recorded: then the arena holds more than recorded runs need."""
        self._recorder = Recorder(MOST_RECORDINGS)

    @property
    def note(self) -> str:
        """What an operator should know."""
        return self._recorder.note

    def places(self, shapes: Shapes, outputs: tuple[str, ...], *, pad: bool = True) -> dict[str, Array]:
        """Arrays of these shapes to write a batch into, of which these outputs are wanted. `run` must come next."""
        plan: Plan | None = None
        buckets = self._buckets
        if buckets is not None:
            try:
                fit = self._fit(shapes, buckets, pad)
                recorded = self._recorded(shapes, outputs, fit) if fit is not None else None
                plan = recorded.plan if recorded is not None else None
            except Exception as error:
                self._failed(error)
        if plan is None:
            with QUIET.using():
                plan = self._plan(shapes)
        feeds = plan.places(shapes)
        self._placed = Placed(plan, feeds, dict(feeds))
        return feeds

    def run(self, feeds: Tensors, outputs: tuple[str, ...], *, pad: bool = True) -> Tensors:
        """These outputs by name, in memory that is theirs as long as somebody holds them.

        Without `pad` no input is computed in a larger size than its own, and what is no bucket is not recorded.
        """
        placed, self._placed = self._placed, None
        written = placed if placed is not None and placed.feeds is feeds else None
        wrong: Exception | None = None
        buckets = self._buckets
        if buckets is not None:
            try:
                recorded = self._run_recorded(feeds, outputs, written, buckets, pad)
            except Exception as error:
                wrong, recorded = error, None
            if recorded is not None:
                return recorded
            self._beyond = True
        with QUIET.using():
            found = self._run(feeds, outputs, written)  # fails too when it is the request that is wrong
        if wrong is not None:
            self._failed(wrong)
        return found

    def record_no_more(self) -> None:
        """From the next run on all run as they are; from any thread. Recordings' memory goes at the next `shrink`."""
        self._buckets = None

    def shrink(self) -> None:
        """Gives back the memory of large runs. That of recorded ones stays, with the arena on which they compute,
        unless there were runs beside them: then they are recorded anew."""
        with QUIET.using():
            self._plans.clear()
            self._room.clear()
            self._lender.shrink()
            if self._beyond or self._buckets is None:
                self._recordings.clear()
        if not self._recordings:
            self._beyond = False
            self._session.shrink()

    def _run(self, feeds: Tensors, outputs: tuple[str, ...], written: Placed | None) -> Tensors:
        plan = self._plan({name: array.shape for name, array in feeds.items()})
        try:
            return self._compute(plan, self._room, feeds, outputs, written)
        except Exception as error:
            if self._varies or not any(words in str(error) for words in UNLIKE):
                raise
            self._varies = True  # its outputs get memory from the arena from now on
        return self._compute(plan, self._room, feeds, outputs, written)

    def _plan(self, shapes: Shapes) -> Plan:
        key = tuple(shapes.items())
        plan = self._plans.get(key)
        if plan is None or not plan.current:
            plan = self._planned(self._room, shapes)
            if len(self._plans) >= MAX_PLANS:
                del self._plans[next(iter(self._plans))]
            self._plans[key] = plan
        return plan

    def _planned(self, room: Room, shapes: Shapes) -> Plan:
        apart = [name for name in shapes if name in self._apart]
        return Plan(self._session, self._stream, self._signature, room, shapes, apart)

    def _run_recorded(
        self, feeds: Tensors, outputs: tuple[str, ...], written: Placed | None, buckets: Buckets, pad: bool
    ) -> Tensors | None:
        """None when runs of this shape are not recorded."""
        shapes = {name: array.shape for name, array in feeds.items()}
        fit = self._fit(shapes, buckets, pad)
        recorded = self._recorded(shapes, outputs, fit) if fit is not None else None
        if fit is None or recorded is None:
            return None
        try:
            found = self._replay(recorded, feeds, outputs, written)
        except Exception:
            self._recordings = {key: each for key, each in self._recordings.items() if each is not recorded}
            raise
        must_have_rows(found, fit.many, self._signature)
        return cut(found, self._signature, fit.rows, fit.size, fit.long)

    def _fit(self, shapes: Shapes, buckets: Buckets, pad: bool) -> Fit | None:
        """None when inputs of these shapes have no bucket."""
        known = rows_and_size(shapes, self._signature)
        if known is None:
            return None
        rows, size = known
        most_rows, most_size = buckets.largest
        if rows > most_rows or (most_size and size > most_size):
            return None
        many, long = buckets.fit(rows, size)
        if not pad and long != size and self._signature.padded:
            return None
        return Fit(rows, size, many, long)

    def _recorded(self, shapes: Shapes, outputs: tuple[str, ...], fit: Fit) -> Recorded | None:
        """Of the bucket for inputs of these shapes; None when no more are recorded."""
        if self._shrunk != self._session.shrunk:
            self._shrunk = self._session.shrunk
            with QUIET.using():
                self._recordings.clear()
        infos = self._signature.inputs
        padded = {name: padded_shape(infos[name], shape, fit.many, fit.long) for name, shape in shapes.items()}
        key = (outputs, *padded.items())
        found = self._recordings.get(key)
        if found is not None or len(self._recordings) >= MAX_RECORDED:
            return found
        recording = self._recorder.new(self._session)
        if recording is None:
            return None
        with QUIET.using():
            room = Room(self._stream)
            plan = self._planned(room, padded)
        if plan.apart:
            raise ValueError("an input is read on the CPU")
        found = self._recordings[key] = Recorded(room, plan, recording)
        return found

    def _replay(self, recorded: Recorded, feeds: Tensors, outputs: tuple[str, ...], written: Placed | None) -> Tensors:
        room, plan, recording = recorded
        return self._recorder.run(recording, lambda number: self._compute(plan, room, feeds, outputs, written, number))

    def _compute(
        self,
        plan: Plan,
        room: Room,
        feeds: Tensors,
        outputs: tuple[str, ...],
        written: Placed | None,
        number: int = UNRECORDED,
    ) -> Tensors:
        bound = plan.bound(outputs)
        kept = plan.bind_apart(bound, feeds) if plan.apart else ()
        bound.prepare(room, fixed=not self._varies)
        try:
            if written is not None and written.plan is plan:
                plan.send_placed(feeds, written.places)
            else:
                plan.send(feeds)
            self._session.begin_with_iobinding(bound.binding, number)
            found = self._read(bound, room)
        except Exception:
            self._stream.wait()  # what was begun still uses the memory of the next run
            raise
        del kept
        return found

    def _read(self, bound: Bound, room: Room) -> Tensors:
        """Waits, and gives out what came."""
        values = bound.values() if bound.in_arena else ()
        if bound.in_arena:
            bound.receive(values)
        large = bound.nbytes > LEAST_BYTES
        memory = self._lender.take(bound.nbytes) if large else self._small_block()
        bound.bring(memory.address, values)
        self._stream.wait()
        del values
        if bound.in_arena:
            self._settle(bound, room)
        root = self._lender.lend(memory) if large else None
        if root is not None:
            return bound.arrays(root)
        found = {name: array.copy() for name, array in bound.arrays(raw_of(memory)).items()}
        if large:
            self._lender.give(memory)
        return found

    def _settle(self, bound: Bound, room: Room) -> None:
        """After a run whose outputs came from the arena."""
        if self._varies:
            bound.release()
        else:
            bound.fix(room)

    def _small_block(self) -> Memory:
        if self._small is None:
            self._small = self._stream.pinned(LEAST_BYTES)
        return self._small

    def _failed(self, error: Exception) -> None:
        """After a recording failed."""
        if not self._recorder.goes_on(error):
            self._buckets = None
            self._recordings.clear()
