"""Plots: charts as SVG text that takes its colours from the page it stands in.

In:    numbers.
Out:   inline SVG, the same text for the same numbers, without ids or colours that bind it to one page.
Next:  the sections of the report place them.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from io import BytesIO
from typing import Any

import matplotlib as mpl
import numpy as np
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter
from numpy.typing import NDArray

SERIES = 8
"""Different colours; the ninth line is coloured like the first."""

MOST_POINTS = 1200
"""Points of all lines of a chart: a page must not grow with the length of a training, nor with folds and stages."""
_LEAST_POINTS = 20  # of one line, however many there are

_INK = "#010203"  # sentinels: colours nobody would choose, replaced by the page's own
_FAINT = "#010204"
_COLOURS = [f"#0100{number + 1:02x}" for number in range(SERIES)]
_WIDTH, _HEIGHT = 360, 236  # points of the drawing; one is about a pixel on a phone
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.size": 11.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.formatter.use_mathtext": False,
    "axes.formatter.useoffset": False,
    "axes.formatter.limits": (-5, 9),
    "grid.color": _FAINT,
    "grid.linewidth": 0.8,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "lines.linewidth": 1.6,
    "xtick.color": _FAINT,
    "ytick.color": _FAINT,
    "xtick.labelcolor": _INK,
    "ytick.labelcolor": _INK,
    "axes.edgecolor": _FAINT,
    "axes.labelcolor": _INK,
    "text.color": _INK,
}
_METADATA: dict[str, Any] = dict.fromkeys(("Date", "Creator", "Format", "Type"))

Points = tuple[Sequence[float], Sequence[float]]


def chart(draw: Callable[[Axes], object], label: str, *, height: int = _HEIGHT) -> Markup:
    """Return what `draw` puts on its axes as SVG with a text alternative.

    Matplotlib's settings hold only inside; glyphs that its font lacks are no matter, since the
    browser sets the text.
    """
    buffer = BytesIO()
    salt = sha256(label.encode()).hexdigest()[:8]
    with mpl.rc_context({**_STYLE, "svg.hashsalt": salt}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure = Figure(figsize=(_WIDTH / 72, height / 72), layout="constrained")
        draw(figure.subplots())
        # savefig would draw everything twice
        FigureCanvasSVG(figure).print_svg(buffer, metadata=_METADATA)  # type: ignore[no-untyped-call]
    return Markup(_for_page(buffer.getvalue().decode(), label, salt))


def _for_page(svg: str, label: str, salt: str) -> str:
    """Bare SVG: page colours, page font, two decimals, ids that no other chart has."""
    svg = re.sub(r"^.*?(?=<svg)", "", svg, count=1, flags=re.DOTALL)
    svg = re.sub(r"<metadata>.*?</metadata>\s*|<!--.*?-->\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    svg = re.sub(r'\b(id="|xlink:href="#|url\(#)', rf"\g<1>{salt}-", svg).replace("xlink:href", "href")
    size = re.search(r'viewBox="[^"]*"', svg)
    assert size is not None
    head = f'<svg class="chart" {size.group()} role="img" aria-label="{escape(label)}">'
    svg = re.sub(r"<svg[^>]*>", lambda _: head, svg, count=1)
    svg = re.sub(r"font: ([\d.]+px)[^;\"]*", r"font-size: \1", svg)
    svg = re.sub(r'(?<=[ ])(d|x|y|transform|points)="[^"]*"', lambda found: _rounded(found.group()), svg)
    svg = svg.replace(_INK, "currentColor").replace(_FAINT, "var(--line)")
    for number, colour in enumerate(_COLOURS, 1):
        svg = svg.replace(colour, f"var(--series-{number})")
    return re.sub(r"\n\s*", "\n", svg)


def _rounded(attribute: str) -> str:
    return re.sub(r"-?\d+\.\d{3,}", lambda number: f"{float(number.group()):.2f}", attribute)


def colour(number: int) -> str:
    """Sentinel of the series with this number, counted from 0."""
    return _COLOURS[number % SERIES]


def curves(
    lines: Sequence[tuple[int, Points]],
    label: str,
    *,
    y: str,
    stages: Sequence[tuple[float, str]] = (),
    log: bool = False,
) -> Markup:
    """Draw lines over the training step.

    `lines` are (fold, points), thinned to `MOST_POINTS` in all; `stages` are (first step, name), drawn as
    marks on top; `log` allows a logarithmic scale where the values span too much for an even one.
    """

    most = max(_LEAST_POINTS, MOST_POINTS // max(1, len(lines)))

    def draw(axes: Axes) -> None:
        for fold, points in lines:
            steps, values = thinned(points, most)
            marker = "o" if len(steps) <= 12 else ""
            axes.plot(steps, values, color=colour(fold), marker=marker, markersize=2.6, alpha=0.9)
        for number, (step, name) in enumerate(stages):
            if number:
                axes.axvline(step, color=_INK, linewidth=0.8, linestyle=(0, (2, 3)), alpha=0.6)
            at = step if number else 0.0
            placed = axes.get_xaxis_transform() if number else axes.transAxes
            axes.text(
                at, 1.02, f" {name}" if number else name, transform=placed, fontsize=10, va="bottom", clip_on=False
            )
        if log and _wide([value for _, (_, values) in lines for value in values]):
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
            axes.yaxis.set_minor_formatter(NullFormatter())
        axes.locator_params(axis="x", nbins=6)
        axes.set(xlabel="update", ylabel=y)

    return chart(draw, label)


def thinned(points: Points, most: int) -> Points:
    """Return at most so many points, each the mean of as many neighbours; a NaN among them stays one.

    >>> thinned(([1, 2, 3, 4, 5], [0.0, 1.0, 2.0, 3.0, 4.0]), most=3)
    ([1.5, 3.5, 5.0], [0.5, 2.5, 4.0])
    """
    width = -(-len(points[0]) // most)
    if width <= 1:
        return points
    starts = range(0, len(points[0]), width)
    steps, values = ([float(np.mean(each[i : i + width])) for i in starts] for each in points)
    return steps, values


def _wide(values: Sequence[float]) -> bool:
    """Whether values span so much that only a logarithm shows them all."""
    finite = [value for value in values if np.isfinite(value)]
    return bool(finite) and min(finite) > 0 and max(finite) / min(finite) > 30


def dots(values: Mapping[int, float], label: str, *, x: str) -> Markup:
    """Draw one score for each fold, their mean as a line and one standard deviation as a band."""
    folds, scores = list(values), np.array(list(values.values()))

    def draw(axes: Axes) -> None:
        if len(scores) > 1:
            mean, deviation = scores.mean(), scores.std(ddof=1)
            axes.axvspan(mean - deviation, mean + deviation, color=_INK, alpha=0.08, linewidth=0)
            axes.axvline(mean, color=_INK, linewidth=1)
        for fold, score in values.items():
            axes.plot([score], [fold], "o", color=colour(fold), markersize=6)
        axes.set_yticks(folds, [str(fold) for fold in folds])
        axes.set_ylim(max(folds) + 0.6, min(folds) - 0.6)
        axes.locator_params(axis="x", nbins=6)
        axes.set(xlabel=x, ylabel="fold")

    return chart(draw, label)


def boxes(groups: Sequence[tuple[str, Sequence[float]]], label: str, *, x: str) -> Markup:
    """Draw a box of quartiles and every score for each named group, the first on top."""

    def draw(axes: Axes) -> None:
        line = {"color": _INK, "linewidth": 1}
        places = range(len(groups))
        axes.boxplot(
            [list(scores) for _, scores in groups], positions=places, orientation="horizontal", widths=0.55,
            showfliers=False, manage_ticks=False, boxprops=line, whiskerprops=line, capprops=line,
            medianprops={"color": _COLOURS[1], "linewidth": 2},
        )  # fmt: skip
        for place, (_, scores) in enumerate(groups):
            axes.plot(scores, [place] * len(scores), "o", color=_COLOURS[0], markersize=4, alpha=0.75)
        _named_rows(axes, [name for name, _ in groups], x)

    return chart(draw, label, height=70 + 24 * max(2, len(groups)))


def intervals(points: Sequence[tuple[str, float, float | None]], label: str, *, x: str) -> Markup:
    """Draw (name, score, noise), the first on top: bars of two standard deviations, the band of the first."""

    def draw(axes: Axes) -> None:
        axes.use_sticky_edges = False  # the band would end where the chart does
        _, first, noise = points[0]
        if noise:
            axes.axvspan(first - 2 * noise, first + 2 * noise, color=_COLOURS[0], alpha=0.12, linewidth=0)
        for place, (_, value, deviation) in enumerate(points):
            bar = None if deviation is None else [2 * deviation]
            axes.errorbar([value], [place], xerr=bar, fmt="o", color=_COLOURS[0], markersize=5, elinewidth=1.4)
        _named_rows(axes, [name for name, *_ in points], x)

    return chart(draw, label, height=70 + 20 * max(2, len(points)))


def _named_rows(axes: Axes, names: Sequence[str], x: str) -> None:
    axes.set_yticks(range(len(names)), [name if len(name) <= 18 else f"{name[:17]}…" for name in names])
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
    axes.locator_params(axis="x", nbins=5)
    axes.set(xlabel=x)


def against(
    points: Sequence[tuple[str, float, float]],
    label: str,
    *,
    x: str,
    y: str,
    x_noise: Sequence[float | None],
    y_noise: Sequence[float | None],
    unlike: Sequence[bool] = (),
) -> Markup:
    """Draw named points (name, x, y) with a bar of one standard deviation each way.

    Where `meeting` says so, the line x = y is drawn, with a band of two standard deviations around it, the median
    of what is known of x; points that are `unlike` the others are squares of another colour.
    """

    def draw(axes: Axes) -> None:
        far = list(unlike) or [False] * len(points)
        for number, (_, at, to) in enumerate(points):
            axes.errorbar(
                [at], [to], xerr=_bar(x_noise[number]), yerr=_bar(y_noise[number]),
                fmt="s" if far[number] else "o", color=_COLOURS[int(far[number])],
                ecolor=(_COLOURS[int(far[number])], 0.45), markersize=5, elinewidth=0.9,
            )  # fmt: skip
        axes.margins(0.12)
        for at, to, names in _labels(points, far):
            axes.annotate(names, (at, to), xytext=(5, 4), textcoords="offset points", fontsize=10)
        axes.locator_params(nbins=6)
        if meeting(points, x_noise, y_noise):
            _equal(axes, [noise for noise in x_noise if noise])
        axes.set(xlabel=x, ylabel=y)

    return chart(draw, label, height=300)


def _labels(points: Sequence[tuple[str, float, float]], far: Sequence[bool]) -> list[tuple[float, float, str]]:
    """Names where they cover no other name, those of points unlike the others first; equal points share a label."""
    names: dict[tuple[float, float], list[str]] = {}
    for _, (name, at, to) in sorted(zip(far, points, strict=True), key=lambda each: not each[0]):
        names.setdefault((at, to), []).append(name)
    wide, high = (np.ptp([place[axis] for place in names]) or 1.0 for axis in (0, 1))
    shown: list[tuple[float, float, str]] = []
    for (at, to), own in names.items():
        label = ", ".join(own[:4]) + (", …" if len(own) > 4 else "")
        lengths = ((abs(at - x), abs(to - y), len(label if at < x else other)) for x, y, other in shown)
        if all(away > (0.05 + 0.035 * length) * wide or up > 0.06 * high for away, up, length in lengths):
            shown.append((at, to, label))
    return shown


def meeting(
    points: Sequence[tuple[str, float, float]], x_noise: Sequence[float | None], y_noise: Sequence[float | None]
) -> bool:
    """Whether x and y with their bars have a value in common, so that the line x = y is among the points.

    >>> points = [("a", 0.1, 0.5), ("b", 0.3, 0.6)]
    >>> meeting(points, [0.1, 0.1], [None, 0.1]), meeting(points, [0.1, 0.2], [None, None])
    (False, True)
    """
    left, right = _ends([at for _, at, _ in points], x_noise)
    low, high = _ends([to for *_, to in points], y_noise)
    return left <= high and low <= right


def _ends(values: Sequence[float], noises: Sequence[float | None]) -> tuple[float, float]:
    """The lowest and the highest end of bars of one standard deviation."""
    bars = [(value, noise or 0.0) for value, noise in zip(values, noises, strict=True)]
    return min(value - noise for value, noise in bars), max(value + noise for value, noise in bars)


def _equal(axes: Axes, known: Sequence[float]) -> None:
    """The line x = y with the band of its noise; the limits stay."""
    limits = axes.get_xlim(), axes.get_ylim()
    _diagonal(axes)
    if known:
        ends, width = np.array(sorted(value for pair in limits for value in pair))[[0, -1]], 2 * np.median(known)
        axes.fill_between(ends, ends - width, ends + width, color=_COLOURS[0], alpha=0.1, linewidth=0)
    axes.set(xlim=limits[0], ylim=limits[1])


def _bar(noise: float | None) -> list[float] | None:
    return None if noise is None else [noise]


def _diagonal(axes: Axes) -> None:
    low, high = (sorted((*axes.get_xlim(), *axes.get_ylim()))[i] for i in (0, -1))
    axes.axline((low, low), (high, high) if high > low else None, slope=None if high > low else 1.0,
                color=_INK, linewidth=0.8, linestyle=(0, (4, 3)), alpha=0.6)  # fmt: skip


def scatter(x: NDArray[Any], y: NDArray[Any], label: str, *, x_label: str, y_label: str) -> Markup:
    """Draw many faint points and the line x = y."""

    def draw(axes: Axes) -> None:
        alpha = float(np.clip(120 / max(1, len(x)), 0.15, 0.7))
        axes.plot(x, y, "o", color=_COLOURS[0], markersize=3.2, markeredgewidth=0, alpha=alpha)
        _diagonal(axes)
        axes.locator_params(axis="x", nbins=4)
        axes.set(xlabel=x_label, ylabel=y_label)

    return chart(draw, label, height=320)


def reliability(points: Sequence[tuple[float, float, float, int]], label: str, *, x: str, y: str) -> Markup:
    """Draw (stated, observed, deviation of observed, rows) for each bin, the size by its rows, and the line x = y."""
    largest = max(rows for *_, rows in points)

    def draw(axes: Axes) -> None:
        _diagonal_unit(axes)
        stated, observed, deviations, rows = zip(*points, strict=True)
        axes.plot(stated, observed, color=_COLOURS[0], linewidth=1, alpha=0.5)
        for at, to, deviation, count in zip(stated, observed, deviations, rows, strict=True):
            axes.errorbar([at], [to], yerr=[deviation], fmt="o", color=_COLOURS[0], elinewidth=0.9,
                          markersize=3 + 7 * float(np.sqrt(count / largest)), alpha=0.85)  # fmt: skip
        axes.set(xlabel=x, ylabel=y, xlim=(-0.03, 1.03), ylim=(-0.03, 1.03))

    return chart(draw, label, height=300)


def _diagonal_unit(axes: Axes) -> None:
    axes.plot([0, 1], [0, 1], color=_INK, linewidth=0.8, linestyle=(0, (4, 3)), alpha=0.6)


def bars(names: Sequence[str], values: Sequence[float], label: str, *, x: str) -> Markup:
    """Draw horizontal bars, the first on top."""

    def draw(axes: Axes) -> None:
        shown = [name if len(name) <= 18 else f"{name[:17]}…" for name in names]
        axes.barh(range(len(values)), values, color=_COLOURS[0], height=0.7)
        axes.set_yticks(range(len(values)), shown)
        axes.set_ylim(len(values) - 0.4, -0.6)
        axes.grid(visible=False, axis="y")
        axes.set(xlabel=x)

    return chart(draw, label, height=60 + 17 * max(3, len(names)))


def spread(counts: Sequence[int], edges: tuple[float, float], label: str, *, x: str) -> Markup:
    """Draw a histogram of equal steps between two edges."""

    def draw(axes: Axes) -> None:
        steps = np.linspace(*edges, len(counts) + 1)
        axes.stairs(counts, steps, fill=True, color=_COLOURS[0])
        axes.grid(visible=False, axis="x")
        axes.locator_params(axis="x", nbins=5)
        axes.set(xlabel=x, ylabel="rows")

    return chart(draw, label)


def spark(counts: Sequence[int], label: str) -> Markup:
    """Return a histogram the size of a word, for the cell of a table."""
    top = max(1, *counts)
    boxes = "".join(
        f'<rect x="{4 * i}" y="{20 - 20 * count / top:.1f}" width="3" height="{20 * count / top:.1f}"/>'
        for i, count in enumerate(counts)
        if count
    )
    return Markup(
        f'<svg class="spark" viewBox="0 0 {4 * len(counts)} 20" role="img" aria-label="{escape(label)}"'
        f' preserveAspectRatio="none">{boxes}</svg>'
    )
