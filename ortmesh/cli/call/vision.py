"""`ortmesh call vision`: tasks on pictures. Stage: command line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from ortmesh.cli.answers import bar, print_beginning, print_json, print_model, table
from ortmesh.cli.call.numbers import int32
from ortmesh.cli.console import fail, out
from ortmesh.cli.cosines import cosine_table
from ortmesh.cli.failures import call_errors_in_words
from ortmesh.cli.options import ADDRESS, TIMEOUT, Address, InputFile, InputFiles, Json, Model, Timeout, read
from ortmesh.client import Client
from ortmesh.common.v1 import common_pb2
from ortmesh.vision.v1 import vision_pb2

Points = Sequence[tuple[float, float]]

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
    request = vision_pb2.ClassifyRequest(model=model, image=_image(file), max_results=int32(max_results))
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


@app.command()
def detect(
    file: InputFile,
    save: Annotated[Path | None, typer.Option(dir_okay=False, help="Write the picture with its boxes here.")] = None,
    max_results: Annotated[int, typer.Option("--max", help="How many things, 1 to 1,000; 0 means 100.")] = 0,
    min_score: Annotated[float, typer.Option(help="Leave out things below this score; 0 means the model's own.")] = 0.0,
    model: Model = "",
    address: Address = ADDRESS,
    timeout: Timeout = TIMEOUT,
    as_json: Json = False,
) -> None:
    """Find things in a picture: faces, by the default model.

    \b
    [bold]Example[/bold]
      ortmesh call vision detect group.jpg --save out.png
    """
    content = read(file)
    image = vision_pb2.Image(encoded=content)
    request = vision_pb2.DetectRequest(model=model, image=image, max_results=int32(max_results), min_score=min_score)
    with call_errors_in_words(address, as_json=as_json), Client(address, timeout_seconds=timeout) as mesh:
        answer = mesh.vision.Detect(request)
    if save is not None:
        landmarks = [(point.x, point.y) for each in answer.detections for point in each.landmarks]
        _save(content, [_corners(each.box) for each in answer.detections], landmarks, save)
    if as_json:
        print_json(answer)
        return
    print_model(answer.model)
    numbers = ["SCORE", "X", "Y", "WIDTH", "HEIGHT"]
    listing = table("NAME", *numbers, right=numbers)
    for each in answer.detections:
        box = each.box
        sides = (box.x_min, box.y_min, box.x_max - box.x_min, box.y_max - box.y_min)
        listing.add_row(escape(each.name), f"{each.score:.2f}", *(f"{side:.0f}" for side in sides))
    out.print(listing if answer.detections else "nothing was found")
    _say_frames(answer.image)
    if save is not None:
        out.print(f"the boxes are drawn in {save}", style="dim", soft_wrap=True)


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
        _save(content, [[(point.x, point.y) for point in line.corners] for line in answer.lines], [], save)
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


def _corners(box: common_pb2.Box) -> Points:
    return [(box.x_min, box.y_min), (box.x_max, box.y_min), (box.x_max, box.y_max), (box.x_min, box.y_max)]


def _save(content: bytes, outlines: Sequence[Points], dots: Points, target: Path) -> None:
    try:
        from ortmesh.cli.outlines import draw
    except ModuleNotFoundError as error:
        fail(f"--save needs {error.name}: pip install 'ortmesh[vision]'")
    try:
        draw(content, outlines, dots, target)
    except (OSError, ValueError) as error:
        fail(f"{target} could not be written: {error}")
