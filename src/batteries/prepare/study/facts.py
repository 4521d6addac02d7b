"""Facts: the nouns of a study, plain figures that JSON can hold.

In:    nothing.
Out:   frozen records; `Study.plain()` is what study.json holds.
Next:  the other modules of the study fill them, the report shows them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from numpy.typing import NDArray

from batteries.config import to_plain
from batteries.prepare.study.findings import (
    Adversarial,
    Associations,
    Change,
    Files,
    Ids,
    Labels,
    Near,
    Power,
    Texts,
)

Role = Literal["id", "target", "image", "number", "category", "text", "time", "other"]


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column of one table."""

    name: str
    type: str
    role: Role
    missing: int
    """Empty values, and NaN in columns of floats."""
    missing_share: float
    distinct: int | None
    """Different values, an empty one counted as a value; None where they cannot be compared."""
    minimum: float | str | None = None
    mean: float | None = None
    maximum: float | str | None = None
    frequent: str | None = None
    """The most frequent value, where one occurs more than once."""
    frequent_share: float | None = None
    histogram: tuple[int, ...] | None = None
    """Rows in equal steps from the minimum to the maximum, for numbers."""
    outliers: int = 0
    """Values more than three interquartile ranges outside the quartiles."""
    stand_in: float | None = None
    """An outlier that comes back in many rows and may stand for a missing value, such as -999."""
    stand_in_share: float | None = None

    @property
    def constant(self) -> bool:
        """Whether every row says the same."""
        return self.distinct is not None and self.distinct <= 1


@dataclass(frozen=True, kw_only=True)
class Table:
    """One table as a whole."""

    rows: int
    bytes: int
    """Memory it takes."""
    columns: tuple[Column, ...]

    @property
    def constant(self) -> tuple[str, ...]:
        """Columns that say the same in every row."""
        return tuple(column.name for column in self.columns if column.constant)


@dataclass(frozen=True, kw_only=True)
class ClassCount:
    """One class of the target."""

    label: str
    rows: int
    share: float


