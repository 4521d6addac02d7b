"""Show: tables that fit 80 columns, or the same as JSON.

In:    rows that the library returned.
Out:   text on standard output.
Next:  people read the tables, scripts the JSON.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import polars as pl

    from batteries.combine.preview import Change, Difference
    from batteries.improve.compare import Comparison, Verdict
    from batteries.prepare.split_check import FoldLine, SplitCheck
    from batteries.report.doctor import Check
    from batteries.score.holdout import Tested
    from batteries.score.verify import Finding
    from batteries.train.rehearse import Rehearsal

Cell = str | int | float | None
_COLUMNS, _LABELS = 5, 10
"""How many columns and labels of a submission are compared in a table."""


def as_json(data: object) -> None:
    """Print plain data as JSON."""
    print(json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False))


def table(rows: Sequence[Mapping[str, Cell]]) -> None:
    """Print rows under their keys; columns that are empty throughout are left out."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    names = [name for name in (rows[0] if rows else ()) if any(row[name] is not None for row in rows)]
    drawn = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for position, name in enumerate(names):
        drawn.add_column(name, justify="left" if position == 0 else "right", overflow="fold")
    for row in rows:
        drawn.add_row(*(text(row[name]) for name in names))
    Console(highlight=False, markup=False).print(drawn)


