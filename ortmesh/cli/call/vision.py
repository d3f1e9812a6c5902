"""`ortmesh call vision`: tasks on pictures. Stage: command line."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from ortmesh.cli.answers import bar, print_beginning, print_json, print_model, table
from ortmesh.cli.console import fail, out
from ortmesh.cli.cosines import cosine_table
from ortmesh.cli.failures import call_errors_in_words
from ortmesh.cli.options import ADDRESS, TIMEOUT, Address, InputFile, InputFiles, Json, Model, Timeout, read
from ortmesh.client import Client
from ortmesh.vision.v1 import vision_pb2

app = typer.Typer(no_args_is_help=True, rich_markup_mode="rich", help="Tasks on pictures.")


@app.command()
def classify(
    file: InputFile,
    max_results: Annotated[int, typer.Option("--max", help="How many labels, 1 to 1,000.")] = 5,
    model: Model = "",
    address: Address = ADDRESS,
    timeout: Timeout = TIMEOUT,
    as_json: Json = False,
) -> None:
    """Say what a picture shows, best first.

    \b
    [bold]Example[/bold]
      ortmesh call vision classify cup.jpg --max 3
    """
    request = vision_pb2.ClassifyRequest(model=model, image=_image(file), max_results=max_results)
    with call_errors_in_words(address, as_json=as_json), Client(address, timeout_seconds=timeout) as mesh:
        answer = mesh.vision.Classify(request)
    if as_json:
        print_json(answer)
        return
    print_model(answer.model)
    listing = table("LABEL", "SCORE", "", right=["SCORE"])
    for label in answer.labels:
        listing.add_row(escape(label.name), f"{label.score:.3f}", bar(label.score))
    out.print(listing)
    _say_frames(answer.image)


@app.command()
def embed(
    files: InputFiles,
    model: Model = "",
    address: Address = ADDRESS,
    timeout: Timeout = TIMEOUT,
    as_json: Json = False,
) -> None:
    """Turn pictures into vectors and show how alike they are, as cosines.

    \b
    [bold]Example[/bold]
      ortmesh call vision embed cat.jpg dog.jpg car.jpg
    """
    request = vision_pb2.EmbedRequest(model=model, images=[_image(file) for file in files])
    with call_errors_in_words(address, as_json=as_json), Client(address, timeout_seconds=timeout) as mesh:
        answer = mesh.vision.Embed(request)
    if as_json:
        print_json(answer)
        return
    print_model(answer.model)
    for file, result in zip(files, answer.results, strict=True):
        if result.HasField("error"):
            out.print(f"[red]no vector[/red] for {escape(str(file))}: {escape(result.error.message)}")
    vectors = [result.embedding.values if result.HasField("embedding") else None for result in answer.results]
    if len(files) > 1:
        out.print(cosine_table([file.name for file in files], vectors))
    elif vectors[0] is not None:
        print_beginning(answer.results[0].embedding)


@app.command("read-text")
def read_text(
    file: InputFile,
    save: Annotated[
        Path | None, typer.Option(dir_okay=False, help="Write the picture with its lines' outlines here.")
    ] = None,
    min_score: Annotated[float, typer.Option(help="Leave out lines below this score; 0 means 0.5.")] = 0.0,
    model: Model = "",
    address: Address = ADDRESS,
    timeout: Timeout = TIMEOUT,
    as_json: Json = False,
) -> None:
    """Read the printed text of a page, a sign or a screenshot, line by line.

    \b
    [bold]Example[/bold]
      ortmesh call vision read-text page.png --save out.png
    """
    content = read(file)
    image = vision_pb2.Image(encoded=content)
    request = vision_pb2.ReadTextRequest(model=model, image=image, min_score=min_score)
    with call_errors_in_words(address, as_json=as_json), Client(address, timeout_seconds=timeout) as mesh:
        answer = mesh.vision.ReadText(request)
    if save is not None:
        _save_outlines(content, answer, save)
    if as_json:
        print_json(answer)
        return
    print_model(answer.model)
    listing = table("SCORE", "X", "Y", "TEXT", right=["SCORE", "X", "Y"])
    for line in answer.lines:
        listing.add_row(f"{line.score:.2f}", f"{line.box.x_min:.0f}", f"{line.box.y_min:.0f}", escape(line.text))
    out.print(listing if answer.lines else "no text")
    _say_frames(answer.image)
    if save is not None:
        out.print(f"the outlines are drawn in {save}", style="dim", soft_wrap=True)


def _image(file: Path) -> vision_pb2.Image:
    return vision_pb2.Image(encoded=read(file))


def _say_frames(image: vision_pb2.ImageInfo) -> None:
    if image.frames > 1:
        out.print(f"the file has {image.frames} frames or pages; the first was read", style="yellow")


def _save_outlines(content: bytes, answer: vision_pb2.ReadTextResponse, target: Path) -> None:
    try:
        from ortmesh.cli.outlines import draw
    except ModuleNotFoundError as error:
        fail(f"--save needs {error.name}: pip install 'ortmesh[vision]'")
    try:
        draw(content, [[(point.x, point.y) for point in line.corners] for line in answer.lines], target)
    except (OSError, ValueError) as error:
        fail(f"{target} could not be written: {error}")
