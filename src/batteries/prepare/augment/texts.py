"""Texts: tokens left out.

In:    token ids of shape (n, length) and a `SampleRandom` for their rows.
Out:   ids of the same shape and type, and which of their places hold tokens.
Next:  `Experiment.augment` returns them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from batteries.errors import UsageError
from batteries.prepare.augment.sample_random import SampleRandom


def token_drop(
    ids: Tensor,
    random: SampleRandom,
    *,
    p: float = 0.1,
    keep: Sequence[int] = (),
    pad: int = 0,
    mask: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Leave out each token with probability `p`; those behind it move up, and the end is padded.

    The random deletion of Wei & Zou (2019, EDA, EMNLP). A text that would lose every token stays as it is.

    Parameters
    ----------
    ids
        Token ids, integer, shape (n, length).
    keep
        Ids that are never left out, such as those of [CLS] and [SEP].
    pad
        The id that fills the end.
    mask
        Which places hold tokens, shape (n, length), any type; unless given, all that are not `pad`.

    Returns
    -------
    Ids, shape (n, length), and which places hold tokens now: bool, shape (n, length). Make it the attention mask.

    Raises
    ------
    UsageError
        When ids are no integers (n, length), the mask has another shape, or `p` is no probability.

    Example
    -------
    >>> random = SampleRandom(1, epoch=0, rows=torch.arange(1))
    >>> ids, mask = token_drop(torch.tensor([[101, 7, 8, 102, 0]]), random, p=1.0, keep=(101, 102))
    >>> ids.tolist(), mask.tolist()
    ([[101, 102, 0, 0, 0]], [[True, True, False, False, False]])

    """
    if ids.ndim != 2 or ids.is_floating_point() or (mask is not None and mask.shape != ids.shape):
        mask_shape = "" if mask is None else f" and a mask {tuple(mask.shape)}"
        raise UsageError(f"token_drop needs integer ids (n, length), got {ids.dtype} {tuple(ids.shape)}{mask_shape}")
    held = ids != pad if mask is None else mask.bool()
    gone = random.chance(p, ids.shape[1]).to(ids.device) & held
    for token in keep:
        gone &= ids != token
    gone &= (held & ~gone).any(dim=1, keepdim=True)
    order = gone.to(torch.uint8).argsort(dim=1, stable=True)
    end = gone.gather(1, order)
    return ids.gather(1, order).masked_fill(end, pad), held.gather(1, order) & ~end
