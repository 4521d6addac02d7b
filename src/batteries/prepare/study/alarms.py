"""Alarms: what is wrong with the data and would make a score a lie.

In:    the facts of a study.
Out:   advice about flaws, each with the figures that show it; none where the data are sound.
Next:  `advice` puts them first.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from batteries.prepare.study.facts import Advice, Drift, Repeats, Study
from batteries.prepare.study.findings import Adversarial, Near
from batteries.prepare.study.words import NAMED, counted, ids_of, named, quoted

_LISTED = 12  # ids in a line to write
_PARTNER = 0.1  # of what the most telling column costs; those that cost less only help it to tell


def alarms(study: Study) -> Iterator[Advice]:
    """Yield advice about every flaw that the facts show."""
    for part in (_files, _ids, _leaks, _repeats, _near, _drift, _labels):
        yield from part(study)


def _files(study: Study) -> Iterator[Advice]:
    for files in study.files:
        if not files.unreadable:
            continue
        first = "; ".join(f"{path} ({reason})" for _, path, reason in files.unreadable[:3])
        why = f"{len(files.unreadable):,} of {counted(files.files, 'file')} of {quoted(files.column)} cannot be read"
        why += f" whole: {first}"
        line = _without([id for id, _, _ in files.unreadable], study)
        yield Advice("Replace or leave out files that are damaged", why, line, "unreadable files")


def _without(ids: Sequence[str], study: Study) -> str:
    """The line that leaves rows out; of many the first few, and where the others stand."""
    whole = study.ids is None or study.column(study.ids.name).type.startswith(("Int", "UInt"))
    few = ", ".join(id if whole else quoted(id) for id in ids[:_LISTED])
    more = f"  # and {len(ids) - _LISTED:,} more, in the figures" if len(ids) > _LISTED else ""
    if study.ids is None:
        return f'table = table.with_row_index("row number").filter(~pl.col("row number").is_in([{few}])){more}'
    return f"table = table.filter(~pl.col({quoted(study.ids.name)}).is_in([{few}])){more}"


def _ids(study: Study) -> Iterator[Advice]:
    ids = study.ids
    if ids is None:
        return
    if ids.repeated:
        why = f"{ids.repeated:,} of {study.train.rows:,} rows have an id that occurred before"
        why += f" (first: {', '.join(ids.first)}); predictions are matched by id"
        yield Advice(
            "Give every row an id of its own",
            why,
            f'table = table.unique({quoted(ids.name)}, keep="first", maintain_order=True)',
            "repeated ids",
        )


def _leaks(study: Study) -> Iterator[Advice]:
    leaks = [one for one in study.powers if one.leak]
    if not leaks:
        return
    rest = [one for one in study.powers if not one.leak]
    said = "; ".join(
        f"{quoted(one.column)} alone removes {one.power:.1%} of the uncertainty of {quoted(study.target.name)}"
        + (f" (AUC {one.auc:.4f})" if one.auc is not None else "")
        for one in leaks[:3]
    )
    why = f"{said}, out of fold on {leaks[0].rows:,} rows"
    why += f"; the next column, {quoted(rest[0].column)}, {rest[0].power:.1%}" if rest else ""
    line = f"table = table.drop({named([one.column for one in leaks])})"
    yield Advice("Ask whether this column is known when predictions are made; if not, drop it", why, line, "leak")


def _repeats(study: Study) -> Iterator[Advice]:
    if study.images:
        for images in study.images:
            yield from _equal(study, images.repeats, "image", images.column)
    elif study.repeats is not None:
        yield from _equal(study, study.repeats, "row", None)


def _equal(study: Study, repeats: Repeats, thing: str, column: str | None) -> Iterator[Advice]:
    names = [c.name for c in study.train.columns if c.role not in ("id", "target")]
    others = [c.name for c in study.train.columns if c.role in ("id", "target")]
    few = quoted(column) if column else f"[{', '.join(map(quoted, names))}]"
    short = column is not None or len(names) <= NAMED
    if repeats.repeated and not repeats.by_accident:
        why = f"{repeats.repeated:,} of {study.train.rows:,} training rows repeat an earlier {thing}"
        why += f" ({ids_of(repeats.first)})"
        keep = "first"
        if repeats.conflicting and study.target.kind == "classes":
            keep = "none"
            why += f"; {repeats.conflicting:,} of the equal rows contradict each other in {quoted(study.target.name)}"
        why += "; parted by the folds, they are predicted by heart"
        on = few if short else f"pl.selectors.exclude({named(others)})" if others else ""
        line = f'table = table.unique({on}{", " if on else ""}keep="{keep}", maintain_order=True)'
        yield Advice(f"Drop repeated {thing}s, or keep them in one fold", why, line, "duplicates")
    if repeats.shared and not repeats.shared_by_accident and study.test is not None:
        why = f"{repeats.shared:,} of {study.test.rows:,} test rows equal a training row"
        on = few if short else f"[name for name in test.columns if name not in [{named(others)}]]"
        line = f'table = table.join(test, on={on}, how="anti")'
        yield Advice("Do not trust a test score on rows seen in training", why, line, "shared with test")


def _near(study: Study) -> Iterator[Advice]:
    equal = {images.column: images.repeats for images in study.images}
    for near in study.near:
        known = equal.get(near.column)
        yield from _alike(
            study,
            near,
            "image",
            "near_images(prints)",
            told=known.repeated if known else 0,
            shared=known.shared if known else None,
        )
    for texts in study.texts:
        if texts.near > _by_chance(texts.rows) or (texts.shared or 0) > _by_chance(texts.rows):
            near = Near(
                column=texts.column,
                near=texts.near,
                conflicting=texts.conflicting,
                shared=texts.shared,
                first=texts.first,
                rows=texts.rows,
            )
            yield from _alike(study, near, "text", f"near_texts(table[{quoted(texts.column)}])", told=0, shared=0)


def _by_chance(rows: int) -> float:
    """Images and texts of people are alike now and then; two in a thousand are no flaw."""
    return rows / 500


def _alike(study: Study, near: Near, thing: str, call: str, *, told: int, shared: int | None) -> Iterator[Advice]:
    """Near-duplicates, if there are more than the equal ones that were told already."""
    where = f'folds = bt.Grouped("twin")  # twin: groups_of_pairs(len(table), {call}), batteries.prepare.duplicates'
    if near.near > max(2 * told, _by_chance(near.rows)):
        why = f"{near.near:,} of {near.rows:,} training rows have an {thing}" if thing == "image" else ""
        why = why or f"{near.near:,} of {near.rows:,} training rows have a {thing}"
        why += f" in {quoted(near.column)} that is nearly the same as another row's ({ids_of(near.first)})"
        if near.conflicting:
            why += f"; {near.conflicting:,} of them disagree with a twin in {quoted(study.target.name)}"
        yield Advice(f"Keep {thing}s that are nearly the same in one fold", why, where, "near-duplicates")
    if study.test is not None and (near.shared or 0) > max(shared or 0, _by_chance(study.test.rows)):
        why = f"{near.shared:,} of {study.test.rows:,} test rows have nearly the same {thing} as a training row"
        yield Advice("Do not trust a test score on rows nearly seen in training", why, "", "shared with test")


def _told_apart(found: Adversarial) -> str:
    low, high = found.band
    folds = f"{min(found.folds):.3f} to {max(found.folds):.3f}"
    return (
        f"a classifier tells test from training rows with an AUC of {found.auc:.3f} (folds {folds}); by chance 95 % lie"
        f" within {low:.3f} to {high:.3f}, p {found.p_value:.3f}"
    )


def _drift(study: Study) -> Iterator[Advice]:
    """Columns that differ one by one, and those by which a classifier tells the tables apart.

    That the test table is of later days is no flaw; the folds are advised to follow it.
    """
    days = study.later[0].name if study.later else None
    clear = [drift for drift in study.drift if drift.clear and drift.column != days]
    found = study.adversarial if study.adversarial and study.adversarial.clear else None
    if not clear and found is None:
        return
    least = 0.0 if found is None else max(0.01, _PARTNER * found.columns[0].drop)
    telling = [] if found is None else [one for one in found.columns if one.drop > least] or list(found.columns[:1])
    reasons = []
    if found is not None:
        drops = ", ".join(f"{quoted(one.column)} (by {one.drop:.3f})" for one in telling[:3])
        reasons.append(f"{_told_apart(found)}; it falls most when shuffled: {drops}")
    if clear:
        count = len({drift.column for drift in clear})
        more = f" ({count} of the columns compared differ clearly)" if count > 1 else ""
        reasons.append(f"training and test differ: {'; '.join(_moved(drift) for drift in clear[:3])}{more}")
    columns = list(dict.fromkeys([*(one.column for one in telling), *(drift.column for drift in clear)]))
    real = [name for name in columns if any(column.name == name for column in study.train.columns)]
    drop = f"table = table.drop({named(real)})" if real else ""
    yield Advice("Score once without the columns that drift", "; ".join(reasons), drop, "drift")


def _moved(drift: Drift) -> str:
    chance = f"p {drift.p_value:.0e}" if drift.p_value > 1e-99 else "p < 1e-99"
    figures = f"distance {drift.distance:.2f}, {chance}"
    return f"{quoted(drift.column)} {drift.train} against {drift.test} ({figures})"


def _labels(study: Study) -> Iterator[Advice]:
    found = study.labels
    if found is None or not found.clear:
        return
    first = ", ".join(f"{one.id} ({one.label}, predicted {one.predicted})" for one in found.suspects[:4])
    what = "are contradicted with confidence by their out-of-fold prediction"
    why = f"{found.wrong:,} of {found.rows:,} labels {what}; look at ids {first}"
    line = _without([one.id for one in found.suspects], study)
    yield Advice("Look at the rows whose label is doubted, and train once without them", why, line, "labels")
