"""The terminal: inputs beside answers, in tables. Stage: output."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from demo.answers import (
    Answers,
    Compared,
    Detected,
    Dictated,
    ReadPage,
    Recognized,
    Searched,
    SpeechFound,
    Spoken,
    Told,
    VoicesCompared,
)
from demo.models import MIB, Models
from ortmesh.cli.answers import table


def show_models(console: Console, models: Models) -> None:
    """What is in the store now."""
    made = _table("model", "for", ">size", "licence", "")
    for had in models.had:
        card = had.card
        tasks = ", ".join(card.tasks) or "a partner of another"
        size = f"{had.nbytes / MIB:.1f} MiB"
        made.add_row(
            card.name, f"{card.family}: {tasks}", size, card.license.weights, "fetched" if had.new else "was there"
        )
    console.print(made)


def show(console: Console, answers: Answers) -> None:
    """Every answer that there is."""
    for made in _tables(answers):
        console.print()
        console.print(made)


def _tables(answers: Answers) -> list[Table]:
    made = [
        _what_is_seen(answers),
        _what_is_found(answers),
        _what_is_read(answers),
        _what_is_heard(answers),
        _refusals(answers),
    ]
    if answers.compared:
        made.insert(1, _similarities(answers.compared))
    if answers.spoken:
        made.insert(-1, _what_is_spoken(answers.spoken))
    if answers.dictated:
        made.insert(-1, _what_is_dictated(answers.dictated))
    if answers.speech_found:
        made.insert(-1, _when_somebody_speaks(answers.speech_found))
    if answers.voices:
        made.insert(-1, _voices(answers.voices))
    if answers.ranked:
        made.insert(-1, _ranking(answers))
    if answers.told:
        made.insert(-1, _languages(answers.told))
    if answers.searched:
        made.insert(-1, _entities(answers.searched))
    if answers.written:
        made.insert(-1, _what_is_written(answers))
    if answers.tensors:
        made.insert(-1, _tensors(answers))
    return [each for each in made if each.row_count]


def _what_is_seen(answers: Answers) -> Table:
    made = _table("picture", "labels", ">time", title="Classify: what a picture shows")
    for each in answers.classified:
        labels = ", ".join(f"{name} {score:.2f}" for name, score in each.labels)
        made.add_row(each.picture.title, labels, took(each.came.seconds))
    return made


def _similarities(compared: Compared) -> Table:
    names = [picture.title for picture in compared.pictures]
    title = f"Embed: how alike pictures are ({compared.dimension} numbers each, {took(compared.came.seconds)} for all)"
    made = _table("", *(f">{name}" for name in names), title=title)
    for name, row in zip(names, compared.similarities, strict=True):
        made.add_row(name, *(Text(f"{value:.2f}", "bold green" if value > 0.5 else "dim") for value in row))
    return made


def _what_is_found(answers: Answers) -> Table:
    made = _table("picture", "faces", ">time", title="Detect: where faces are")
    for each in answers.detected:
        made.add_row(each.picture.title, whereabouts(each), took(each.came.seconds))
    return made


def _what_is_read(answers: Answers) -> Table:
    made = _table("written", "read", ">score", ">time", title="ReadText: the lines of a page")
    for each in answers.read:
        for row, line in enumerate(each.lines):
            written = each.page.lines[row] if row < len(each.page.lines) else ""
            made.add_row(written, line.text, f"{line.score:.2f}", took(each.came.seconds) if row == 0 else "")
        made.add_row("", Text(characters(each), "dim"), "", "", end_section=True)
    return made


def _what_is_heard(answers: Answers) -> Table:
    made = _table("said (synthesized)", "recognized", ">audio", ">time", title="Recognize: what is said")
    for each in answers.recognized:
        length, took_ = f"{each.recording.seconds:.1f} s", took(each.came.seconds)
        made.add_row(each.recording.text, f"{each.transcript}\n[dim]{heard(each)}[/]", length, took_)
    return made


def _what_is_spoken(each: Spoken) -> Table:
    first = f"first audio after {took(each.first_seconds)}"
    made = _table("written", "recognized again", ">audio", ">time", title=f"Synthesize: a text spoken aloud ({first})")
    made.add_row(each.recording.text, each.transcript, f"{each.recording.seconds:.1f} s", took(each.came.seconds))
    return made


def _what_is_dictated(each: Dictated) -> Table:
    seconds = each.talk.recording.seconds
    title = f"StreamingRecognize: what is said, while it is said ({seconds:.1f} s in {took(each.came.seconds)})"
    made = _table(">heard", "so far, and in bold once it has ended", title=title)
    for at, text, is_result in each.lines:
        made.add_row(f"{at:.1f} s", Text(text, "bold" if is_result else "dim"), end_section=is_result)
    return made


def _when_somebody_speaks(each: SpeechFound) -> Table:
    seconds = each.talk.recording.seconds
    title = f"DetectSpeech: when somebody speaks ({seconds:.1f} s of audio in {took(each.came.seconds)})"
    made = _table("", "speech and pauses", "seconds", title=title)
    for name, stretches in (("said", each.talk.spoken), ("detected", each.intervals)):
        made.add_row(name, Text(track(stretches, seconds), "green"), spans(stretches))
    return made


def _voices(compared: VoicesCompared) -> Table:
    names = [voice.title for voice in compared.voices]
    title = f"EmbedSpeaker: whose voice ({compared.dimension} numbers each, {took(compared.came.seconds)} for all)"
    made = _table("", *(f">{name}" for name in names), title=title)
    for name, row in zip(names, compared.similarities, strict=True):
        made.add_row(name, *(Text(f"{value:.2f}", "bold green" if value > 0.8 else "dim") for value in row))
    return made


def _ranking(answers: Answers) -> Table:
    assert answers.ranked is not None
    ranked = answers.ranked
    made = _table(
        f'"{ranked.question}"', ">cosine", title=f"Embed: which passage answers ({took(ranked.came.seconds)} for all)"
    )
    for passage, cosine in ranked.passages:
        made.add_row(Text(passage, "bold green" if cosine > 0.3 else ""), f"{cosine:.2f}")
    return made


def _languages(told: Told) -> Table:
    title = f"DetectLanguage: which language texts are in ({took(told.came.seconds)} for all)"
    made = _table("text", "language", ">score", title=title)
    for text, name, score in told.languages:
        made.add_row(text, name, f"{score:.2f}")
    return made


def _entities(searched: Searched) -> Table:
    title = f"FindEntities: personal data in a letter ({took(searched.came.seconds)})"
    made, listed, letter = _table("letter", title=title), _table("what", "which", "by"), Text(searched.letter.strip())
    for each in searched.entities:
        letter.stylize("bold green", each.start, each.end)
        listed.add_row(each.type, Text(each.text), each.by)
    made.add_column("found")
    made.add_row(letter, listed)
    return made


def _what_is_written(answers: Answers) -> Table:
    made = _table("asked", "written", ">tokens", ">first", ">time", title="Generate: a text as it is written")
    for each in answers.written:
        asked = f"{each.asked}\n{each.form}".rstrip()
        made.add_row(Text(asked), Text(each.text), f"{each.tokens}", took(each.first_seconds), took(each.came.seconds))
    return made


def _tensors(answers: Answers) -> Table:
    assert answers.tensors is not None
    asked = answers.tensors
    made = _table(
        "sent",
        "got",
        "highest logit",
        ">time",
        title=f"Open Inference Protocol, with {asked.client}: any model by its tensors",
    )
    made.add_row(asked.sent, "\n".join(asked.got), asked.best, took(asked.came.seconds))
    return made


def _refusals(answers: Answers) -> Table:
    made = _table(
        "request", "code, reason, field", "what the caller is told", title="Errors: what, where, and what to do"
    )
    for each in answers.refused:
        made.add_row(each.what, "\n".join([each.code, each.reason, *each.fields]), each.message)
    return made


def whereabouts(each: Detected) -> str:
    """What was found in a picture, and where, in words."""
    things = [f"{one.score:.2f} at {one.box[0]:.0f}, {one.box[1]:.0f}" for one in each.things]
    return f"{len(things)} found: {'; '.join(things)}" if things else "none"


def characters(each: ReadPage) -> str:
    """How much of a page was read wrongly, in words."""
    return f"{each.error_rate:.1%} of the characters are wrong" if each.error_rate else "every character is right"


def heard(each: Recognized) -> str:
    """How much of a recording was heard wrongly, in words."""
    return f"{each.error_rate:.0%} of the words are wrong" if each.error_rate else "every word is right"


def track(stretches: Sequence[tuple[float, float]], seconds: float, width: int = 40) -> str:
    """Stretches of time as a bar of blocks and dots."""
    middles = ((place + 0.5) * seconds / width for place in range(width))
    return "".join("█" if any(start <= at < end for start, end in stretches) else "·" for at in middles)


def spans(stretches: Sequence[tuple[float, float]]) -> str:
    """Stretches of time in seconds, in words."""
    return ", ".join(f"{start:.1f} to {end:.1f}" for start, end in stretches) or "none"


def took(seconds: float) -> str:
    """A time as a person reads it."""
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1000:.0f} ms"


def _table(*columns: str, title: str = "") -> Table:
    """A table; a column whose name begins with > holds numbers."""
    names = [column.removeprefix(">") for column in columns]
    made = table(*names, right=[column[1:] for column in columns if column.startswith(">")])
    made.title, made.title_justify, made.title_style = title or None, "left", "bold"
    return made


def times(answers: Answers) -> Sequence[float]:
    """The times of all calls, in seconds."""
    lists = (answers.classified, answers.detected, answers.read, answers.recognized, answers.written, answers.refused)
    single = (
        answers.compared,
        answers.spoken,
        answers.dictated,
        answers.speech_found,
        answers.voices,
        answers.ranked,
        answers.told,
        answers.searched,
        answers.tensors,
    )
    came = [each.came for several in lists for each in several] + [each.came for each in single if each is not None]
    return [each.seconds for each in came]
