"""Inputs: advice on images and texts: how to scale, size, cut and augment them.

In:    the facts of a study.
Out:   advice with its evidence.
Next:  `advice` places it.
"""

from __future__ import annotations

from collections.abc import Iterator

from batteries.prepare.study.facts import Advice, Images, Study
from batteries.prepare.study.findings import Change
from batteries.prepare.study.words import counted, quoted

_SHIFTED = 0.9  # of the words that half of training knows of the other half
_FLIPS = {
    "horizontal flip": "images.flip(-1)",
    "vertical flip": "images.flip(-2)",
    "quarter turn": "images.rot90(1, (-2, -1))",
}


def inputs(study: Study) -> Iterator[Advice]:
    """Yield advice on what a model is fed."""
    for part in (_images, _files, _changes, _texts):
        yield from part(study)


def _images(study: Study) -> Iterator[Advice]:
    for images in study.images:
        centred = max(map(abs, images.mean)) < 0.1 and all(0.8 < d < 1.25 for d in images.deviation)
        if not centred and min(images.deviation) > 0:
            yield _normalise(images)


def _files(study: Study) -> Iterator[Advice]:
    for files in study.files:
        if files.mean and min(files.deviation) > 0:
            mean, deviation = (", ".join(f"{value:.4f}" for value in some) for some in (files.mean, files.deviation))
            line = f"images = (images / 255 - {mean}) / {deviation}"
            if len(files.mean) > 1:
                means, deviations = (f"torch.tensor([{each}])[:, None, None]" for each in (mean, deviation))
                line = f"images = (images / 255 - {means}) / {deviations}"
            why = f"pixels of {counted(files.files, 'file')} of {quoted(files.column)}, scaled to 0 to 1, have mean"
            yield Advice("Scale and centre the pixels", f"{why} {mean} and deviation {deviation}", line)
        if len(files.sizes) > 1:
            sizes = ", ".join(f"{size} ({times:,})" for size, times in files.sizes[:3])
            why = f"{len(files.sizes)} sizes: {sizes}{', ...' if len(files.sizes) > 3 else ''}"
            yield Advice("Bring the images to one size before they are batched", why, "")
        if len(files.modes) > 1:
            modes = ", ".join(f"{mode} ({times:,})" for mode, times in files.modes)
            line = 'image = Image.open(path).convert("RGB")'
            yield Advice(
                "Bring the images to one mode", f"files of {quoted(files.column)} have the modes {modes}", line
            )


def _changes(study: Study) -> Iterator[Advice]:
    for column in dict.fromkeys(change.column for change in study.changes):
        own = [change for change in study.changes if change.column == column]
        fitting, others = ([change for change in own if change.fits == fits] for fits in (True, False))
        base = f"the nearest training image names the class of {own[0].plain:.1%} of held-out images"
        if others:
            names = " or ".join(f"a {change.change}" for change in others)
            yield Advice(f"Do not augment by {names}", f"{base}; {_after(others)}", "")
        if fitting:
            names = " and ".join(f"a {change.change}" for change in fitting)
            yield Advice(f"Augment by {names}", f"{base}; {_after(fitting)}", _half(_FLIPS[fitting[0].change]))


def _half(changed: str) -> str:
    return f"images = torch.where(random.uniform()[:, None, None, None] < 0.5, {changed}, images)"


def _after(changes: list[Change]) -> str:
    return ", ".join(f"{change.changed:.1%} after a {change.change}" for change in changes)


def _texts(study: Study) -> Iterator[Advice]:
    for texts in study.texts:
        least, middle, long, most = texts.tokens
        if long:
            why = f"texts of {quoted(texts.column)} have {least:,} to {most:,} words, {middle:,} in the middle;"
            why += f" 95 % have {long:,} or fewer. Subwords are a third more in English, more elsewhere"
            yield Advice("Cut long texts where few are hurt", why, f"tokens = tokens[:, :{-(-long * 4 // 3)}]")
        known, chance = texts.known_words, texts.known_words_by_chance
        if known is not None and chance is not None and known < _SHIFTED * chance:
            why = f"training has {known:.1%} of the words of test rows in {quoted(texts.column)}, one half of training"
            yield Advice("Expect words that training does not know", f"{why} {chance:.1%} of the other's", "")


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
        f"pixels of {quoted(images.column)} ({images.height}x{images.width}, {images.type})"
        f" run from {images.minimum:g} to {images.maximum:g},"
        f" mean {_list(images.mean)}, deviation {_list(images.deviation)}"
    )
    return Advice("Scale and centre the pixels", why, line)


def _list(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:.4g}" for value in values)
