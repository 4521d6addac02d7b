"""Blocks: rows worked on some at a time, so that nothing as large as a member is made beside the members.

In:    a number of rows and work to be done on some of them.
Out:   what the work returned, in the order of the rows.
Next:  `blend` applies formulas to blocks; `ranks` sorts columns in pieces.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from batteries.prepare.cores import usable_cores

Done = TypeVar("Done")


def pieces(start: int, stop: int, size: int) -> Iterator[tuple[int, int]]:
    """Beginnings and ends of consecutive pieces, each of `size` rows but the last.

    >>> list(pieces(0, 5, 2))
    [(0, 2), (2, 4), (4, 5)]
    """
    for begin in range(start, stop, size):
        yield begin, min(begin + size, stop)


def in_stripes(rows: int, size: int, work: Callable[[Iterator[tuple[int, int]]], Done]) -> list[Done]:
    """Cut the rows into one stripe a core, and let `work` run over the pieces of each, all at the same time.

    Threads gain time as far as the work is NumPy's on more than a few hundred numbers: it then leaves the
    interpreter to the others. A row falls into another stripe on a machine of other cores, so its result
    must not depend on the rows beside it.
    """
    blocks = -(-rows // size)
    count = min(usable_cores(), blocks)
    length = -(-blocks // count) * size
    stripes = [pieces(start, stop, size) for start, stop in pieces(0, rows, length)]
    if len(stripes) == 1:
        return [work(stripes[0])]
    with ThreadPoolExecutor(len(stripes)) as pool:
        return list(pool.map(work, stripes))
