"""Shapes: what the records of Batteries hold. One that another hand made is refused in words, before anybody uses it.

In:    a file that `write_sealed` wrote, or one that says so.
Out:   its content; every value named here is of its type, others may be there too.
Next:  runs, checkpoints, entries and submissions are opened with it.
"""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from batteries.errors import CorruptError, NotSafeError, ResumeError
from batteries.files import read_sealed, safe_name


def _name(text: str) -> str:
    try:
        return safe_name(text)
    except NotSafeError as error:
        raise ValueError("it cannot be a name") from error


def _file(text: str) -> str:
    if text in ("", ".", "..") or set(text) & {"/", "\\", "\0"}:
        raise ValueError("it must be the name of a file, without a folder")
    return text


Name = Annotated[str, AfterValidator(_name)]
"""Of an entry, a stage, a file of ours: safe on any system."""
File = Annotated[str, AfterValidator(_file)]
"""Of a file of the user's in a folder that is known; never a path to somewhere else."""
Count = Annotated[int, Field(ge=0)]
Digits = Annotated[int, Field(ge=1, le=17)] | None


class Shape(BaseModel):
    """A JSON object whose values are what they say: no text for a number, no number for a truth value."""

    model_config = ConfigDict(strict=True)
    newest: ClassVar[int | None] = None
    """The newest schema known, of records that say theirs."""


class Named(Shape):
    """A metric by name and direction."""

    name: str
    higher_is_better: bool


class Source(Shape):
    """Where an experiment is written down."""

    name: Name
    file: File


class Columns(Shape):
    """The columns of the ids and the targets."""

    id: str
    target: str


class Split(Shape):
    """Folds by number, strategy and digest."""

    n: Annotated[int, Field(ge=1, le=1_000_000)]
    strategy: str
    digest: str


class Config(Shape):
    """config.json of anything with predictions: a run, an average, a blend, what was fitted on them."""

    newest = 1
    schema_: Annotated[int, Field(alias="schema")] = 1
    kind: Annotated[str, Field(min_length=1)]
    name: Name
    experiment: Source
    fields: dict[str, Any]
    metric: Named
    columns: Columns
    folds: Split
    rows: Count
    identity: str
    of: Name | None = None
    how: str = ""
    members: dict[Name, float] = {}
    checkpoints: dict[str, list[str]] = {}


class StageOfRun(Shape):
    """A stage, as far as others look at it."""

    name: Name
    epochs: Count
    start: str


class Data(Shape):
    """Digests of the tables."""

    train: str
    test: str | None


class RunConfig(Config):
    """config.json of a run."""

    stages: Annotated[list[StageOfRun], Field(min_length=1)]
    also: list[str]
    data: Data
    code: str


class Fold(Shape):
    """fold.json: how a finished fold ended."""

    fold: Count
    stage: Name
    checkpoint: Name
    epoch: Count
    weights: str
    rows: Count
    scores: dict[str, float | None]


class CheckpointRecord(Shape):
    """The record beside a checkpoint."""

    newest = 1
    schema_: Annotated[int, Field(alias="schema")]
    number: Count
    sha256: str
    score: float | None
    metric: Named
    info: dict[str, Any]


class Position(Shape):
    """Where in its stage a training stood."""

    epoch: Count
    update: Count
    step: Count
    weights: str
    evaluated: bool
    scores: list[float | None]
    log: Count
    train: dict[str, Any]


class CheckpointOfRun(Shape):
    """The part of a checkpoint's record that `train_run` notes; whoever saves by hand notes what he likes."""

    info: Position


class Gain(Shape):
    """What fitted weights gain over something else, with its interval."""

    over: str
    gain: float | None
    low: float | None
    high: float | None


class FittedWeights(Shape):
    """learned.json of a blend whose weights were fitted."""

    fold_weights: list[list[float]]
    over_equal: Gain
    over_best: Gain


class Quality(Shape):
    """How good probabilities are."""

    log_loss: float


class Calibration(Shape):
    """learned.json of a calibrated entry."""

    before: Quality
    nested: Quality


class Decision(Shape):
    """learned.json of a decided entry."""

    objective: str
    default: float | None
    nested: float | None


