"""Pictures: every file is read or named, and the figures are those of its pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from batteries.prepare.pictures import Picture, Unreadable, read_picture, read_pictures


def photo() -> Image.Image:
    from sklearn.datasets import load_sample_image

    return Image.fromarray(load_sample_image("china.jpg"))


def test_sums_are_those_of_the_pixels(tmp_path: Path) -> None:
    image = photo()
    image.save(tmp_path / "a.png")
    found = read_picture(tmp_path / "a.png")
    assert isinstance(found, Picture)
    pixels = np.asarray(image) / 255
    np.testing.assert_allclose(found.total, pixels.sum(axis=(0, 1)), rtol=1e-12)
    np.testing.assert_allclose(found.squares, (pixels**2).sum(axis=(0, 1)), rtol=1e-12)
    assert (found.width, found.height, found.mode, found.format) == (640, 427, "RGB", "PNG")
    assert found.small.shape == (32, 48, 3)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "I", "F"])
def test_every_mode_can_be_read(tmp_path: Path, mode: str) -> None:
    grey = photo().convert("L")
    if mode == "I;16":
        image = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    else:
        image = grey.convert(mode) if mode in ("I", "F", "1") else photo().convert(mode)
    image.save(tmp_path / "a.tif")
    found = read_picture(tmp_path / "a.tif")
    assert isinstance(found, Picture)
    assert found.mode == mode
    share = found.total.mean() / (found.width * found.height)
    assert share == pytest.approx(np.asarray(grey).mean() / 255, abs=0.05)


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "bmp", "tif", "gif"])
def test_a_file_cut_short_is_named_with_the_reason(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    photo().save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    found = read_picture(path)
    assert isinstance(found, Unreadable)
    assert found.path == str(path)
    assert found.reason
    assert str(path) not in found.reason


def test_no_damage_stops_the_others(tmp_path: Path) -> None:
    good = tmp_path / "good.png"
    photo().save(good)
    whole = good.read_bytes()
    random = np.random.default_rng(0)
    paths = [good]
    for number in range(40):
        damaged = bytearray(whole)
        for place in random.integers(0, len(whole) if number % 2 else 60, 8):
            damaged[place] = int(random.integers(256))
        paths.append(tmp_path / f"{number}.png")
        paths[-1].write_bytes(bytes(damaged))
    for name, content in (("empty.png", b""), ("text.png", b"hello")):
        paths.append(tmp_path / name)
        paths[-1].write_bytes(content)
    paths += [tmp_path / "none.png", tmp_path]
    found = read_pictures(paths, show=False)
    assert len(found) == len(paths)
    assert isinstance(found[0], Picture)
    reasons = [one.reason if isinstance(one, Unreadable) else "" for one in found[-4:]]
    assert reasons[:3] == ["empty", "not an image", "no such file"]
    assert reasons[3]
