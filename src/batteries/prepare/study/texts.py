"""Texts: lengths, scripts, repetition and the words that only the test table has.

In:    a column of texts, of training and test.
Out:   a Texts.
Next:  advice on lengths to cut at, on near-duplicates to keep in one fold.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from batteries.prepare.duplicates import groups_of_pairs, near_texts
from batteries.prepare.study.findings import Near, Texts

MOST_ROWS = 20_000
_LETTERS = 4_000  # of the beginning of each text, by which near-duplicates are found
_LONG = 40
"""Characters of a text on average, so that its pieces tell it from others; shorter ones are names and codes."""
_TOKENS = re.compile(r"\w+")
_SHOWN = 5
_BINS = 24
_FEWEST_WORDS = 3  # in the middle text; shorter ones are names or codes
_SCRIPTS = (
    # first code point after the script's last; letters of what lies between are of the script named (Unicode blocks)
    (0x0250, "Latin"), (0x0370, ""), (0x0400, "Greek"), (0x0530, "Cyrillic"), (0x0590, "Armenian"), (0x0600, "Hebrew"),
    (0x0700, "Arabic"), (0x0900, ""), (0x0980, "Devanagari"), (0x0A00, "Bengali"), (0x0B80, ""), (0x0C00, "Tamil"),
    (0x0C80, "Telugu"), (0x0E00, ""), (0x0E80, "Thai"), (0x10A0, ""), (0x1100, "Georgian"), (0x1200, "Hangul"),
    (0x1E00, ""), (0x1F00, "Latin"), (0x2000, "Greek"), (0x3040, ""), (0x30A0, "Hiragana"), (0x3100, "Katakana"),
    (0x3400, ""), (0xA000, "Han"), (0xAC00, ""), (0xD7B0, "Hangul"), (0x110000, ""),
)  # fmt: skip


def is_prose(column: pl.Series) -> bool:
    """Whether a column of texts holds sentences rather than names or codes."""
    some = column.drop_nulls().head(1000)
    return bool(len(some)) and float(np.median([len(_TOKENS.findall(text)) for text in some])) >= _FEWEST_WORDS


def tells_apart(column: pl.Series) -> bool:
    """Whether texts are long enough that two of them are not nearly the same by accident, as names are."""
    lengths = column.drop_nulls().str.len_chars()
    return len(lengths) > 1 and float(lengths.mean()) >= _LONG  # type: ignore[arg-type]


def describe_texts(
    train: pl.Series, test: pl.Series | None, ids: Sequence[str], labels: NDArray[np.int64] | None
) -> Texts:
    """Return the figures of one column of texts.

    Parameters
    ----------
    train, test
        The texts; an empty one counts as the empty text.
    ids
        Names of the training rows.
    labels
        Codes of their classes, for conflicts of near-duplicates.

    """
    texts, others = train.fill_null("").to_list(), [] if test is None else test.fill_null("").to_list()
    words = [_TOKENS.findall(text.lower()) for text in texts]
    tokens = np.array([len(some) for some in words])
    plain = [" ".join(some) for some in words]
    pairs = np.empty((0, 2), dtype=np.int64)
    if tells_apart(train):
        pairs = near_texts([text[:_LETTERS] for text in (*texts, *others)])
    near = near_of(train.name, pairs, ids, labels, with_test=test is not None)
    known, by_chance = _known(words, [_TOKENS.findall(text.lower()) for text in others])
    return Texts(
        column=train.name,
        rows=len(texts),
        characters=_spread(np.array([len(text) for text in texts])),
        tokens=_spread(tokens),
        histogram=tuple(np.histogram(tokens, _BINS)[0].tolist()) if np.ptp(tokens) else (),
        empty=sum(not text.strip() for text in texts),
        scripts=scripts_of(texts),
        equal=len(plain) - len(set(plain)),
        near=near.near,
        conflicting=near.conflicting,
        shared=near.shared,
        first=near.first,
        vocabulary=len({word for some in words for word in some}),
        known_words=known,
        known_words_by_chance=by_chance,
    )


def near_of(
    column: str, pairs: NDArray[np.int64], ids: Sequence[str], labels: NDArray[np.int64] | None, *, with_test: bool
) -> Near:
    """Count what pairs of rows mean; the first `len(ids)` rows are those of training, the others of test."""
    n = len(ids)
    inside = pairs[(pairs < n).all(axis=1)]
    across = pairs[(pairs[:, 0] < n) & (pairs[:, 1] >= n)]
    groups = groups_of_pairs(n, inside)
    sizes = np.bincount(groups, minlength=n)
    several = np.flatnonzero(sizes > 1)
    conflicting = 0
    if labels is not None:
        low, high = np.full(n, np.iinfo(np.int64).max), np.full(n, -1)
        np.minimum.at(low, groups, labels)
        np.maximum.at(high, groups, labels)
        conflicting = int(sizes[several][low[several] != high[several]].sum())
    return Near(
        column=column,
        near=int(sizes[several].sum()),
        conflicting=conflicting,
        shared=len(np.unique(across[:, 1])) if with_test else None,
        first=tuple(tuple(ids[row] for row in np.flatnonzero(groups == one)[:_SHOWN]) for one in several[:_SHOWN]),
        rows=n,
    )


def scripts_of(texts: Sequence[str]) -> tuple[tuple[str, float], ...]:
    """Return the scripts of the letters of texts, the commonest first, those below one in a thousand left out.

    >>> scripts_of(["abc де"])
    (('Latin', 0.6), ('Cyrillic', 0.4))
    """
    letters = Counter(letter for text in texts for letter in text if letter.isalpha())
    if not letters:
        return ()
    ends, names = zip(*_SCRIPTS, strict=True)
    counts: Counter[str] = Counter()
    for letter, times in letters.items():
        counts[names[int(np.searchsorted(ends, ord(letter), side="right"))] or "other"] += times
    total = counts.total()
    return tuple((name, times / total) for name, times in counts.most_common() if times >= total / 1000)


def _spread(lengths: NDArray[np.int64]) -> tuple[int, int, int, int]:
    least, middle, most = (int(pick(lengths)) for pick in (np.min, np.median, np.max))
    return least, middle, int(np.quantile(lengths, 0.95)), most


def _known(train: Sequence[Sequence[str]], test: Sequence[Sequence[str]]) -> tuple[float | None, float | None]:
    """Share of the words of `test` that `train` has, and of one half of `train` that the other has."""
    if not test:
        return None, None
    return _overlap(train, test), _overlap(train[::2], train[1::2])


def _overlap(known: Sequence[Sequence[str]], asked: Sequence[Sequence[str]]) -> float | None:
    vocabulary = {word for words in known for word in words}
    counts = Counter(word for words in asked for word in words)
    total = counts.total()
    return sum(times for word, times in counts.items() if word in vocabulary) / total if total else None
