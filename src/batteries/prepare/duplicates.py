"""Duplicates: rows, images and texts that say the same, or nearly.

In:    a table; images as arrays or files; texts.
Out:   pairs of positions, and one group number for every row.
Next:  the study counts them; `split` keeps each group in one fold.

Pairs are found without comparing all with all: whatever is alike shares a key, keys are sorted, and only
neighbours of one key are compared. Nothing is drawn at random without a fixed seed: equal input, equal pairs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL.Image import Image

Pairs = NDArray[np.int64]
"""Shape (m, 2): positions i < j of rows that are alike, sorted, each pair once."""

SIDE = 16
"""Pixels on a side of the small grey picture that is compared."""
HASH_DISTANCE = 6
"""Bits of 64 in which the hashes of near-duplicates may differ."""
PICTURE_LIKENESS = 0.996
"""Least correlation of the small grey pictures of near-duplicates."""
TEXT_LIKENESS = 0.8
"""Least share of common five-character pieces (Jaccard) of near-duplicate texts."""

_DCT_SIDE = 32
_BANDS = 8  # of a hash, eight bits each; with 6 bits wrong two bands at least are right
_WINDOW = 64  # neighbours of one key that are compared with each row
_PIECE = 5  # characters
_HASHES, _TEXT_BANDS = 64, 16  # of 4 hashes each: a pair as alike as 0.8 is missed once in 5,000
_DOUBT = 0.2  # four standard deviations of the share of 64 values that agree, where it should be 0.8
_CHUNK = 1 << 21  # characters that are hashed at once


def equal_rows(table: pl.DataFrame, columns: Sequence[str] | None = None) -> NDArray[np.int64]:
    """Return for every row the position of the first row that equals it in `columns` (all by default).

    Empty equals empty and NaN equals NaN. Rows are compared by 128 bits of hash; columns of Python objects are
    left out, and if nothing is left every row is its own.

    >>> equal_rows(pl.DataFrame({"a": [1, 2, 1], "b": ["x", "x", "x"]}))
    array([0, 1, 0])
    """
    keys = row_keys(table, table.columns if columns is None else columns)
    return np.arange(len(table)) if keys is None else first_of(keys)


def row_keys(table: pl.DataFrame, columns: Sequence[str]) -> pl.DataFrame | None:
    """Return two hashes of every row over some columns; None where none of them can be compared."""
    keys = [key for name in columns if (key := key_of(table[name])) is not None]
    if not keys:
        return None
    frame = pl.DataFrame([key.rename(f"key{i}") for i, key in enumerate(keys)])
    return pl.DataFrame({"a": frame.hash_rows(seed=1), "b": frame.hash_rows(seed=2)})


def first_of(keys: pl.DataFrame) -> NDArray[np.int64]:
    """Return the first position at which each row of `keys` occurs."""
    rows = keys.with_row_index("position")
    found = rows.select(pl.col("position").min().over(keys.columns)).to_series()
    return found.cast(pl.Int64).to_numpy()


def key_of(column: pl.Series) -> pl.Series | None:
    """Return a column whose equal values mean equal values of `column`; None for objects.

    Arrays of numbers become digests of their bytes; lists and structs polars' own 64-bit hashes.
    """
    if column.dtype == pl.Object:
        return None
    if column.dtype in (pl.Categorical, pl.Enum):
        return column.cast(pl.String)
    if isinstance(column.dtype, pl.Array) and not column.null_count():
        array = column.to_numpy()
        if array.dtype.kind in "iufb":
            return pl.Series(column.name, digests(array), dtype=pl.Binary)
    return column.hash() if column.dtype.is_nested() else column


def digests(array: NDArray[np.generic]) -> list[bytes]:
    """Return 16 bytes for each row of an array that are equal exactly where the rows are."""
    return [blake2b(row.tobytes(), digest_size=16).digest() for row in array]


def groups_of_pairs(n: int, pairs: Pairs) -> NDArray[np.int64]:
    """Number n rows by group: rows that pairs connect, over others too, share the position of their first row.

    >>> groups_of_pairs(5, np.array([[0, 3], [3, 4]]))
    array([0, 1, 2, 0, 0])
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    links = coo_array((np.ones(len(pairs), dtype=bool), (pairs[:, 0], pairs[:, 1])), shape=(n, n))
    _, labels = connected_components(links, directed=False)
    _, first = np.unique(labels, return_index=True)
    positions: NDArray[np.int64] = first[labels]
    return positions


@dataclass(frozen=True)
class Fingerprints:
    """What is kept of images to compare them: 8 + 256 bytes each."""

    hashes: NDArray[np.uint64]
    """Shape (n,): the 64 bits of `perceptual_hash`."""
    pictures: NDArray[np.uint8]
    """Shape (n, 256): grey, SIDE x SIDE."""

    def __len__(self) -> int:
        return len(self.hashes)


def fingerprint(image: Image) -> tuple[int, NDArray[np.uint8]]:
    """Return the perceptual hash of one image and its small grey picture."""
    from PIL.Image import Resampling

    grey = image.convert("L")
    large = np.asarray(grey.resize((_DCT_SIDE, _DCT_SIDE), Resampling.LANCZOS))
    small = large.reshape(SIDE, 2, SIDE, 2).mean(axis=(1, 3)).round().astype(np.uint8)
    return perceptual_hash(large), small.ravel()


