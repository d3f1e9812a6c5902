"""The page: one HTML file with all inputs and answers in it, which needs nothing from anywhere. Stage: output."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from datetime import datetime
from html import escape
from importlib.resources import files

import ortmesh
from demo.answers import (
    Answers,
    Came,
    Classified,
    Compared,
    Detected,
    Dictated,
    Ranked,
    ReadPage,
    Recognized,
    Refused,
    Searched,
    SpeechFound,
    Spoken,
    Tensors,
    Thing,
    Told,
    VoicesCompared,
    Written,
)
from demo.inputs import Picture, Recording
from demo.models import MIB, Had, Models
from demo.terminal import characters, heard, spans, took, whereabouts


def render(answers: Answers, models: Models, made: datetime) -> str:
    """The whole page."""
    style = files("demo").joinpath("page.css").read_text(encoding="utf-8")
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>ortmesh: the demo</title>
<style>
{style}
</style>
</head>
<body>
<header>
<h1>ortmesh</h1>
<p>Models for vision, speech and language behind one gateway, on this machine. Every answer below came over gRPC
from the mesh that <code>ortmesh up</code> starts.</p>
<p class="fine">Version {escape(ortmesh.__version__)} · {made:%Y-%m-%d %H:%M} · times are what the caller waited,
gateway included; the first call of a kind also warms caches</p>
</header>
<main>
{"".join(_sections(answers))}
{_models(models)}
</main>
</body>
</html>
"""


def _sections(answers: Answers) -> Iterable[str]:
    if answers.classified:
        yield _section("What a picture shows", "VisionService.Classify", _grid(map(_classified, answers.classified)))
    if answers.compared:
        yield _section("How alike pictures are", "VisionService.Embed", _compared(answers.compared))
    if answers.detected:
        yield _section("Where faces are", "VisionService.Detect", _grid(map(_detected, answers.detected), wide=True))
    if answers.read:
        yield _section("What is written", "VisionService.ReadText", _grid(map(_read, answers.read), wide=True))
    if answers.recognized:
        yield _section(
            "What is said", "SpeechService.Recognize", _grid(map(_recognized, answers.recognized), wide=True)
        )
    if answers.spoken:
        yield _section("A text spoken aloud", "SpeechService.Synthesize", _spoken(answers.spoken))
    if answers.dictated:
        yield _section(
            "What is said, while it is said", "SpeechService.StreamingRecognize", _dictated(answers.dictated)
        )
    if answers.speech_found:
        yield _section("When somebody speaks", "SpeechService.DetectSpeech", _speech_found(answers.speech_found))
    if answers.voices:
        yield _section("Whose voice", "SpeechService.EmbedSpeaker", _voices(answers.voices))
    if answers.ranked:
        yield _section("Which passage answers", "NlpService.Embed", _ranked(answers.ranked))
    if answers.told:
        yield _section("Which language", "NlpService.DetectLanguage", _told(answers.told))
    if answers.searched:
        yield _section("Personal data in a letter", "NlpService.FindEntities", _searched(answers.searched))
    if answers.written:
        yield _section("What is said next", "NlpService.Generate", _grid(map(_written, answers.written), wide=True))
    if answers.tensors:
        yield _section("Any model by its tensors", "GRPCInferenceService.ModelInfer", _tensors(answers.tensors))
    if answers.refused:
        about = "Errors name the field and say what to do"
        yield _section(about, "VisionService.Classify", _grid(map(_refused, answers.refused), wide=True))


def _section(title: str, method: str, content: str) -> str:
    return f"<section>\n<h2>{escape(title)} <code>{escape(method)}</code></h2>\n{content}\n</section>\n"


def _grid(cards: Iterable[str], *, wide: bool = False) -> str:
    return f'<div class="grid{" wide" if wide else ""}">\n{"".join(cards)}</div>'


def _classified(each: Classified) -> str:
    bars = "".join(_bar(name, score, f"{score:.3f}") for name, score in each.labels)
    return f"<article>{_figure(each.picture)}{bars}{_came(each.came)}</article>\n"


def _compared(each: Compared) -> str:
    head = "".join(f"<th>{_thumbnail(picture)}</th>" for picture in each.pictures)
    rows = "".join(
        f'<tr><th scope="row">{_thumbnail(picture)}<span>{escape(picture.title)}</span></th>{_cells(cosines)}</tr>'
        for picture, cosines in zip(each.pictures, each.similarities, strict=True)
    )
    table = f'<div class="scroll"><table class="matrix"><tr><td></td>{head}</tr>{rows}</table></div>'
    about = f"<p>Cosines of vectors of {each.dimension:,} numbers; 1 is the same picture.</p>"
    return f"<article>{table}{about}{_came(each.came)}</article>"


def _cells(cosines: Sequence[float]) -> str:
    return "".join(f'<td style="--share:{min(max(cosine, 0), 1) * 100:.0f}%">{cosine:.2f}</td>' for cosine in cosines)


