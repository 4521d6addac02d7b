"""Augment: random changes of a batch that depend on (seed, epoch, sample) and on nothing else; views to predict from.

In:    a batch on any device, and a `SampleRandom` for its rows.
Out:   the batch changed; the same sample in the same epoch is changed the same way by any number of workers, after
       any resume, and in any batch. Only partners that `mixup` and `cutmix` take from the batch depend on the batch.
Next:  `Experiment.augment` calls these inside the training loop, `Experiment.predict_step` the views.

To change two tensors alike (an image and its mask), give each a copy of the same `SampleRandom`: a copy goes on from
the same numbers.
"""

from batteries.prepare.augment.images import random_erasing as random_erasing
from batteries.prepare.augment.images import random_flip as random_flip
from batteries.prepare.augment.images import random_shift as random_shift
from batteries.prepare.augment.mix import cutmix as cutmix
from batteries.prepare.augment.mix import mixup as mixup
from batteries.prepare.augment.mix import smooth as smooth
from batteries.prepare.augment.sample_random import SampleRandom as SampleRandom
from batteries.prepare.augment.tables import feature_dropout as feature_dropout
from batteries.prepare.augment.tables import swap_noise as swap_noise
from batteries.prepare.augment.texts import token_drop as token_drop
from batteries.prepare.augment.views import View as View
from batteries.prepare.augment.views import Views as Views
from batteries.prepare.augment.vision import random_affine as random_affine
from batteries.prepare.augment.vision import random_colour as random_colour
from batteries.prepare.augment.vision import random_resized_crop as random_resized_crop

__all__ = [
    "SampleRandom",
    "View",
    "Views",
    "cutmix",
    "feature_dropout",
    "mixup",
    "random_affine",
    "random_colour",
    "random_erasing",
    "random_flip",
    "random_resized_crop",
    "random_shift",
    "smooth",
    "swap_noise",
    "token_drop",
]
