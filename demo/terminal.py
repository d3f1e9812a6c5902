"""The terminal: inputs beside answers, in tables. Stage: output."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from demo.answers import Answers, Compared, ReadPage, Recognized
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
    made = [_what_is_seen(answers), _what_is_read(answers), _what_is_heard(answers), _refusals(answers)]
    if answers.compared:
        made.insert(1, _similarities(answers.compared))
    if answers.ranked:
        made.insert(-1, _ranking(answers))
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


def _ranking(answers: Answers) -> Table:
    assert answers.ranked is not None
    ranked = answers.ranked
    made = _table(
        f'"{ranked.question}"', ">cosine", title=f"Embed: which passage answers ({took(ranked.came.seconds)} for all)"
    )
    for passage, cosine in ranked.passages:
        made.add_row(Text(passage, "bold green" if cosine > 0.3 else ""), f"{cosine:.2f}")
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


def characters(each: ReadPage) -> str:
    """How much of a page was read wrongly, in words."""
    return f"{each.error_rate:.1%} of the characters are wrong" if each.error_rate else "every character is right"


def heard(each: Recognized) -> str:
    """How much of a recording was heard wrongly, in words."""
    return f"{each.error_rate:.0%} of the words are wrong" if each.error_rate else "every word is right"


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
    lists = (answers.classified, answers.read, answers.recognized, answers.refused)
    single = (answers.compared, answers.ranked, answers.tensors)
    came = [each.came for several in lists for each in several] + [each.came for each in single if each is not None]
    return [each.seconds for each in came]
