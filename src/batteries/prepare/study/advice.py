"""Advice: what to write in the experiment, each with the figures that speak for it.

In:    the facts of a study.
Out:   advice, the most consequential first; none without evidence.
Next:  the study page and `batteries study` show it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from batteries.prepare.study.alarms import alarms
from batteries.prepare.study.facts import Advice, Group, Study, Target
from batteries.prepare.study.groups import KNOWN
from batteries.prepare.study.inputs import inputs
from batteries.prepare.study.words import NAMED, named, quoted

_FOLDS = 5
_UNBALANCED = 10.0
_SKEWED = 2.0
_MAJORITY = 0.8  # share of the larger of two classes
_ORDERED = 0.1  # power of the place in the table


def advise(study: Study) -> tuple[Advice, ...]:
    """Return what the facts of a study speak for."""
    parts = (alarms, _folds, _metric, _classes, inputs, _order, _absent, _columns, _skewness, _sound)
    return tuple(advice for part in parts for advice in part(study))


def _folds(study: Study) -> Iterator[Advice]:
    new = [group for group in study.groups if group.in_test is None or group.in_test <= KNOWN]
    later = _later(study)
    if later is not None:
        yield later
    elif new:
        yield _grouped(study, new)
    elif study.target.kind == "classes" and len(study.target.classes) > 1:
        yield _stratified(study)
    elif study.target.kind == "number" and study.train.rows > 1:
        n = min(_FOLDS, study.train.rows)
        why = f"{quoted(study.target.name)} holds numbers"
        why += _parted(study) or ", and no column binds rows together"
        yield _declared(study, "Deal the rows to plain folds", why, f"folds = bt.KFold(n={n})")


def _later(study: Study) -> Advice | None:
    """Folds in the order of time, where every test row comes after the last of training."""
    if study.later is None:
        return None
    train, test = study.later
    why = f"training ends at {train.maximum} and the test table begins at {test.minimum} of {quoted(train.name)}: what"
    why += " is asked lies in the future, so hold out later rows than those trained on"
    line = f"folds = bt.TimeOrdered({quoted(train.name)}, n={_FOLDS})"
    return _declared(study, "Hold out the latest rows", why, line)


def _grouped(study: Study, groups: list[Group]) -> Advice:
    group = groups[0]
    n = min(_FOLDS, group.groups)
    why = f"{study.train.rows:,} rows have {group.groups:,} values of {quoted(group.column)}"
    why += f", the most frequent in {group.largest:,} rows"
    if (alike := _alike(group, study.target)) is not None:
        why += f"; {alike}"
    if group.in_test is not None:
        share = f"only {group.in_test:.0%} of the test rows are" if group.in_test else "no test row is"
        why += f"; {share} of a group that occurs in training"
    if group.missing:
        why += f"; {group.missing:,} rows have none and must be filled first"
    if others := [quoted(other.column) for other in groups[1 : 1 + NAMED]]:
        why += f". It may also be {' or '.join(others)}: hold out what is new at test time"
    line = f"folds = bt.Grouped({quoted(group.column)}, n={n})"
    return _declared(study, f"Hold out whole groups of {quoted(group.column)}", why, line, flaw="groups")


def _alike(group: Group, target: Target) -> str | None:
    if group.within is None or group.overall is None:
        return None
    if target.kind == "classes":
        return f"two rows of one group share their class in {group.within:.0%} of pairs, any two in {group.overall:.0%}"
    return f"{quoted(target.name)} deviates by {group.within:.4g} inside groups, by {group.overall:.4g} over all rows"


def _stratified(study: Study) -> Advice:
    target = study.target
    rare = min(target.classes, key=lambda c: c.rows)
    common = max(target.classes, key=lambda c: c.rows)
    spread = f"{len(target.classes)} classes of {rare.rows:,} to {common.rows:,} rows"
    spread += f" ({rare.share:.1%} to {common.share:.1%})"
    if rare.rows == common.rows:
        spread = f"{len(target.classes)} classes of {rare.rows:,} rows each"
    if rare.rows < 2:
        why = f"{spread}; class {quoted(rare.label)} has a single row, which cannot be in every fold{_parted(study)}"
        return _declared(
            study, "Deal the rows to plain folds", why, f"folds = bt.KFold(n={min(_FOLDS, study.train.rows)})"
        )
    n = min(_FOLDS, rare.rows)
    why = f"{spread}; stratified, each of {n} folds holds {rare.rows // n:,} or more of the rarest{_parted(study)}"
    if target.missing:
        why += f"; {target.missing:,} rows have no class and must be dropped first"
    line = f"folds = bt.Stratified({quoted(target.name)}, n={n})"
    return _declared(study, f"Give every fold the same share of each class of {quoted(target.name)}", why, line)


def _parted(study: Study) -> str:
    """Why groups that were found may be parted: the test set has them too."""
    known = [group for group in study.groups if group.in_test is not None and group.in_test > KNOWN]
    if not known:
        return ""
    group = known[0]
    return f"; {quoted(group.column)} looks like a group, but {group.in_test:.0%} of the test rows are of known groups"


def _declared(study: Study, what: str, why: str, line: str, flaw: str = "") -> Advice:
    """The advice, or a word that the experiment does so already."""
    kind, _, rest = line.removeprefix("folds = bt.").partition("(")
    column = json.loads(rest.split(",")[0]) if rest.startswith('"') else None
    same = study.folds is not None and study.folds.startswith(kind) and (column is None or repr(column) in study.folds)
    return Advice(f"{what}, as the experiment does" if same else what, why, line, "" if same else flaw)


def _classes(study: Study) -> Iterator[Advice]:
    target = study.target
    texts = target.kind == "classes" and not target.type.startswith(("Bool", "Int", "UInt"))
    if texts and study.classes is None:
        why = f"{quoted(target.name)} holds {len(target.classes)} texts; the columns of predictions need an order"
        names = ", ".join(quoted(c.label) for c in target.classes)
        yield Advice("Name the classes", why, f"classes = ({names}{',' * (len(target.classes) == 1)})")


def _metric(study: Study) -> Iterator[Advice]:
    target = study.target
    if target.kind == "number" and not study.metric:
        why = f"{quoted(target.name)} holds numbers; the mean error is 0 at best, lower is better"
        yield Advice("Choose a metric and its direction", why, "metric = bt.Metric.rmse()")
    if target.imbalance is None or len(target.classes) < 2 or study.metric not in ("", "accuracy"):
        return
    largest = max(target.classes, key=lambda c: c.rows)
    two = len(target.classes) == 2
    line = "metric = bt.Metric.auc()" if two else "metric = bt.Metric.f1()"
    why = f"always saying {quoted(largest.label)} scores an accuracy of {largest.share:.1%}"
    if target.imbalance >= _UNBALANCED or (two and largest.share >= _MAJORITY):
        why += f"; the largest class has {target.imbalance:.1f} rows for one of the smallest; higher is better"
        yield Advice("Rank by a metric that the largest class cannot win", why, line)
    elif not study.metric:
        yield Advice("Choose a metric and its direction", f"{why}; higher is better", "metric = bt.Metric.accuracy()")


def _order(study: Study) -> Iterator[Advice]:
    order = study.order
    if order is not None and order.power >= _ORDERED:
        why = f"the place of a row in the table removes {order.power:.1%} of the uncertainty of"
        why += f" {quoted(study.target.name)}: never give a model the row number, nor take the last rows for validation"
        yield Advice("Shuffle the rows", why, "table = table.sample(fraction=1, shuffle=True, seed=0)")


def _absent(study: Study) -> Iterator[Advice]:
    absent = [name for name in study.only_in_training if not study.column(name).constant]
    if absent:
        why = f"the test table has no {named(absent)}: a model that needs them cannot predict it"
        yield Advice("Leave out columns that only training has", why, f"table = table.drop({named(absent)})")


def _columns(study: Study) -> Iterator[Advice]:
    kept = ("id", "target")
    constant = [c.name for c in study.train.columns if c.constant and c.role not in kept]
    if constant:
        names = ", ".join(map(quoted, constant[:NAMED]))
        why = f"{len(constant)} of {len(study.train.columns)} columns say the same in all {study.train.rows:,} rows"
        yield Advice("Drop columns that say nothing", why, f"table = table.drop({names})")
    holes = sorted(
        (c for c in study.train.columns if c.missing and not c.constant and c.role not in kept),
        key=lambda c: -c.missing,
    )
    if holes:
        why = ", ".join(f"{quoted(c.name)} {c.missing_share:.1%}" for c in holes[:NAMED])
        why += f" and {len(holes) - NAMED} more" if len(holes) > NAMED else ""
        first = quoted(holes[0].name)
        line = f"table = table.with_columns(pl.col({first}).is_null().alias({quoted(holes[0].name + '_missing')}))"
        yield Advice("Say where values are missing before filling them", f"missing in training: {why}", line)

    for column in study.train.columns:
        if column.stand_in is not None and column.stand_in_share is not None and column.role == "number":
            why = (
                f"{quoted(column.name)} is {column.stand_in:g} in {column.stand_in_share:.1%} of the rows, far from all"
            )
            why += " other values: it may stand for a missing one"
            value = f"{column.stand_in:g}"
            line = f"table = table.with_columns(pl.col({quoted(column.name)}).replace({value}, None))"
            yield Advice("Say missing where a number stands for it", why, line)
    if study.associations is not None and study.associations.twins:
        twins = [pair for pair in study.associations.twins if study.target.name not in pair[:2]]
        if twins:
            why = ", ".join(f"{quoted(a)} and {quoted(b)} ({value:.3f})" for a, b, value in twins[:3])
            line = f"table = table.drop({named(list(dict.fromkeys(b for _, b, _ in twins)))})"
            yield Advice("Keep one of two columns that say the same", f"rank correlation: {why}", line)


def _skewness(study: Study) -> Iterator[Advice]:
    target = study.target
    if target.kind != "number" or target.skewness is None or target.skewness < _SKEWED:
        return
    quantiles = dict(target.quantiles)
    if quantiles.get(0.0, -1.0) < 0 or 0.5 not in quantiles or 1.0 not in quantiles:
        return
    why = (
        f"{quoted(target.name)} has a long tail (skewness {target.skewness:.1f}): half of the rows lie below"
        f" {quantiles[0.5]:.4g}, the largest is {quantiles[1.0]:.4g}"
    )
    yield Advice(
        "Train on the logarithm of the target", why, "targets = targets.log1p()  # and expm1() in predict_step"
    )


def _sound(study: Study) -> Iterator[Advice]:
    """What was looked for and not found."""
    for thing, repeats in [*(("image", images.repeats) for images in study.images), ("row", study.repeats)]:
        if repeats is None or repeats.repeated or repeats.shared or (thing == "row" and study.images):
            continue
        why = f"no duplicates: no {thing} occurs twice among {study.train.rows:,} training rows"
        if repeats.shared == 0 and study.test is not None:
            why += f", and none of the {study.test.rows:,} test rows equals one of them"
        yield Advice(f"Keep every {thing}", why, "")
    found = study.adversarial
    if found is not None and not found.clear:
        low, high = found.band
        why = f"no drift: a classifier tells test from training rows with an AUC of {found.auc:.3f}; by chance 95 % lie"
        yield Advice("Trust validation on these columns", f"{why} within {low:.3f} to {high:.3f}", "")