def _detected(each: Detected) -> str:
    overlay = _overlay(each.picture, "".join(map(_thing, each.things)))
    return f"<article>{_figure(each.picture, overlay)}<p>{whereabouts(each)}</p>{_came(each.came)}</article>\n"


def _thing(each: Thing) -> str:
    left, top, right, bottom = each.box
    dots = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{(right - left) / 30:.1f}"/>' for x, y in each.landmarks)
    size = f'width="{right - left:.1f}" height="{bottom - top:.1f}"'
    title = f"<title>{escape(each.name)} ({each.score:.2f})</title>"
    return f'<rect x="{left:.1f}" y="{top:.1f}" {size}>{title}</rect>{dots}'


def _read(each: ReadPage) -> str:
    picture = each.page.picture
    boxes = "".join(
        f'<polygon points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in line.corners)}">'
        f"<title>{escape(line.text)} ({line.score:.2f})</title></polygon>"
        for line in each.lines
    )
    lines = "".join(f"<li>{escape(line.text)}</li>" for line in each.lines)
    text = f'<ol class="lines" lang="{each.page.language}">{lines}</ol><p>{characters(each)}</p>'
    return f"<article>{_figure(picture, _overlay(picture, boxes))}{text}{_came(each.came)}</article>\n"


def _recognized(each: Recognized) -> str:
    audio = f'<audio controls preload="metadata" src="{_data("audio/wav", each.recording.encoded)}"></audio>'
    said = f"<dl><dt>said</dt><dd>{escape(each.recording.text)}</dd>"
    got = f"<dt>recognized</dt><dd>{escape(each.transcript)}</dd></dl>"
    about = (
        f"<p>{heard(each)}, confidence {each.confidence:.2f}; {each.recording.seconds:.1f} s of synthesized speech</p>"
    )
    return f"<article>{_waveform(each.recording)}{audio}{said}{got}{about}{_came(each.came)}</article>\n"


def _spoken(each: Spoken) -> str:
    audio = f'<audio controls preload="metadata" src="{_data("audio/wav", each.recording.encoded)}"></audio>'
    written = f"<dl><dt>written</dt><dd>{escape(each.recording.text)}</dd>"
    got = f"<dt>recognized</dt><dd>{escape(each.transcript)}</dd></dl>" if each.transcript else "</dl>"
    about = f"<p>{each.recording.seconds:.1f} s of speech; the first of it came after {took(each.first_seconds)}</p>"
    return f"<article>{_waveform(each.recording)}{audio}{written}{got}{about}{_came(each.came)}</article>"


def _dictated(each: Dictated) -> str:
    lines = "".join(
        f"<dt>{seconds:.1f} s</dt><dd>{f'<b>{escape(text)}</b>' if is_result else escape(text)}</dd>"
        for seconds, text, is_result in each.lines
    )
    about = "<p>Each line is what was known once so much was heard; bold: once a pause had ended it.</p>"
    return f"<article><dl>{lines}</dl>{about}{_came(each.came)}</article>"


def _speech_found(each: SpeechFound) -> str:
    recording = each.talk.recording
    audio = f'<audio controls preload="metadata" src="{_data("audio/wav", recording.encoded)}"></audio>'
    said, detected = (_track(stretches, recording.seconds) for stretches in (each.talk.spoken, each.intervals))
    rows = (("", _waveform(recording)), ("said", said), ("detected", detected))
    tracks = "".join(f"<dt>{name}</dt><dd>{drawn}</dd>" for name, drawn in rows)
    about = f"<p>Speech: {spans(each.intervals)} of {recording.seconds:.1f} s; pauses under 0.5 s do not count.</p>"
    return f'<article><dl class="tracks">{tracks}</dl>{audio}{about}{_came(each.came)}</article>'


def _voices(each: VoicesCompared) -> str:
    head = "".join(f"<th>{escape(voice.title)}</th>" for voice in each.voices)
    rows = "".join(
        f'<tr><th scope="row"><span>{escape(voice.title)}</span></th>{_cells(cosines)}</tr>'
        for voice, cosines in zip(each.voices, each.similarities, strict=True)
    )
    table = f'<div class="scroll"><table class="matrix"><tr><td></td>{head}</tr>{rows}</table></div>'
    about = f"<p>Cosines of vectors of {each.dimension} numbers; of one voice they are above 0.8, mostly.</p>"
    sounds = "".join(
        f"<p>{escape(voice.title)}: <q>{escape(voice.recording.text)}</q></p>"
        f'<audio controls preload="metadata" src="{_data("audio/wav", voice.recording.encoded)}"></audio>'
        for voice in each.voices
    )
    return f"<article>{table}{about}{sounds}{_came(each.came)}</article>"


def _track(stretches: Sequence[tuple[float, float]], seconds: float) -> str:
    bars = "".join(
        f'<rect x="{start:.2f}" width="{end - start:.2f}" height="1"><title>{start:.2f} to {end:.2f} s</title></rect>'
        for start, end in stretches
    )
    return f'<svg class="track" viewBox="0 0 {seconds:.2f} 1" preserveAspectRatio="none">{bars}</svg>'