def perceptual_hash(grey: NDArray[Any]) -> int:
    """64 bits of a grey image of 32 x 32 that survive scaling, compression and changes of brightness.

    The 8 x 8 lowest frequencies of its cosine transform, each one bit: whether it is above their median (pHash,
    Zauner 2010, "Implementation and benchmarking of perceptual image hash functions").
    """
    from scipy.fft import dctn

    low = dctn(grey.astype(np.float64), norm="ortho")[:8, :8].ravel()
    return int.from_bytes(np.packbits(low > np.median(low)).tobytes(), "big")


def fingerprints(pixels: NDArray[Any]) -> Fingerprints:
    """Return the fingerprints of images in an array.

    Parameters
    ----------
    pixels
        Shape (n, h, w) or (n, h, w, c) with c of 1, 3 or 4, any type of number; the least value of all becomes black
        and the largest white, what is not finite black.

    """
    from PIL import Image

    low, high = _range(pixels)
    found = []
    for image in pixels:
        scaled = (np.nan_to_num(image.astype(np.float64), nan=low, posinf=high, neginf=low) - low) / (high - low or 1)
        grey = scaled if scaled.ndim == 2 else scaled[..., :3].mean(axis=2)
        found.append(fingerprint(Image.fromarray((grey * 255).round().astype(np.uint8))))
    return joined(found)


def joined(found: Sequence[tuple[int, NDArray[np.uint8]]]) -> Fingerprints:
    """Return many of `fingerprint` as one."""
    hashes = np.array([bits for bits, _ in found], dtype=np.uint64)
    pictures = np.stack([small for _, small in found]) if found else np.empty((0, SIDE * SIDE), dtype=np.uint8)
    return Fingerprints(hashes, pictures)


def _range(pixels: NDArray[Any]) -> tuple[float, float]:
    finite = pixels[np.isfinite(pixels)] if pixels.dtype.kind == "f" else pixels
    return (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)


def near_images(prints: Fingerprints, *, distance: int = HASH_DISTANCE, likeness: float = PICTURE_LIKENESS) -> Pairs:
    """Return the pairs of images that are nearly the same: other size, compression, brightness; slight shifts.

    A pair must differ in at most `distance` of 64 bits of its hashes (6 at most), and its small grey pictures must
    correlate by `likeness`: hashes of simple images, as of digits, are alike by accident. Images of one colour have
    no structure to compare; they are alike where they are equal.
    """
    if not 0 <= distance <= HASH_DISTANCE:
        raise ValueError(f"distance must be 0 to {HASH_DISTANCE}, got {distance}")
    first = _first_equal(prints)
    unique = np.flatnonzero(first == np.arange(len(first)))
    hashes, vectors = prints.hashes[unique], _centred(prints.pictures[unique])
    found = [np.stack([first, np.arange(len(first))], axis=1)[first != np.arange(len(first))]]
    for keys in _hash_keys(hashes):
        for left, right in _neighbours(keys):
            near = np.bitwise_count(hashes[left] ^ hashes[right]) <= distance
            left, right = left[near], right[near]
            alike = np.einsum("ij,ij->i", vectors[left], vectors[right]) >= likeness
            found.append(np.stack([unique[left[alike]], unique[right[alike]]], axis=1))
    return _sorted_pairs(found)


def likeness_of(prints: Fingerprints, pairs: Pairs) -> NDArray[np.float32]:
    """Return the correlation of the small grey pictures of each pair; 0 where one has a single colour."""
    vectors = _centred(prints.pictures)
    likeness: NDArray[np.float32] = np.einsum("ij,ij->i", vectors[pairs[:, 0]], vectors[pairs[:, 1]])
    return likeness


def _first_equal(prints: Fingerprints) -> NDArray[np.int64]:
    together = np.concatenate([prints.hashes[:, None].view(np.uint8).reshape(len(prints), 8), prints.pictures], axis=1)
    return first_of(pl.DataFrame({"key": pl.Series(digests(together), dtype=pl.Binary)}))