class SoupOfFold(Shape):
    """What the soups of a fold score."""

    model_config = ConfigDict(strict=True, extra="forbid")
    fold: Count
    singles: dict[str, float]
    uniform: float | None
    greedy: float
    members: list[str]
    higher_is_better: bool


class Soups(Shape):
    """learned.json of an average of several runs."""

    soups: list[SoupOfFold]


LEARNED: dict[str, type[Shape]] = {
    "blend": FittedWeights,
    "calibrated": Calibration,
    "decided": Decision,
    "average": Soups,
}
"""What learned.json holds, by the kind of the entry."""


class Kept(Shape):
    """A file that belongs to a submission."""

    name: str
    file: Name
    sha256: str


class Formula(Shape):
    """The formula of a blend, with its options."""

    model_config = ConfigDict(strict=True, extra="forbid")
    how: str
    power: Annotated[float | str, AfterValidator(float)] = 2.0  # a text where it is infinite
    trim: Count = 1
    clip: float | None = None
    normalize: bool = False
    multilabel: bool = False


class MadeOf(Shape):
    """An entry as one of the members, and the members of it."""

    entry: Name
    kind: str | None
    identity: str | None
    test: str | None
    weight: float = 1.0
    blend: Formula | None = None
    members: list[MadeOf]


class Form(Shape):
    """How predictions become the columns of a sample."""

    model_config = ConfigDict(strict=True, extra="forbid")
    id: str
    target: str
    metric: str
    classes: list[str | int | float | bool]
    ranks: bool


class SubmissionRecord(Shape):
    """submission.json. What an older Batteries did not write may be missing."""

    name: Name
    entry: Name
    file: Name
    sha256: str
    rows: Count
    members: dict[Name, float] = {}
    made_of: MadeOf | None = None
    target: Form | None = None
    sample: Kept | None = None
    digits: Digits = None
    versions: dict[str, str] = {}
    notes: list[str] = []


class WholeSubmission(SubmissionRecord):
    """submission.json with all that the file can be made from again."""

    made_of: MadeOf
    target: Form
    sample: Kept
    digits: Digits
    versions: dict[str, str]


class Remembered(Shape):
    """What a ledger needs of an entry's config."""

    kind: str = ""
    experiment: dict[str, Any] = {}
    fields: dict[str, Any] = {}
    of: Name | None = None
    how: str = ""
    members: dict[Name, float] = {}


class Export(Shape):
    """A ledger as a file."""

    schema_: Annotated[int, Field(alias="schema", ge=1)]
    tables: dict[str, list[dict[str, Any]]]


def read_record(path: Path, shape: type[Shape]) -> dict[str, Any]:
    """Read a sealed record of a shape.

    Raises
    ------
    CorruptError
        When the file is damaged, or lacks a value, or has one of another type; the message names it.
    ResumeError
        When a newer Batteries wrote it.

    """
    data = read_sealed(path)
    schema = data.get("schema", shape.newest)
    if shape.newest is not None and isinstance(schema, int) and schema > shape.newest:
        raise ResumeError(
            f"{path}: has schema {schema}, this Batteries ({version('batteries')}) reads {shape.newest} and older;"
            " use the version that wrote it"
        )
    return check_shape(path, data, shape)


def check_shape(path: Path, data: dict[str, Any], shape: type[Shape]) -> dict[str, Any]:
    """Return `data`, which `path` holds; raise CorruptError naming the first value that is not of its type."""
    try:
        shape.model_validate(data)
    except (ValidationError, RecursionError) as error:
        raise CorruptError(f"{path}: {_first(error)}; Batteries never wrote it so. Restore it from a copy") from None
    return data


def _first(error: ValidationError | RecursionError) -> str:
    if isinstance(error, RecursionError):
        return "is nested too deeply"
    found = error.errors(include_url=False)[0]
    where = ".".join(map(str, found["loc"])) or "the whole"
    if found["type"] == "missing":
        return f"has no {where}"
    shown = repr(found["input"])
    return f"{where} is {shown if len(shown) <= 40 else shown[:37] + '...'} ({found['msg']})"