@dataclass(frozen=True, kw_only=True)
class Target:
    """What is to be predicted."""

    name: str
    kind: Literal["classes", "number", "other", "none"]
    """None where no target was named."""
    type: str
    missing: int
    classes: tuple[ClassCount, ...] = ()
    """In the order of their values."""
    names: tuple[str, ...] | None = None
    """Names of the prediction columns, where the experiment or the values give them."""
    imbalance: float | None = None
    """Rows of the largest class for one of the smallest."""
    quantiles: tuple[tuple[float, float], ...] = ()
    """(share of the rows, value not exceeded by it), for numbers."""
    skewness: float | None = None
    histogram: tuple[int, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class Repeats:
    """Rows that say exactly what another row says, leaving the id and the target aside."""

    repeated: int
    """Training rows that equal an earlier one."""
    pairs: int
    """Pairs of equal training rows."""
    expected: float
    """Pairs to expect by chance, from the pairs that agree in all columns but one."""
    conflicting: int
    """Training rows that equal another one but have another target."""
    shared: int | None
    """Test rows that equal a training row; None without a test table of the same columns."""
    first: tuple[tuple[str, ...], ...]
    """Ids of the first few groups of equal rows."""
    by_accident: bool = False
    """Whether so many equal rows are no surprise in columns of so few values."""
    shared_by_accident: bool = False
    """The same of test rows."""


@dataclass(frozen=True, kw_only=True)
class Images:
    """A column of images, all of one size."""

    column: str
    layout: Literal["hw", "chw", "hwc"]
    height: int
    width: int
    channels: int
    type: str
    missing: int
    minimum: float
    maximum: float
    mean: tuple[float, ...]
    """Of all training pixels, one for each channel."""
    deviation: tuple[float, ...]
    repeats: Repeats


@dataclass(frozen=True, kw_only=True)
class Group:
    """A column whose values come back in several rows, such as a patient or a user."""

    column: str
    groups: int
    largest: int
    missing: int
    within: float | None
    """Classes: share of pairs of rows of one group with the same class. Numbers: deviation inside groups."""
    overall: float | None
    """The same for any rows."""
    in_test: float | None
    """Share of the test rows whose group occurs in training; None without a test table."""


@dataclass(frozen=True, kw_only=True)
class Drift:
    """One column compared between the training and the test table."""

    column: str
    measure: Literal["values", "categories", "missing"]
    distance: float
    """0 to 1: Kolmogorov-Smirnov for values, total variation for categories and missing values."""
    p_value: float
    clear: bool
    """Whether it is large and no accident among all columns compared."""
    train: str
    test: str
    edges: tuple[float, float] | None = None
    """From the least to the most of the middle 99 % of both tables, for values."""
    shares: tuple[tuple[float, ...], tuple[float, ...]] = ((), ())
    """Of the rows of training and of test, in equal steps between the edges; what lies beyond is in the outer ones."""


@dataclass(frozen=True)
class Advice:
    """What to do, the evidence for it, and the line to write."""

    what: str
    why: str
    line: str
    """Empty where nothing needs to be written."""
    flaw: str = ""
    """What is wrong with the data, in one word, if this is about a flaw: duplicates, leak, drift, groups, ..."""


@dataclass(frozen=True, kw_only=True)
class Examples:
    """Some images of one class, for a contact sheet."""

    column: str
    label: str
    pixels: NDArray[Any]
    """Shape (n, height, width) or (n, height, width, channels)."""


@dataclass(frozen=True, kw_only=True, repr=False)
class Study:
    """All that was found in the tables of an experiment."""

    experiment: str
    metric: str
    folds: str | None
    """The strategy the experiment declares, if it does."""
    classes: tuple[str, ...] | None
    """The names of classes the experiment declares, if it does."""
    train: Table
    test: Table | None
    target: Target
    repeats: Repeats | None
    """None where no column but id and target can be compared."""
    images: tuple[Images, ...] = ()
    groups: tuple[Group, ...] = ()
    drift: tuple[Drift, ...] = ()
    advice: tuple[Advice, ...] = ()
    ids: Ids | None = None
    powers: tuple[Power, ...] = ()
    """Every feature alone, the most telling first."""
    order: Power | None = None
    """What the place of a row in the table says about its target."""
    associations: Associations | None = None
    adversarial: Adversarial | None = None
    files: tuple[Files, ...] = ()
    near: tuple[Near, ...] = ()
    texts: tuple[Texts, ...] = ()
    changes: tuple[Change, ...] = ()
    labels: Labels | None = None
    sampled: tuple[tuple[str, int, int], ...] = ()
    """(what was looked at, rows looked at, rows there are) where not all were."""
    examples: tuple[Examples, ...] = field(default=(), repr=False, compare=False)

    @property
    def figures(self) -> dict[str, Any]:
        """All figures as JSON-ready data."""
        return self.plain()

    @property
    def flaws(self) -> tuple[str, ...]:
        """The flaws that were found, in one word each, the most consequential first; none in clean data."""
        return tuple(dict.fromkeys(advice.flaw for advice in self.advice if advice.flaw))

    def __repr__(self) -> str:
        """The tables in a line, then the advice."""
        shape = f"{self.train.rows:,} rows x {len(self.train.columns)} columns"
        test = "no test table" if self.test is None else f"{self.test.rows:,} test rows"
        flaws = f"flaws: {', '.join(self.flaws)}" if self.flaws else "no flaw found"
        lines = [f"Study of {self.experiment}: {shape}, {test}; {flaws}"]
        for advice in self.advice:
            lines += [f"- {advice.what}: {advice.why}", *([f"      {advice.line}"] if advice.line else [])]
        return "\n".join(lines)

    def plain(self) -> dict[str, Any]:
        """As JSON-ready data, without the pixels."""
        return {f.name: to_plain(getattr(self, f.name)) for f in fields(self) if f.name != "examples"}

    def column(self, name: str) -> Column:
        """The column of the training table with this name."""
        return {column.name: column for column in self.train.columns}[name]

    @property
    def later(self) -> tuple[Column, Column] | None:
        """The column of time after whose last training row every test row comes, in both tables; None without one."""
        tests = {} if self.test is None else {column.name: column for column in self.test.columns}
        for column in self.train.columns:
            test = tests.get(column.name)
            if column.role != "time" or column.constant or test is None or test.type != column.type:
                continue
            if None not in (column.maximum, test.minimum) and str(test.minimum) >= str(column.maximum):
                return column, test
        return None

    @property
    def only_in_training(self) -> tuple[str, ...]:
        """Columns, the target aside, that the test table does not have."""
        if self.test is None:
            return ()
        there: Mapping[str, Column] = {column.name: column for column in self.test.columns}
        return tuple(c.name for c in self.train.columns if c.name not in there and c.role != "target")
