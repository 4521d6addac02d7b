"""Decoded: images decoded once into a file of bytes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from batteries.errors import ConfigError, CorruptError, DataError, ResourceError
from batteries.prepare.decoded import Rows, decoded
from batteries.prepare.pixels import read_pixels
from batteries.train.loaders import Loader
from batteries.train.samplers import Shuffled

IMAGES = (load_digits().images[:300] * 15).astype(np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """300 digits as PNG files."""
    folder = tmp_path_factory.mktemp("images")
    for row, image in enumerate(IMAGES):
        Image.fromarray(image).save(folder / f"{row:03}.png")
    return folder


@pytest.fixture
def names(folder: Path) -> list[str]:
    """Their paths, in order."""
    return sorted(map(str, folder.glob("*.png")))


@pytest.mark.parametrize("workers", [1, 2])
def test_bytes_are_those_of_the_files_whatever_the_number_of_processes(names: list[str], workers: int) -> None:
    made = decoded(names, size=(8, 8), mode="L", workers=workers)
    assert made.path == Path("cache/8x8-L.npy")
    assert np.array_equal(made.pixels[..., 0], IMAGES)
    assert sorted(path.name for path in Path("cache").iterdir()) == [".lock", "8x8-L.json", "8x8-L.npy"]
    made.verify()


def test_the_second_call_opens_what_the_first_one_made(names: list[str]) -> None:
    first = decoded(names, size=(8, 8), mode="L")
    before = first.path.stat().st_mtime_ns
    again = decoded(names, size=(8, 8), mode="L")
    assert again == first
    assert again.path.stat().st_mtime_ns == before


def test_a_file_that_changed_is_noticed(tmp_path: Path, names: list[str]) -> None:
    mine = tmp_path / "mine.png"
    Image.fromarray(IMAGES[0]).save(mine)
    decoded([mine], size=(8, 8), mode="L")
    Image.fromarray(IMAGES[1]).save(mine)
    assert np.array_equal(decoded([mine], size=(8, 8), mode="L").pixels[0, ..., 0], IMAGES[1])


def test_sizes_and_modes_lie_side_by_side(names: list[str]) -> None:
    grey, colour = decoded(names[:3], size=(8, 8), mode="L"), decoded(names[:3], size=(16, 12))
    assert grey.pixels.shape == (3, 8, 8, 1)
    assert colour.pixels.shape == (3, 16, 12, 3)
    assert grey.path.exists()


def test_a_loader_gathers_whole_batches_from_the_map(names: list[str]) -> None:
    images = decoded(names, size=(8, 8), mode="L").of(names[100:200][::-1])
    targets = torch.arange(100)
    loader = Loader((images, targets), batch_size=32, sampler=Shuffled(), seed=3)
    seen = 0
    for batch in loader.epoch(0):
        assert batch.inputs.dtype == torch.uint8
        assert np.array_equal(batch.inputs[..., 0].numpy(), IMAGES[100:200][::-1][batch.targets.numpy()])
        seen += batch.size
    assert seen == 100
    alone = Loader(images, batch_size=64, labelled=False)
    assert [tuple(batch.inputs.shape) for batch in alone.epoch(0)] == [(64, 8, 8, 1), (36, 8, 8, 1)]


def test_rows_read_nothing_but_what_is_asked_for() -> None:
    rows = Rows(np.arange(10, dtype=np.uint8).reshape(5, 2), np.array([4, 0]))
    assert (len(rows), rows.shape, rows.ndim, rows.dtype, rows.nbytes) == (2, (2, 2), 2, np.uint8, 4)
    assert rows[np.array([1, 0, 0])].tolist() == [[0, 1], [8, 9], [8, 9]]


def test_paths_that_were_not_decoded_are_named(names: list[str]) -> None:
    with pytest.raises(DataError, match=r"1 of 2 images are not among the 3 that were decoded \(first: other.png\)"):
        decoded(names[:3], size=(8, 8)).of([names[0], "other.png"])


def test_what_cannot_be_read_is_refused_by_name_and_leaves_nothing(tmp_path: Path, names: list[str]) -> None:
    (tmp_path / "torn.png").write_bytes(Path(names[0]).read_bytes()[:60])
    (tmp_path / "text.jpg").write_text("no image")
    bad = [str(tmp_path / "torn.png"), str(tmp_path / "text.jpg")]
    with pytest.raises(DataError, match=r"2 of 4 images cannot be read \(.*torn.png: .*; .*text.jpg: Unidentified"):
        decoded([*names[:2], *bad], size=(8, 8))
    assert [path.name for path in Path("cache").iterdir()] == [".lock"]
    with pytest.raises(DataError, match=r"1 of 2 images cannot be read \(gone\.png: no such file"):
        decoded([names[0], "gone.png"], size=(8, 8))


def test_what_cannot_be_read_can_be_black_and_listed(tmp_path: Path, names: list[str]) -> None:
    asked = [names[5], "gone.png"]
    made = decoded(asked, size=(8, 8), mode="L", allow_unreadable=True)
    assert list(made.unreadable) == ["gone.png"]
    assert not made.pixels[1].any()
    assert decoded(asked, size=(8, 8), mode="L", allow_unreadable=True).unreadable == made.unreadable
    with pytest.raises(DataError, match="1 of 2 images cannot be read"):
        decoded(asked, size=(8, 8), mode="L")


def test_a_path_twice_no_path_and_no_size_are_refused(names: list[str]) -> None:
    with pytest.raises(DataError, match="different paths, got 2, 1 of them different"):
        decoded([names[0], names[0]], size=(8, 8))
    with pytest.raises(DataError, match="got 0"):
        decoded([], size=(8, 8))
    with pytest.raises(ConfigError, match=r"size above 0 and a mode RGB or L, got \(0, 8\) and 'CMYK'"):
        decoded(names, size=(0, 8), mode="CMYK")  # type: ignore[arg-type]


def test_a_cut_file_is_refused_and_a_changed_byte_is_found_by_verify(names: list[str]) -> None:
    made = decoded(names, size=(8, 8), mode="L")
    with open(made.path, "rb+") as file:
        file.seek(-1, 2)
        file.write(b"\xff")
    with pytest.raises(CorruptError, match=r"8x8-L\.npy: was changed or damaged"):
        decoded(names, size=(8, 8), mode="L").verify()
    os.truncate(made.path, 500)
    with pytest.raises(CorruptError, match=r"8x8-L.npy: is not the file that was written; remove .*8x8-L.json"):
        decoded(names, size=(8, 8), mode="L")


def test_a_damaged_record_is_made_anew(names: list[str]) -> None:
    made = decoded(names, size=(8, 8), mode="L")
    made.path.with_suffix(".json").write_text("{")
    assert decoded(names, size=(8, 8), mode="L") == made


def test_more_than_the_disk_holds_is_refused_before_it_begins(names: list[str]) -> None:
    with pytest.raises(ResourceError, match=r"cache/4000000x4000000-RGB.npy needs [\d,]+ bytes, [\d,]+ are free"):
        decoded(names, size=(4_000_000, 4_000_000))


def test_a_killed_decoding_leaves_no_process_and_the_next_one_is_whole(folder: Path, names: list[str]) -> None:
    script = (
        "import time, batteries.prepare.decoded as d\n"
        "real = d.read_pixels\n"
        "def slow(*what):\n    time.sleep(0.05)\n    return real(*what)\n"
        "d.read_pixels = slow\n"
        f"names = sorted(map(str, d.Path({str(folder)!r}).glob('*.png')))\n"
        "d.decoded(names, size=(8, 8), mode='L', workers=2)\n"
    )
    child = subprocess.Popen([sys.executable, "-c", script], start_new_session=True)
    until = time.monotonic() + 60
    while not list(Path().glob("cache/.8x8-L.npy.*.tmp")) and time.monotonic() < until:
        time.sleep(0.02)
    time.sleep(0.3)
    child.send_signal(signal.SIGKILL)
    child.wait()
    while alive(child.pid) and time.monotonic() < until:
        time.sleep(0.05)
    assert not alive(child.pid)
    assert not Path("cache/8x8-L.npy").exists()
    assert np.array_equal(decoded(names, size=(8, 8), mode="L").pixels[..., 0], IMAGES)
    assert not list(Path("cache").glob(".*.tmp"))


def alive(group: int) -> bool:
    """Whether a process of the group is left."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def test_images_are_upright_as_their_exif_says(tmp_path: Path) -> None:
    image = Image.new("RGB", (20, 10))
    image.paste((255, 0, 0), (0, 0, 10, 10))  # the left half is red
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter: the left side is shown on top
    image.save(tmp_path / "turned.png", exif=exif)
    pixels = read_pixels(tmp_path / "turned.png", (20, 10), "RGB")
    assert pixels[2, 5].tolist() == [255, 0, 0]
    assert pixels[17, 5].tolist() == [0, 0, 0]


def test_sixteen_bits_keep_their_upper_byte(tmp_path: Path) -> None:
    deep = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    assert np.array_equal(read_pixels(tmp_path / "deep.png", (8, 8), "L")[..., 0], deep >> 8)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGBA", "CMYK", "LA"])
def test_every_mode_becomes_the_one_asked_for(tmp_path: Path, mode: str) -> None:
    path = tmp_path / ("it.tif" if mode == "CMYK" else "it.png")
    Image.new("RGB", (9, 9), (250, 250, 250)).convert(mode).save(path)
    for asked, channels in (("RGB", 3), ("L", 1)):
        pixels = read_pixels(path, (4, 5), asked)
        assert pixels.shape == (4, 5, channels)
        assert pixels.min() > 240