def columns(rows: Sequence[Mapping[str, Cell]], *, words: str) -> None:
    """Print rows under their keys as `table` does, however wide; it draws hundreds of them in no time.

    Figures stand at the right, the first column and the column `words` at the left.
    """
    lines = [list(rows[0]), *([text(cell) for cell in row.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    left = [position == 0 or name == words for position, name in enumerate(rows[0])]
    aligned = [
        "   ".join(cell.ljust(width) if at_left else cell.rjust(width) for cell, width, at_left in each).rstrip()
        for each in (zip(line, widths, left, strict=True) for line in lines)
    ]
    print("\n".join([aligned[0], "─" * (sum(widths) + 3 * (len(widths) - 1)), *aligned[1:]]))


def text(cell: Cell) -> str:
    """A cell as it is printed."""
    if cell is None:
        return "-"
    return f"{cell:.5f}" if isinstance(cell, float) else str(cell)


def tested(results: Sequence[Tested]) -> None:
    """Print the test scores of entries beside validation, and how often the test set was looked at."""
    table(
        [
            {
                "entry": result.name,
                "valid": result.valid,
                "test": result.test,
                "from": brief(result.low),
                "to": brief(result.high),
                "gap": signed(result.gap),
                "explained": {True: "yes", False: "no", None: "-"}[result.explained],
            }
            for result in results
        ]
    )
    words(
        f"{results[0].metric} on {results[0].rows} test rows; from, to: 95 % interval over resampled rows;"
        " explained: the gap is within two s.d. of its noise"
    )
    if results[-1].warning:
        words(f"note: {results[-1].warning}")


def verdict(found: Verdict, *, every_part: bool) -> None:
    """Print which entry is better in words, then the figures; every part of the rows, or those that stand out."""
    for line in found.sentence.splitlines():
        words(line)
    if len(found.comparisons) == 1:
        table(_figures(found.comparisons[0]))
    else:
        table([_line(comparison) for comparison in found.comparisons])
        print(f"{found.metric}; beside {found.comparisons[0].first}: {found.comparisons[0].first_score:.5f}")
        words("from, to: 95 % over resamples; p: of these by Holm; p folds: corrected t")
    for comparison in found.comparisons:
        _parts(comparison, found.by, every=every_part)


def _figures(result: Comparison) -> list[dict[str, Cell]]:
    figures = {
        f"{result.metric} of {result.first}": f"{result.first_score:.5f}",
        f"{result.metric} of {result.second}": f"{result.second_score:.5f}",
        "gain": signed(result.gain),
        f"95 % interval over {result.draws:,} resamples of {result.over}": f"{result.low:+.5f} to {result.high:+.5f}",
        "chance that the second is better": f"{result.chance:.1%}",
        "p, paired bootstrap": f"{result.p_rows:.4f}",
        "p, corrected t of the mean over folds": "-" if result.p_folds is None else f"{result.p_folds:.4f}",
    }
    if result.undefined:
        figures["resamples without a score, left out"] = f"{result.undefined:,}"
    if result.moved:
        figures["rows nearer to the target, farther"] = f"{result.moved.nearer:,}, {result.moved.farther:,}"
    return [{"figure": name, "value": value} for name, value in figures.items()]


def _line(result: Comparison) -> dict[str, Cell]:
    return {
        "entry": result.second,
        "score": result.second_score,
        "gain": signed(result.gain),
        "from": f"{result.low:+.4f}",
        "to": f"{result.high:+.4f}",
        "chance": f"{result.chance:.0%}",
        "p": f"{result.p_corrected:.3f}",
        "p folds": "-" if result.p_folds is None else f"{result.p_folds:.3f}",
    }


def _parts(result: Comparison, by: str, *, every: bool) -> None:
    """Print where the second entry wins and loses."""
    if every and result.segments:
        print(f"\n{result.second} beside {result.first} in {result.segments[0].measure}, by {by}")
        table(
            [
                {
                    by: part.name,
                    "rows": part.rows,
                    result.first: part.first,
                    result.second: part.second,
                    "gain": signed(part.gain),
                    "p": None if part.p is None else f"{part.p:.4f}",
                }
                for part in result.segments
            ]
        )
    for word, sign in (("wins", 1), ("loses", -1)):
        out = [part for part in result.segments if part.stands_out and part.gain * sign > 0]
        if out:
            named = ", ".join(f"{part.name} ({part.gain:+.5f})" for part in out)
            words(f"{result.second} {word} in {out[0].measure} where {by} is {named}")


def first_rows(rows: pl.DataFrame, most: int) -> None:
    """Print the first rows of a table; of many columns, those at both ends."""
    many = rows.width > 7
    names = [*rows.columns[:5], rows.columns[-1]] if many else rows.columns
    lines: list[dict[str, Cell]] = [
        {name: _short(cell) for name, cell in row.items()} for row in rows.select(names).head(most).to_dicts()
    ]
    if many:
        lines = [{**dict(list(line.items())[:5]), "...": "...", names[-1]: line[names[-1]]} for line in lines]
    table(lines)


def _short(cell: object) -> str:
    """A cell of a file in few characters, also where it holds line breaks."""
    if isinstance(cell, float):
        return f"{cell:.6g}"
    text = "".join(character if character.isprintable() else repr(character)[1:-1] for character in str(cell))
    return text if len(text) <= 24 else f"{text[:23]}…"


def difference(found: Difference) -> None:
    """Print how a submission differs from another one."""
    alone = f"; {found.only_now:,} rows only now, {found.only_before:,} only before"
    print(f"beside {found.against}: {found.rows:,} rows{alone if found.only_now or found.only_before else ''}")
    distribution(found.changes)
    if found.largest_changed is not None:
        print(f"{found.largest_changed:.2%} of rows have their largest number in another column")


def distribution(changes: Sequence[Change]) -> None:
    """Print a table of the columns of numbers, and one for each of labels; of many, those that correlate least."""
    numbers = [change for change in changes if change.spread is not None]
    if len(numbers) > _COLUMNS:
        compared = numbers[0].spread_before is not None
        numbers = sorted(numbers, key=lambda change: 1 if change.pearson is None else change.pearson)[:_COLUMNS]
        words(f"{_COLUMNS} of {len(changes)} columns{', those that correlate least' if compared else ''}")
    if numbers:
        table([line for change in numbers for line in _numbers_of(change)])
    for change in [change for change in changes if change.counts is not None][:_COLUMNS]:
        _labels_of(change)


def _numbers_of(change: Change) -> Iterator[dict[str, Cell]]:
    """A line of now, with the correlations, and one of before, if there was one."""
    compared = change.spread_before is not None
    for name, spread, told in ((change.column, change.spread, compared), ("  before", change.spread_before, False)):
        if spread is not None:
            yield {
                "column": _short(name),
                "Pearson": _correlation(change.pearson) if told else "" if compared else None,
                "Spearman": _correlation(change.spearman) if told else "" if compared else None,
                "min": _short(spread.least),
                "mean": _short(spread.mean),
                "max": _short(spread.most),
            }


def _correlation(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _labels_of(change: Change) -> None:
    """Print the commonest labels of a column, now and before."""
    now, before = change.counts or {}, change.counts_before
    labels = sorted({*now, *(before or {})}, key=lambda label: (-now.get(label, 0), label))
    if len(labels) <= _LABELS:
        labels.sort()
    lines: list[dict[str, Cell]] = [
        {
            _short(change.column): _short(label),
            "now": now.get(label, 0),
            "before": None if before is None else before.get(label, 0),
        }
        for label in labels[:_LABELS]
    ]
    if len(labels) > _LABELS:
        print(f"the {_LABELS} commonest of {_short(change.column)}")
    table(lines)
    if change.changed is not None:
        print(f"{change.changed:.2%} of rows have another {_short(change.column)}")


def words(text: str) -> None:
    """Print a sentence in 80 columns."""
    print(textwrap.fill(text, 80))


def findings(found: Sequence[Finding]) -> None:
    """Print files that are not what was written, each with the reason under it."""
    for finding in found:
        print(f"{finding.state:9} {finding.file.as_posix()}")
        if finding.reason:
            print(textwrap.fill(finding.reason, 80, initial_indent=" " * 10, subsequent_indent=" " * 10))


def checks(made: Sequence[Check]) -> None:
    """Print what was found of a machine, and under it what to do where all is not well."""
    for check in made:
        _print(f"{check.state:8} {check.name:12} {check.found}")
        if check.advice:
            print(textwrap.fill(f"-> {check.advice}", 80, initial_indent=" " * 22, subsequent_indent=" " * 25))


def rehearsal(done: Rehearsal) -> None:
    """Print what a rehearsal found, in at most 12 lines."""
    few = done.stages if len(done.stages) <= 5 else done.stages[:4]
    _print(f"{done.experiment}, {done.parameters:,} parameters; a batch: {done.batch}")
    _print(f"{'stage':30} {'learning':>14} {'s an update':>12} {'updates':>10}")
    for stage in few:
        _print(f"{stage.name[:30]:30} {stage.learning:>14,} {stage.seconds:>12.3g} {stage.updates:>10,}")
    if len(few) < len(done.stages):
        _print(f"... and {len(done.stages) - len(few)} stages more")
    scores = ", ".join(f"{name} {score:.5f}" for name, score in done.scores.items())
    _print(f"predictions of held-out rows: {done.prediction}; {scores}".rstrip("; "))
    for note in done.notes[:2]:
        _print(f"note: {note}")
    went_on = "stopped and gone on with" if done.resumed else "not stopped"
    _print(f"saved, {went_on}, predicted in {done.took:.1f} s; {done.memory:,.0f} MB at most")
    _print(f"the whole run: {done.folds} folds, about {_duration(done.estimate)}, saving apart")


def _print(text: str) -> None:
    print(text if len(text) <= 80 else f"{text[:77]}...")


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def split_check(found: SplitCheck) -> None:
    """Print a line for each fold, with the balance of the target, then what is to be known of the split."""
    table(
        [
            {"fold": line.fold, "rows": line.rows, "trains on": line.trains, "groups": line.groups}
            | _balance(line, found.folds)
            for line in found.folds
        ]
    )
    for note in found.notes:
        words(f"note: {note}")


def _balance(line: FoldLine, folds: Sequence[FoldLine]) -> dict[str, Cell]:
    """The shares of a few classes; of many, the one farthest from its share over all folds."""
    if line.shares is None:
        return {"target": brief(line.mean), "±": brief(line.deviation)}
    few = {f"{name[:9]} %": f"{100 * share:.1f}" for name, share in line.shares.items()}
    if len(few) == len(line.shares) <= 4:
        return dict(few)
    rows = sum(each.rows for each in folds)
    over_all = {name: sum(each.rows * (each.shares or {})[name] for each in folds) / rows for name in line.shares}
    _, name = max((abs(share - over_all[name]), name) for name, share in line.shares.items())
    return {"most uneven": f"{name[:20]}: {100 * line.shares[name]:.1f} %, not {100 * over_all[name]:.1f} %"}


def item(text: str, *, code: str | None = None) -> None:
    """Print one point of a list in 80 columns, with a line to write under it."""
    print(textwrap.fill(text, 80, initial_indent="- ", subsequent_indent="  "))
    if code:
        print(f"      {code}")


def brief(noise: float | None) -> str | None:
    """`0.0036`: a deviation needs fewer digits than what it is of."""
    return None if noise is None else f"{noise:.4f}"


def signed(difference: float | None) -> str | None:
    """`+0.01046`."""
    return None if difference is None else f"{difference:+.5f}"