def _centred(pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Pictures of mean 0 and length 1, whose product is their correlation; 0 for one colour."""
    values = pictures.astype(np.float32)
    values -= values.mean(axis=1, keepdims=True)
    length = np.linalg.norm(values, axis=1, keepdims=True)
    return np.where(length > 0, values / np.maximum(length, 1e-9), 0).astype(np.float32)


def _hash_keys(hashes: NDArray[np.uint64]) -> Iterator[NDArray[np.uint64]]:
    """Every two of eight bands: six wrong bits leave two bands whole (pigeonhole)."""
    bands = [(hashes >> np.uint64(8 * i)) & np.uint64(255) for i in range(_BANDS)]
    for one, other in combinations(bands, 2):
        yield (one << np.uint64(8)) | other


def _neighbours(keys: NDArray[np.uint64]) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Positions with equal keys: each with the next up to 64 of its key, in the order of the rows."""
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    for step in range(1, min(_WINDOW, len(keys) - 1) + 1):
        same = np.flatnonzero(ordered[step:] == ordered[:-step])
        if not len(same):
            return
        yield order[same], order[same + step]


def near_texts(texts: Sequence[str], *, likeness: float = TEXT_LIKENESS) -> Pairs:
    """Return the pairs of texts that share at least `likeness` of their pieces of five characters (Jaccard).

    Case, spaces and punctuation do not count. Candidates share one of 16 bands of a MinHash of 64 values (Broder
    1997, "On the resemblance and containment of documents"), and are then compared piece by piece. Empty texts are
    alike only among themselves.
    """
    plain = [" ".join(re.findall(r"\w+", text.lower())) for text in texts]
    first = first_of(pl.DataFrame({"key": pl.Series(plain, dtype=pl.String)}))
    unique = np.flatnonzero(first == np.arange(len(first)))
    found = [np.stack([first, np.arange(len(first))], axis=1)[first != np.arange(len(first))]]
    some = [plain[i] for i in unique]
    signatures = min_hashes(some)
    promising = []
    for keys in _text_keys(signatures):
        for left, right in _neighbours(keys):
            agreeing = np.mean(signatures[left] == signatures[right], axis=1)
            kept = agreeing >= likeness - _DOUBT
            promising.append(np.stack([left[kept], right[kept]], axis=1))
    candidates = _sorted_pairs(promising)
    pieces = {int(i): pieces_of(some[i]) for i in np.unique(candidates)}
    alike = [jaccard(pieces[int(i)], pieces[int(j)]) >= likeness for i, j in candidates]
    found.append(unique[candidates[np.array(alike, dtype=bool)]])
    return _sorted_pairs(found)


def pieces_of(text: str) -> frozenset[str]:
    """Return the different runs of five characters of a text; the text itself where it is shorter."""
    return frozenset(text[i : i + _PIECE] for i in range(max(1, len(text) - _PIECE + 1)))


def jaccard(a: frozenset[str], b: frozenset[str]) -> float:
    """Return the share of all pieces that both have."""
    return len(a & b) / len(a | b)


def min_hashes(texts: Sequence[str]) -> NDArray[np.uint64]:
    """Return the MinHash of each text, shape (n, 64): for 64 hash functions the least value of its pieces."""
    found = np.empty((len(texts), _HASHES), dtype=np.uint64)
    random = np.random.default_rng(0)
    factors = random.integers(1, 1 << 63, size=_HASHES, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    offsets = random.integers(0, 1 << 63, size=_HASHES, dtype=np.uint64)
    for rows in _in_chunks(texts):
        pieces, starts = _piece_hashes([texts[i] for i in rows])
        for number in range(_HASHES):
            mixed = pieces * factors[number] + offsets[number]
            mixed ^= mixed >> np.uint64(32)  # low bits of a product know low bits only
            mixed *= np.uint64(0x9E3779B97F4A7C15)
            found[rows, number] = np.minimum.reduceat(mixed, starts)
    return found


def _in_chunks(texts: Sequence[str]) -> Iterator[list[int]]:
    rows: list[int] = []
    size = 0
    for row, text in enumerate(texts):
        rows.append(row)
        size += len(text) + _PIECE
        if size >= _CHUNK:
            yield rows
            rows, size = [], 0
    if rows:
        yield rows


def _piece_hashes(texts: Sequence[str]) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """A number for every piece of all texts in one array, and where each text begins in it."""
    padded = [text if len(text) >= _PIECE else text.ljust(_PIECE, "\0") for text in texts]
    letters = np.frombuffer("".join(padded).encode("utf-32-le", "surrogatepass"), dtype=np.uint32).astype(np.uint64)
    lengths = np.array([len(text) for text in padded])
    ends = np.cumsum(lengths)
    whole = np.zeros(len(letters) - _PIECE + 1, dtype=np.uint64)
    for place in range(_PIECE):
        whole = whole * np.uint64(0x100000001B3) + letters[place : len(letters) - _PIECE + 1 + place]
    inside = np.ones(len(whole), dtype=bool)
    for back in range(1, _PIECE):  # pieces that would reach into the next text
        inside[(ends[:-1] - back)] = False
    counts = lengths - _PIECE + 1
    return whole[inside], np.concatenate([[0], np.cumsum(counts)[:-1]])


def _text_keys(signatures: NDArray[np.uint64]) -> Iterator[NDArray[np.uint64]]:
    width = _HASHES // _TEXT_BANDS
    for band in range(_TEXT_BANDS):
        key = np.zeros(len(signatures), dtype=np.uint64)
        for number in range(band * width, (band + 1) * width):
            key = (key ^ signatures[:, number]) * np.uint64(0x9E3779B97F4A7C15)
            key ^= key >> np.uint64(29)
        yield key


def _sorted_pairs(found: Sequence[NDArray[np.int64]]) -> Pairs:
    """Each pair once, the smaller position first."""
    pairs = np.concatenate([np.empty((0, 2), dtype=np.int64), *found])
    return np.unique(np.sort(pairs, axis=1), axis=0)
