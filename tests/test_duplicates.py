"""Duplicates: what is alike is found, what is not is left alone, and nothing depends on chance."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from io import BytesIO
from itertools import combinations
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageEnhance

from batteries.prepare.duplicates import (
    equal_rows,
    fingerprint,
    fingerprints,
    groups_of_pairs,
    jaccard,
    joined,
    min_hashes,
    near_images,
    near_texts,
    pieces_of,
)

FASHION = Path("/usr/share/datasets/fashion-mnist/t10k-images-idx3-ubyte.gz")


def photos() -> list[Image.Image]:
    from sklearn.datasets import load_sample_images

    whole = [Image.fromarray(pixels) for pixels in load_sample_images().images]
    return [one.crop((x, y, x + 200, y + 200)) for one in whole for x in range(0, 401, 200) for y in (0, 200)]


def as_jpeg(image: Image.Image) -> Image.Image:
    buffer = BytesIO()
    image.save(buffer, "JPEG", quality=60)
    return Image.open(BytesIO(buffer.getvalue()))


CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "compressed": as_jpeg,
    "doubled": lambda image: image.resize((2 * image.width, 2 * image.height)),
    "darker": lambda image: ImageEnhance.Brightness(image).enhance(0.8),
    "grey": lambda image: image.convert("L"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_photograph_is_found_again_after_a_change(change: str) -> None:
    originals = photos()
    prints = joined([fingerprint(image) for image in [*originals, *map(CHANGES[change], originals)]])
    n = len(originals)
    np.testing.assert_array_equal(near_images(prints), [[i, n + i] for i in range(n)])


def test_digits_that_look_alike_are_no_duplicates() -> None:
    from sklearn.datasets import load_digits

    images = load_digits().images
    assert len(near_images(fingerprints(images))) == 0
    brighter = np.concatenate([images, images[[5, 900]] * 0.75])
    np.testing.assert_array_equal(near_images(fingerprints(brighter)), [[5, 1797], [900, 1798]])


@pytest.mark.skipif(not FASHION.exists(), reason="Debian's dataset-fashion-mnist is not installed")
def test_bands_of_hashes_find_what_comparing_all_pairs_finds() -> None:
    with gzip.open(FASHION) as file:
        pixels = np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 28, 28)[:1500]
    prints = fingerprints(pixels)
    vectors = prints.pictures - prints.pictures.mean(axis=1, keepdims=True)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    bits = np.bitwise_count(prints.hashes[:, None] ^ prints.hashes[None])
    alike = np.triu((bits <= 6) & (vectors @ vectors.T >= 0.95), k=1)
    assert alike.sum() > 40
    np.testing.assert_array_equal(near_images(prints, likeness=0.95), np.argwhere(alike))


def test_images_of_one_colour_are_alike_where_they_are_equal() -> None:
    pixels = np.zeros((5, 8, 8))
    pixels[2:4] = 0.5
    pixels[4] = np.nan
    np.testing.assert_array_equal(near_images(fingerprints(pixels)), [[0, 1], [0, 4], [2, 3]])


def test_no_image_and_one_image_have_no_pairs() -> None:
    assert near_images(joined([])).shape == (0, 2)
    assert near_images(fingerprints(np.ones((1, 8, 8), dtype=np.uint8))).shape == (0, 2)


SENTENCES = [
    "The quick brown fox jumps over the lazy dog near the bank of the river every single morning.",
    "A model that saw the row in training cannot be judged by it afterwards, whatever it says.",
    "Прежде чем обучать модель, посмотрите на данные и на то, как они были собраны.",
    "データを分割する前に、重複した行を一つのグループにまとめてください。それから学習を始めます。",
    "",
    "ok",
]


def test_texts_with_a_word_changed_are_near_and_others_are_not() -> None:
    changed = [SENTENCES[0].replace("single ", ""), SENTENCES[1].upper() + "!!", SENTENCES[2].replace("они", "все")]
    pairs = near_texts([*SENTENCES, *changed])
    np.testing.assert_array_equal(pairs, [[0, 6], [1, 7], [2, 8]])


def test_empty_and_equal_texts_are_alike() -> None:
    np.testing.assert_array_equal(near_texts(["", "a b", " ", "A, b", "b a"]), [[0, 2], [1, 3]])
    assert near_texts([]).shape == (0, 2)


def test_the_share_of_equal_min_hashes_estimates_the_jaccard_index() -> None:
    words = [f"word{i}" for i in range(60)]
    texts = [" ".join(words[start : start + 40]) for start in range(0, 20, 2)]
    signatures = min_hashes(texts)
    errors = [
        np.mean(signatures[i] == signatures[j]) - jaccard(pieces_of(texts[i]), pieces_of(texts[j]))
        for i, j in combinations(range(len(texts)), 2)
    ]
    assert np.abs(errors).max() < 4 * 0.5 / 64**0.5  # four standard deviations of 64 draws at most
    assert abs(np.mean(errors)) < 0.05


def test_min_hashes_of_a_text_do_not_depend_on_its_neighbours() -> None:
    alone = [min_hashes([text])[0] for text in SENTENCES]
    np.testing.assert_array_equal(min_hashes(SENTENCES), alone)


def test_near_texts_of_many_rows_are_found_where_they_were_planted() -> None:
    random = np.random.default_rng(0)
    words = np.array([f"w{i}" for i in range(3000)])
    texts = [" ".join(random.choice(words, 30)) for _ in range(5000)]
    texts += [f"{texts[i]} again" for i in range(100)]
    np.testing.assert_array_equal(near_texts(texts), [[i, 5000 + i] for i in range(100)])


@given(st.lists(st.tuples(st.integers(0, 2), st.sampled_from(["a", "b", None]), st.sampled_from([0.0, float("nan")]))))
def test_equal_rows_are_those_that_python_finds_equal(rows: list[tuple[int, str | None, float]]) -> None:
    table = pl.DataFrame(rows, schema={"a": pl.Int64, "b": pl.String, "c": pl.Float64}, orient="row")
    texts = [str(row) for row in rows]
    np.testing.assert_array_equal(equal_rows(table), [texts.index(text) for text in texts])
    np.testing.assert_array_equal(equal_rows(table, ["b"]), [[r[1] for r in rows].index(row[1]) for row in rows])


def test_rows_of_objects_alone_are_all_their_own() -> None:
    table = pl.DataFrame({"a": pl.Series([object(), object()], dtype=pl.Object)})
    np.testing.assert_array_equal(equal_rows(table), [0, 1])


def test_rows_with_arrays_and_lists_are_compared() -> None:
    pixels: NDArray[np.uint8] = np.arange(32, dtype=np.uint8).reshape(2, 4, 4)
    table = pl.DataFrame({"image": pixels[[0, 1, 0]], "list": [[1], [1], [1]]})
    np.testing.assert_array_equal(equal_rows(table), [0, 1, 0])


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=12))
def test_groups_are_what_pairs_connect(links: list[tuple[int, int]]) -> None:
    groups = groups_of_pairs(10, np.array(links, dtype=np.int64).reshape(-1, 2))
    expected = list(range(10))
    for _ in range(10):  # spread the least number along the links until nothing changes
        for i, j in links:
            expected[i] = expected[j] = min(expected[i], expected[j])
    np.testing.assert_array_equal(groups, expected)