def _waveform(recording: Recording) -> str:
    lines = "".join(
        f'<path d="M{x + 0.5} {20 - 19 * height:.1f}V{20 + 19 * height:.1f}"/>'
        for x, height in enumerate(recording.loudness)
    )
    count = len(recording.loudness)
    return f'<svg class="wave" viewBox="0 0 {count} 40" preserveAspectRatio="none" aria-hidden="true">{lines}</svg>'


def _ranked(each: Ranked) -> str:
    bars = "".join(_bar(passage, cosine, f"{cosine:.2f}") for passage, cosine in each.passages)
    about = f"<p>Cosines of vectors of {each.dimension} numbers.</p>"
    return f"<article><blockquote>{escape(each.question)}</blockquote>{bars}{about}{_came(each.came)}</article>"


def _told(each: Told) -> str:
    bars = "".join(_bar(text, score, f"{name} {score:.2f}") for text, name, score in each.languages)
    return f"<article>{bars}{_came(each.came)}</article>"


def _searched(each: Searched) -> str:
    pieces, at = [], 0
    for found in each.entities:
        kind = f'<small class="{found.by}">{escape(found.type)}</small>'
        pieces += [escape(each.letter[at : found.start]), f"<mark>{escape(found.text)} {kind}</mark>"]
        at = found.end
    pieces.append(escape(each.letter[at:]))
    about = "<p>Framed types come from a pattern, checked where it has check digits, the others from the model.</p>"
    return f'<article><div class="letter">{"".join(pieces)}</div>{about}{_came(each.came)}</article>'


def _written(each: Written) -> str:
    form = f"<p>{escape(each.form)}</p>" if each.form else ""
    text = f"<pre>{escape(each.text)}</pre>" if each.form else f"<p>{escape(each.text)}</p>"
    about = f"<p>{each.tokens} tokens, the first after {took(each.first_seconds)}</p>"
    return f"<article><blockquote>{escape(each.asked)}</blockquote>{form}{text}{about}{_came(each.came)}</article>\n"


def _tensors(each: Tensors) -> str:
    got = "<br>".join(f"<code>{escape(tensor)}</code>" for tensor in each.got)
    return (
        f"<article><p>The Open Inference Protocol, asked with {escape(each.client)}: no task in between, so it serves "
        f"any ONNX file.</p><dl><dt>sent</dt><dd><code>{escape(each.sent)}</code> ({escape(each.picture.title)})</dd>"
        f"<dt>got</dt><dd>{got}</dd><dt>highest logit</dt><dd>{escape(each.best)}</dd></dl>{_came(each.came)}</article>"
    )


def _refused(each: Refused) -> str:
    badges = "".join(f"<code>{escape(text)}</code> " for text in (each.code, each.reason, *each.fields))
    return (
        f"<article><h3>{escape(each.what)}</h3><p class='badges'>{badges}</p><p>{escape(each.message)}</p>"
        f"{_came(each.came)}</article>\n"
    )


def _models(models: Models) -> str:
    rows = "".join(_model(had) for had in models.had)
    head = "<tr><th>model</th><th>for</th><th>size</th><th>licence of the weights</th><th>made by</th></tr>"
    table = f'<div class="scroll"><table>{head}{rows}</table></div>'
    missing = "".join(
        f"<p><strong>{escape(name)}</strong> could not be had: {escape(why)}</p>"
        for name, why in models.missing.items()
    )
    return f"<section>\n<h2>Who answered</h2>\n<article>{table}{missing}</article>\n</section>\n"


def _model(had: Had) -> str:
    card = had.card
    tasks = f"{card.family}: {', '.join(card.tasks)}" if card.tasks else f"{card.family}: a partner of another"
    cells = (card.key, tasks, f"{had.nbytes / MIB:.1f} MiB", card.license.weights, card.license.attribution)
    return f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>"


def _bar(name: str, share: float, text: str) -> str:
    width = min(max(share, 0), 1) * 100
    return f'<p class="bar" style="--share:{width:.1f}%"><span>{escape(name)}</span><b>{text}</b></p>'


def _figure(picture: Picture, overlay: str = "") -> str:
    image = f'<div class="stack">{_image(picture)}{overlay}</div>'
    return f"<figure>{image}<figcaption>{escape(picture.title)} · {escape(picture.source)}</figcaption></figure>"


def _overlay(picture: Picture, shapes: str) -> str:
    return f'<svg viewBox="0 0 {picture.width} {picture.height}" aria-hidden="true">{shapes}</svg>'


def _thumbnail(picture: Picture) -> str:
    return f'<span class="thumbnail">{_image(picture)}</span>'


def _image(picture: Picture) -> str:
    source = _data(picture.media_type, picture.encoded)
    return f'<img alt="{escape(picture.title)}" width="{picture.width}" height="{picture.height}" src="{source}">'


def _came(came: Came) -> str:
    return f'<p class="fine">{" · ".join(filter(None, (escape(came.model), took(came.seconds))))}</p>'


def _data(media_type: str, content: bytes) -> str:
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"
