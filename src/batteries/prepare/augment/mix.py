"""Mix: MixUp, CutMix and smoothed labels, as soft targets that any loss takes as it is.

In:    inputs and targets of a batch, and a `SampleRandom` for its rows.
Out:   inputs and targets mixed; class numbers become shares of classes.
Next:  `Experiment.augment` returns them; `cross_entropy` and `binary_cross_entropy_with_logits` take such targets.

A loss that is linear in the target, as both of these are, has for a mixed sample the value that the papers define:
share x loss with the own target + (1 - share) x loss with the partner's.

The partner of a sample is its neighbour in the batch: first and second, third and fourth, ... The order of an epoch
is random already, so this is as random as any pairing, and it survives whatever keeps neighbours together: resume,
workers, batches computed in pieces, batches of an even size gathered by `accumulate`, several processes with an even
number of samples each. Other batches make other pairs, such as those of processes with an odd number of samples, and
a stream that is sorted by class makes pairs of one class.

With `among`, partners are drawn from given samples instead, by (seed, epoch, sample) alone: then nothing depends on
the batch, its size or the number of processes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from batteries.errors import UsageError
from batteries.prepare.augment.images import Box, inside, per_sample
from batteries.prepare.augment.sample_random import SampleRandom


def mixup(
    inputs: Tensor,
    targets: Tensor,
    random: SampleRandom,
    *,
    alpha: float = 0.2,
    p: float = 1.0,
    classes: int | None = None,
    among: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """Average each sample with a partner, inputs and targets alike (Zhang, Cisse, Dauphin & Lopez-Paz 2018, ICLR).

    The own share is drawn from Beta(alpha, alpha) for every sample; the paper's code draws one for a whole batch.

    Parameters
    ----------
    inputs
        Shape (n, ...), floating; the type is kept. Of several tensors, mix each with a copy of `random`.
    targets
        Class numbers, integer, shape (n,) or (n, ...); or floating targets: numbers, labels, shares of classes.
    alpha
        Small: one of the two dominates. 1: any share is as likely.
    p
        Probability that a sample is mixed at all; the others stay exactly as they are.
    classes
        Number of classes, where targets are class numbers.
    among
        (inputs, targets) of at most 2**24 samples to draw partners from, such as all training rows, best where the
        batch is. The neighbour in the batch where it is not given.

    Returns
    -------
    Mixed inputs, and mixed targets. Those of class numbers: float32, shape (n, classes, ...). With class weights
    PyTorch's `cross_entropy` divides the loss of such targets by n, that of class numbers by the sum of the weights.

    Raises
    ------
    UsageError
        When inputs are no floating tensor, those of `among` have another shape, `classes` is missing or too small, or
        `alpha` or `p` is out of range.

    Example
    -------
    >>> random = SampleRandom(1, epoch=0, rows=torch.arange(4))
    >>> inputs, targets = mixup(torch.eye(4), torch.arange(4), random, classes=4)
    >>> torch.equal(inputs, targets), targets.sum(dim=1).tolist()
    (True, [1.0, 1.0, 1.0, 1.0])

    """
    partner = _Partners(inputs, random, among)
    if not inputs.is_floating_point():
        raise UsageError(f"mixup averages inputs, and {inputs.dtype} cannot hold averages; convert them with .float()")
    share = torch.where(random.chance(p), random.beta(alpha), 1.0)
    soft, other = _soft(targets, classes), partner.of(targets, 1, classes)
    return _averaged(inputs, partner.of(inputs, 0), share), _averaged(soft, other, share)


def cutmix(
    images: Tensor,
    targets: Tensor,
    random: SampleRandom,
    *,
    alpha: float = 1.0,
    p: float = 1.0,
    classes: int | None = None,
    among: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """Paste a box of a partner into each image; targets are averaged by the areas (Yun et al. 2019, ICCV).

    A share is drawn from Beta(alpha, alpha) for every image; the box has the rest of the area and the image's shape,
    its centre is anywhere, and what lies outside is cut off. The target's share is that of the pixels really pasted.

    Parameters
    ----------
    images
        Shape (n, channels, height, width), any type; it is kept.
    targets, p, classes, among
        As in `mixup`.
    alpha
        1, as in the paper: any area is as likely.

    Returns
    -------
    Images and targets, as from `mixup`.

    Raises
    ------
    UsageError
        When images are no tensor, those of `among` have another shape, `classes` is missing or too small, or `alpha`
        or `p` is out of range.

    Example
    -------
    >>> random = SampleRandom(1, epoch=0, rows=torch.arange(2))
    >>> images, targets = cutmix(torch.eye(2)[:, :, None, None].expand(2, 2, 8, 8), torch.arange(2), random, classes=2)
    >>> torch.equal(images.mean(dim=(2, 3)), targets)
    True

    """
    partner = _Partners(images, random, among)
    size = (images.shape[-2], images.shape[-1])
    pasted = inside(_box(random.beta(alpha), random.uniform(2), size), size) & random.chance(p)[:, None, None]
    share = 1 - pasted.sum(dim=(1, 2)) / (size[0] * size[1])
    soft, other = _soft(targets, classes), partner.of(targets, 1, classes)
    cut = torch.where(pasted.to(images.device)[:, None], partner.of(images, 0), images)
    return cut, _averaged(soft, other, share)


def smooth(targets: Tensor, *, classes: int, by: float = 0.1) -> Tensor:
    """Move a share `by` of each target to all classes evenly (Szegedy et al. 2016, CVPR).

    `targets` are class numbers, integer, shape (n, ...), or shares of classes, floating, shape (n, classes, ...); the
    result is the latter. `cross_entropy(outputs, smooth(targets, ...))` equals PyTorch's `label_smoothing`. Validation
    scores are those of targets that are not smoothed.

    Raises
    ------
    UsageError
        When `by` is not between 0 and 1, or a class number is not below `classes`.

    Example
    -------
    >>> smooth(torch.tensor([0, 1]), classes=2, by=0.5).tolist()
    [[0.75, 0.25], [0.25, 0.75]]

    """
    if not 0 <= by <= 1:
        raise UsageError(f"smooth: by must be a share between 0 and 1, got {by}")
    return _soft(targets, classes) * (1 - by) + by / classes


class _Partners:
    """Who each sample is mixed with."""

    def __init__(self, inputs: Tensor, random: SampleRandom, among: tuple[Tensor, Tensor] | None) -> None:
        self.among = among
        if not isinstance(inputs, Tensor):
            raise UsageError(
                f"inputs to mix must be one tensor, got {type(inputs).__name__}; mix each of several with a copy of"
                " random: copy(random)"
            )
        if among is not None:
            if among[0].shape[1:] != inputs.shape[1:] or not 0 < len(among[0]) == len(among[1]):
                shapes = " and ".join(str(tuple(side.shape)) for side in among)
                raise UsageError(f"among must be samples like those of the batch, {tuple(inputs.shape)}, got {shapes}")
            self.index = random.integers(0, len(among[0]))
            return
        n = len(inputs)
        self.index = torch.arange(n, device=inputs.device) ^ 1
        self.index[n - n % 2 :] = max(0, n - 2)  # an odd one out takes the one before it, or itself

    def of(self, own: Tensor, side: int, classes: int | None = None) -> Tensor:
        """The partners' inputs (side 0) or targets (side 1), like the samples' own."""
        pool = own if self.among is None else self.among[side]
        taken = pool[self.index.to(pool.device)].to(own.device)
        return taken if side == 0 else _soft(taken, classes)


def _soft(targets: Tensor, classes: int | None) -> Tensor:
    """Shares of classes of class numbers; floating targets as they are."""
    if targets.is_floating_point():
        return targets
    if classes is None:
        raise UsageError(
            f"targets are {targets.dtype}: of class numbers give the number of classes, classes=10; convert numbers"
            " to predict with .float()"
        )
    shares = torch.zeros(len(targets), classes, *targets.shape[1:], device=targets.device)
    try:
        return shares.scatter_(1, targets.long()[:, None], 1.0)
    except RuntimeError as error:
        raise UsageError(
            f"targets must be class numbers from 0 to {classes - 1} (classes={classes}): {error}"
        ) from error


def _averaged(own: Tensor, other: Tensor, share: Tensor) -> Tensor:
    """Share x own + (1 - share) x other in the type of `own`; where the share is 1, `own` to the bit."""
    share = per_sample(share.to(own.device), own)
    return torch.where(share == 1, own, (share * own + (1 - share) * other).to(own.dtype))


def _box(share: Tensor, centre: Tensor, size: tuple[int, int]) -> Box:
    """A box that leaves about a share of each image, around a pixel at `centre`, shape (n, 2), from 0 to 1."""
    edges = []
    for place, side in zip(centre.unbind(1), size, strict=True):
        half = ((torch.sqrt(1 - share) * side).floor() / 2).floor()
        middle = (place * side).floor()
        edges.append(((middle - half).clamp(min=0), (middle + half).clamp(max=side)))
    (top, bottom), (left, right) = edges
    return Box(top, left, bottom, right)
