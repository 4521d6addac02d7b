"""Findings: what the deeper looks of a study return, plain figures that JSON can hold.

In:    nothing.
Out:   frozen records.
Next:  `facts.Study` holds them; advice and the page read them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Feature = Literal["number", "category"]


@dataclass(frozen=True, kw_only=True)
class Ids:
    """Whether the id column names rows."""

    name: str
    repeated: int
    """Training rows whose id occurred before."""
    shared: int | None
    """Test rows whose id occurs in training; None without a test table."""
    first: tuple[str, ...]
    """The first few repeated ids."""


@dataclass(frozen=True, kw_only=True)
class Power:
    """What one column alone says about the target, on rows it was not fitted on."""

    column: str
    power: float
    """Share of the target's uncertainty (entropy of classes, variance of numbers) that it removes; 0 to 1."""
    auc: float | None
    """For two classes: area under the ROC curve, at least about 0.5."""
    rows: int
    leak: bool = False
    """Whether it says more than a column known at prediction time should."""


@dataclass(frozen=True, kw_only=True)
class Associations:
    """How strongly columns go together, each pair 0 to 1."""

    names: tuple[str, ...]
    matrix: tuple[tuple[float, ...], ...]
    """Spearman's correlation without its sign, Cramer's V, or the correlation ratio of ranks, as the pair is."""
    twins: tuple[tuple[str, str, float], ...]
    """Pairs of 0.995 or more: one can be told from the other."""
    rows: int


@dataclass(frozen=True, kw_only=True)
class Telling:
    """A column by which a classifier tells test rows from training rows."""

    column: str
    drop: float
    """How much the AUC falls when its values are shuffled."""


@dataclass(frozen=True, kw_only=True)
class Adversarial:
    """A classifier that tells training rows from test rows, judged on rows it has not seen."""

    auc: float
    """Of all rows pooled; 0.5 where the tables cannot be told apart."""
    folds: tuple[float, ...]
    """Of each fold."""
    band: tuple[float, float]
    """What 95 % of random relabellings reach."""
    p_value: float
    """Share of relabellings that reach the mean of the folds."""
    clear: bool
    columns: tuple[Telling, ...]
    """The most telling first."""
    excluded: tuple[tuple[str, str], ...]
    """(column, reason) of what was not shown to it."""
    train_rows: int
    test_rows: int


@dataclass(frozen=True, kw_only=True)
class Texts:
    """One column of texts."""

    column: str
    rows: int
    """Training rows looked at."""
    characters: tuple[int, int, int, int]
    """Least, median, 95 % and most."""
    tokens: tuple[int, int, int, int]
    """Runs of letters and digits; the same four."""
    histogram: tuple[int, ...]
    """Rows by tokens, in equal steps from the least to the most."""
    empty: int
    scripts: tuple[tuple[str, float], ...]
    """(script, share of the letters), the commonest first."""
    equal: int
    """Training rows whose text occurred before, case and punctuation aside."""
    near: int
    """Training rows nearly the same as another, equal ones included."""
    conflicting: int
    """Of these, those whose class differs from that of another of their group."""
    shared: int | None
    """Test rows nearly the same as a training row; None without a test table."""
    first: tuple[tuple[str, ...], ...]
    vocabulary: int
    known_words: float | None
    """Share of the words of test rows, counted as often as they occur, that training has."""
    known_words_by_chance: float | None
    """The same for one half of training beside the other."""


@dataclass(frozen=True, kw_only=True)
class Files:
    """One column of paths to images."""

    column: str
    files: int
    """Files looked at, of training and test."""
    unreadable: tuple[tuple[str, str, str], ...]
    """(id, path, reason) of each that cannot be read whole."""
    sizes: tuple[tuple[str, int], ...]
    """(width x height, files), the commonest first."""
    modes: tuple[tuple[str, int], ...]
    formats: tuple[tuple[str, int], ...]
    mean: tuple[float, ...]
    """Of the training pixels, 0 to 1, one for each channel."""
    deviation: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Near:
    """Images that are nearly the same, by perceptual hash and a look at both."""

    column: str
    near: int
    """Training rows nearly the same as another training row."""
    conflicting: int
    """Of these, those whose class differs from that of another of their group."""
    shared: int | None
    """Test rows nearly the same as a training row; None without a test table."""
    first: tuple[tuple[str, ...], ...]
    """Ids of the first few groups."""
    rows: int
    accidents: int = 0
    """Pairs of training and test that only look alike, as some among so many do; counted nowhere else."""


@dataclass(frozen=True, kw_only=True)
class Change:
    """What a change of the images does to a simple classifier that never saw it."""

    column: str
    change: str
    """horizontal flip, vertical flip, quarter turn, shift."""
    plain: float
    """Accuracy on held-out images as they are."""
    changed: float
    """On the same images, changed."""
    fits: bool
    """Whether classes survive it."""


@dataclass(frozen=True, kw_only=True)
class Suspect:
    """One row whose label its out-of-fold prediction contradicts."""

    id: str
    label: str
    predicted: str
    doubt: float
    """Classes: probability of the predicted class less that of the label. Numbers: error in deviations."""


@dataclass(frozen=True, kw_only=True)
class Labels:
    """Labels beside out-of-fold predictions."""

    rows: int
    suspects: tuple[Suspect, ...]
    """The most doubtful first, the first few hundred."""
    wrong: int
    """Rows off the diagonal of the confident joint."""
    clear: bool
    """Whether there are more than mistakes of a good model explain."""
