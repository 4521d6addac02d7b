"""Study plots: what the deeper looks of a study found, as charts.

In:    a Study.
Out:   plots with captions.
Next:  the gallery places them on the study page.
"""

from __future__ import annotations

from matplotlib.axes import Axes

from batteries.prepare.study.facts import Drift, Study
from batteries.prepare.study.findings import Adversarial, Associations, Texts
from batteries.report import plots
from batteries.report.view import Plot, counted, figure, percent

_MOST_BARS = 20
_MOST_DRIFTS = 6
_MOST_SQUARES = 24


def power_plots(study: Study) -> list[Plot]:
    """Bars of the most telling columns."""
    shown = [one for one in study.powers if one.power > 0][:_MOST_BARS]
    if not shown:
        return []
    label = (
        f"What each column alone says about {study.target.name}, at most {percent(shown[0].power)} ({shown[0].column})"
    )
    caption = f"Share of the uncertainty of {study.target.name} that a column alone removes, out of fold,"
    caption += f" on {counted(shown[0].rows, 'row')}."
    if len(shown) < len(study.powers):
        caption += f" The {len(shown)} most telling of {len(study.powers)} columns."
    return [Plot(plots.bars([one.column for one in shown], [one.power for one in shown], label, x="power"), caption)]


def association_plots(found: Associations | None) -> list[Plot]:
    """Squares whose area is the strength."""
    if found is None or len(found.names) < 3:
        return []
    strongest = [max(value for j, value in enumerate(row) if j != i) for i, row in enumerate(found.matrix)]
    shown = sorted(sorted(range(len(strongest)), key=lambda i: -strongest[i])[:_MOST_SQUARES])
    n = len(shown)

    def draw(axes: Axes) -> None:
        places = [(i, j, found.matrix[shown[i]][shown[j]]) for i in range(n) for j in range(n) if i != j]
        axes.scatter(
            [j for _, j, _ in places],
            [i for i, _, _ in places],
            s=[value * (215 / n) ** 2 for *_, value in places],
            marker="s",
            color=plots.colour(0),
            linewidths=0,
        )
        names = [name if len(name) <= 18 else f"{name[:17]}…" for name in (found.names[i] for i in shown)]
        size = 9 if n <= 16 else 7.5
        axes.set_yticks(range(n), names, fontsize=size)
        axes.set_xticks(range(n), names, rotation=90, fontsize=size)
        axes.set(xlim=(-0.6, n - 0.4), ylim=(n - 0.4, -0.6), aspect="equal")
        axes.grid(visible=False)

    label = f"How strongly {n} columns go together"
    caption = "The larger the square, the stronger: Spearman's correlation without its sign, Cramér's V between"
    caption += f" categories, the correlation ratio between the two kinds; {counted(found.rows, 'row')}."
    caption += f" The {n} of {len(found.names)} columns that go together most." if n < len(found.names) else ""
    return [Plot(plots.chart(draw, label, height=360), caption)]


def adversarial_plots(found: Adversarial | None) -> list[Plot]:
    """AUC of the folds beside what chance reaches, and the columns that give the tables away."""
    if found is None:
        return []

    def draw(axes: Axes) -> None:
        axes.axvspan(*found.band, color=plots.colour(7), alpha=0.25, linewidth=0)
        axes.axvline(found.auc, color=plots.colour(0), linewidth=1.4)
        axes.plot(found.folds, range(len(found.folds)), "o", color=plots.colour(0), markersize=6)
        axes.set_yticks(range(len(found.folds)), [str(fold) for fold in range(len(found.folds))])
        low, high = min(0.4, *found.folds), max(0.65, *found.folds)
        axes.set(xlim=(low - 0.02, high + 0.02), ylim=(len(found.folds) - 0.4, -0.6), xlabel="AUC", ylabel="fold")

    label = f"AUC of telling test from training rows: {found.auc:.3f}"
    caption = "One dot a fold, the line all rows pooled; the band holds 95 % of 999 random relabellings."
    made = [Plot(plots.chart(draw, label), caption)]
    telling = [one for one in found.columns if one.drop > 0.001]
    if telling and found.clear:
        label = f"How much the AUC falls when a column is shuffled, most for {telling[0].column}"
        bars = plots.bars([one.column for one in telling], [one.drop for one in telling], label, x="fall of the AUC")
        made.append(Plot(bars, "The columns that give the tables away: what shuffling one costs."))
    return made


def drift_plots(drifts: tuple[Drift, ...]) -> list[Plot]:
    """Training and test over each other, for the clearest differences of numbers."""
    shown = [drift for drift in drifts if drift.clear and drift.edges][:_MOST_DRIFTS]
    return [_drift(drift) for drift in shown]


def _drift(drift: Drift) -> Plot:
    assert drift.edges is not None
    low, high = drift.edges
    width = (high - low) / len(drift.shares[0])
    steps = [low + width * i for i in range(len(drift.shares[0]) + 1)]

    def draw(axes: Axes) -> None:
        for number, (name, share) in enumerate(zip(("training", "test"), drift.shares, strict=True)):
            axes.stairs(share, steps, color=plots.colour(number), linewidth=1.6, label=name)
        axes.grid(visible=False, axis="x")
        axes.legend(frameon=False, fontsize=9)
        axes.set(xlabel=drift.column, ylabel="share of rows")

    label = f"{drift.column} in training and test, distance {figure(drift.distance)}"
    return Plot(plots.chart(draw, label), f"{drift.column}: {drift.train} in training, {drift.test} in test.")


def text_plots(texts: Texts) -> list[Plot]:
    """How long the texts are."""
    least, middle, long, most = texts.tokens
    if not texts.histogram:
        return []
    label = f"Words of the texts of {texts.column}, {least:,} to {most:,}"
    caption = f"Half of the texts have {counted(middle, 'word')} or fewer, 95 % {long:,} or fewer."
    return [Plot(plots.spread(texts.histogram, (least, most), label, x="words"), caption)]
