"""Advice: what to write in the experiment, each with the figures that speak for it.

In:    the facts of a study.
Out:   advice, the most consequential first; none without evidence.
Next:  the study page and `batteries study` show it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from batteries.prepare.study.facts import Advice, Drift, Group, Images, Repeats, Study, Target

_FOLDS = 5
_UNBALANCED = 10.0
_SKEWED = 2.0
_NAMED = 6  # columns or classes that are named in a sentence
_KNOWN = 0.5  # share of test rows of known groups above which groups may be parted
_MAJORITY = 0.8  # share of the larger of two classes


def advise(study: Study) -> tuple[Advice, ...]:
    """Return what the facts of a study speak for."""
    parts = (_folds, _repeats, _classes, _metric, _images, _drift, _columns, _skewness)
    return tuple(advice for part in parts for advice in part(study))


def _folds(study: Study) -> Iterator[Advice]:
    new = [group for group in study.groups if group.in_test is None or group.in_test <= _KNOWN]
    if new:
        yield _grouped(study, new)
    elif study.target.kind == "classes" and len(study.target.classes) > 1:
        yield _stratified(study)
    elif study.target.kind == "number" and study.train.rows > 1:
        n = min(_FOLDS, study.train.rows)
        why = f"{_quoted(study.target.name)} holds numbers"
        why += _parted(study) or ", and no column binds rows together"
        yield _declared(study, "Deal the rows to plain folds", why, f"folds = bt.KFold(n={n})")


def _grouped(study: Study, groups: list[Group]) -> Advice:
    group = groups[0]
    n = min(_FOLDS, group.groups)
    why = f"{study.train.rows:,} rows have {group.groups:,} values of {_quoted(group.column)}"
    why += f", the most frequent in {group.largest:,} rows"
    if (alike := _alike(group, study.target)) is not None:
        why += f"; {alike}"
    if group.in_test is not None:
        share = f"only {group.in_test:.0%} of the test rows are" if group.in_test else "no test row is"
        why += f"; {share} of a group that occurs in training"
    if group.missing:
        why += f"; {group.missing:,} rows have none and must be filled first"
    if others := [_quoted(other.column) for other in groups[1 : 1 + _NAMED]]:
        why += f". It may also be {' or '.join(others)}: hold out what is new at test time"
    line = f"folds = bt.Grouped({_quoted(group.column)}, n={n})"
    return _declared(study, f"Hold out whole groups of {_quoted(group.column)}", why, line)


def _alike(group: Group, target: Target) -> str | None:
    if group.within is None or group.overall is None:
        return None
    if target.kind == "classes":
        return f"two rows of one group share their class in {group.within:.0%} of pairs, any two in {group.overall:.0%}"
    return f"{_quoted(target.name)} deviates by {group.within:.4g} inside groups, by {group.overall:.4g} over all rows"


def _stratified(study: Study) -> Advice:
    target = study.target
    rare = min(target.classes, key=lambda c: c.rows)
    common = max(target.classes, key=lambda c: c.rows)
    spread = f"{len(target.classes)} classes of {rare.rows:,} to {common.rows:,} rows"
    spread += f" ({rare.share:.1%} to {common.share:.1%})"
    if rare.rows < 2:
        why = f"{spread}; class {_quoted(rare.label)} has a single row, which cannot be in every fold{_parted(study)}"
        return _declared(
            study, "Deal the rows to plain folds", why, f"folds = bt.KFold(n={min(_FOLDS, study.train.rows)})"
        )
    n = min(_FOLDS, rare.rows)
    why = f"{spread}; stratified, each of {n} folds holds {rare.rows // n:,} or more of the rarest{_parted(study)}"
    if target.missing:
        why += f"; {target.missing:,} rows have no class and must be dropped first"
    line = f"folds = bt.Stratified({_quoted(target.name)}, n={n})"
    return _declared(study, f"Give every fold the same share of each class of {_quoted(target.name)}", why, line)


def _parted(study: Study) -> str:
    """Why groups that were found may be parted: the test set has them too."""
    known = [group for group in study.groups if group.in_test is not None and group.in_test > _KNOWN]
    if not known:
        return ""
    group = known[0]
    return f"; {_quoted(group.column)} looks like a group, but {group.in_test:.0%} of the test rows are of known groups"


def _declared(study: Study, what: str, why: str, line: str) -> Advice:
    """The advice, or a word that the experiment does so already."""
    kind, _, rest = line.removeprefix("folds = bt.").partition("(")
    column = json.loads(rest.split(",")[0]) if rest.startswith('"') else None
    same = study.folds is not None and study.folds.startswith(kind) and (column is None or repr(column) in study.folds)
    return Advice(f"{what}, as the experiment does" if same else what, why, line)


def _repeats(study: Study) -> Iterator[Advice]:
    if study.images:
        for images in study.images:
            yield from _equal(study, images.repeats, "image", images.column)
    elif study.repeats is not None and study.repeats.expected < 1 + study.repeats.repeated / 3:
        yield from _equal(study, study.repeats, "row", None)


def _equal(study: Study, repeats: Repeats, thing: str, column: str | None) -> Iterator[Advice]:
    if not repeats.repeated and not repeats.shared:
        why = f"no duplicates: no {thing} occurs twice among {study.train.rows:,} training rows"
        if repeats.shared == 0 and study.test is not None:
            why += f", and none of the {study.test.rows:,} test rows equals one of them"
        yield Advice(f"Keep every {thing}", why, "")
    subset = "" if column is None else f"{_quoted(column)}, "
    if column is None:
        names = [_quoted(c.name) for c in study.train.columns if c.role not in ("id", "target")]
        subset = f"[{', '.join(names)}], "
    if repeats.repeated:
        groups = "; ".join(", ".join(ids) for ids in repeats.first[:3])
        why = f"{repeats.repeated:,} of {study.train.rows:,} training rows repeat an earlier {thing} (ids {groups})"
        keep = "first"
        if repeats.conflicting and study.target.kind == "classes":
            keep = "none"
            why += f"; {repeats.conflicting:,} of the equal rows contradict each other in {_quoted(study.target.name)}"
        line = f'table = table.unique({subset}keep="{keep}", maintain_order=True)'
        yield Advice(f"Drop repeated {thing}s, or keep them in one fold", why, line)
    if repeats.shared and study.test is not None:
        why = f"{repeats.shared:,} of {study.test.rows:,} test rows equal a training row"
        on = subset.removesuffix(", ")
        yield Advice(
            "Do not trust a test score on rows seen in training", why, f'table = table.join(test, on={on}, how="anti")'
        )


def _classes(study: Study) -> Iterator[Advice]:
    target = study.target
    texts = target.kind == "classes" and not target.type.startswith(("Bool", "Int", "UInt"))
    if texts and study.classes is None:
        why = f"{_quoted(target.name)} holds {len(target.classes)} texts; the columns of predictions need an order"
        names = ", ".join(_quoted(c.label) for c in target.classes)
        yield Advice("Name the classes", why, f"classes = ({names}{',' * (len(target.classes) == 1)})")


def _metric(study: Study) -> Iterator[Advice]:
    classes = study.target.classes
    if study.target.imbalance is None or len(classes) < 2 or study.metric != "accuracy":
        return
    largest = max(classes, key=lambda c: c.rows)
    if study.target.imbalance >= _UNBALANCED or (len(classes) == 2 and largest.share >= _MAJORITY):
        why = (
            f"always saying {_quoted(largest.label)} scores an accuracy of {largest.share:.1%};"
            f" the largest class has {study.target.imbalance:.1f} rows for one of the smallest"
        )
        line = "metric = bt.Metric.auc()" if len(classes) == 2 else "metric = bt.Metric.f1()"
        yield Advice("Rank by a metric that the largest class cannot win", why, line)


def _images(study: Study) -> Iterator[Advice]:
    for images in study.images:
        centred = max(map(abs, images.mean)) < 0.1 and all(0.8 < d < 1.25 for d in images.deviation)
        if not centred and min(images.deviation) > 0:
            yield _normalise(images)


def _normalise(images: Images) -> Advice:
    top = 255.0 if "int" in images.type and 128 <= images.maximum <= 255 else images.maximum
    top = top if images.minimum >= 0 and top > 0 else 1.0
    mean, deviation = ([value / top for value in values] for values in (images.mean, images.deviation))
    scaled = "pixels.float()" if top == 1 else f"pixels.float() / {top:g}"
    if images.channels == 1:
        line = f"images = ({scaled} - {mean[0]:.4f}) / {deviation[0]:.4f}"
    else:
        shape = "" if images.layout == "hwc" else "[:, None, None]"
        means, deviations = (
            f"torch.tensor([{', '.join(f'{v:.4f}' for v in some)}]){shape}" for some in (mean, deviation)
        )
        line = f"images = ({scaled} - {means}) / {deviations}"
    why = (
        f"pixels of {_quoted(images.column)} ({images.height}x{images.width}, {images.type})"
        f" run from {images.minimum:g} to {images.maximum:g},"
        f" mean {_list(images.mean)}, deviation {_list(images.deviation)}"
    )
    return Advice("Scale and centre the pixels", why, line)


def _list(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:.4g}" for value in values)


def _drift(study: Study) -> Iterator[Advice]:
    clear = [drift for drift in study.drift if drift.clear]
    if clear:
        columns = list(dict.fromkeys(drift.column for drift in clear))
        real = [name for name in columns if any(column.name == name for column in study.train.columns)]
        why = "; ".join(_moved(drift) for drift in clear[:3])
        why += f" ({len(columns)} of the columns compared differ clearly)" if len(columns) > 1 else ""
        drop = f"table = table.drop({', '.join(map(_quoted, real[:_NAMED]))})" if real else ""
        yield Advice("Score once without the columns that drift", f"training and test differ: {why}", drop)
    absent = [name for name in study.only_in_training if not study.column(name).constant]
    if absent:
        names = ", ".join(map(_quoted, absent[:_NAMED]))
        why = f"the test table has no {names}: a model that needs them cannot predict it"
        yield Advice("Leave out columns that only training has", why, f"table = table.drop({names})")


def _moved(drift: Drift) -> str:
    chance = f"p {drift.p_value:.0e}" if drift.p_value > 1e-99 else "p < 1e-99"
    figures = f"distance {drift.distance:.2f}, {chance}"
    return f"{_quoted(drift.column)} {drift.train} against {drift.test} ({figures})"


def _columns(study: Study) -> Iterator[Advice]:
    kept = ("id", "target")
    constant = [c.name for c in study.train.columns if c.constant and c.role not in kept]
    if constant:
        names = ", ".join(map(_quoted, constant[:_NAMED]))
        why = f"{len(constant)} of {len(study.train.columns)} columns say the same in all {study.train.rows:,} rows"
        yield Advice("Drop columns that say nothing", why, f"table = table.drop({names})")
    holes = sorted(
        (c for c in study.train.columns if c.missing and not c.constant and c.role not in kept),
        key=lambda c: -c.missing,
    )
    if holes:
        why = ", ".join(f"{_quoted(c.name)} {c.missing_share:.1%}" for c in holes[:_NAMED])
        why += f" and {len(holes) - _NAMED} more" if len(holes) > _NAMED else ""
        first = _quoted(holes[0].name)
        line = f"table = table.with_columns(pl.col({first}).is_null().alias({_quoted(holes[0].name + '_missing')}))"
        yield Advice("Say where values are missing before filling them", f"missing in training: {why}", line)


def _skewness(study: Study) -> Iterator[Advice]:
    target = study.target
    if target.kind != "number" or target.skewness is None or target.skewness < _SKEWED:
        return
    quantiles = dict(target.quantiles)
    if quantiles.get(0.0, -1.0) < 0 or 0.5 not in quantiles or 1.0 not in quantiles:
        return
    why = (
        f"{_quoted(target.name)} has a long tail (skewness {target.skewness:.1f}): half of the rows lie below"
        f" {quantiles[0.5]:.4g}, the largest is {quantiles[1.0]:.4g}"
    )
    yield Advice(
        "Train on the logarithm of the target", why, "targets = targets.log1p()  # and expm1() in predict_step"
    )


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
