"""Views: predictions of views equal those made by hand, and the blend of files of predictions."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from scipy import special
from torch import Tensor, nn

import batteries as bt
from batteries.combine import formulas
from batteries.errors import UsageError
from batteries.prepare.augment import View, Views
from batteries.train.device import Device
from batteries.train.loaders import Loader
from batteries.train.loop import predict

FOUR = [View.same(), View.flip(), View.flip(-2), View.turn(1)]


def images() -> Tensor:
    return torch.rand(5, 2, 6, 6, generator=torch.Generator().manual_seed(1))


def classifier() -> nn.Module:
    torch.manual_seed(2)
    return nn.Sequential(nn.Conv2d(2, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(64, 3), nn.Softmax(dim=1)).eval()


def by_hand(model: nn.Module) -> list[Tensor]:
    """The outputs of the four views, each made without the class under test."""
    x = images()
    turned = torch.stack([torch.from_numpy(np.rot90(image, axes=(1, 2)).copy()) for image in x.numpy()])
    return [model(seen) for seen in (x, x[..., range(5, -1, -1)], x[..., range(5, -1, -1), :], turned)]


@torch.no_grad()
def test_the_mean_over_views_equals_the_mean_of_predictions_made_by_hand() -> None:
    model = classifier()
    torch.testing.assert_close(Views(FOUR)(model, images()), torch.stack(by_hand(model)).mean(dim=0))


@torch.no_grad()
def test_geometric_and_logit_means_equal_those_of_blends() -> None:
    model = classifier()
    block = torch.stack(by_hand(model)).double().numpy()
    shares = [0.25] * 4
    pool = formulas.opinion_pool(block.copy(), shares)
    found = Views(FOUR, how="geometric")(model, images())
    np.testing.assert_allclose(found, pool, rtol=1e-5)
    np.testing.assert_allclose(found.sum(dim=1), 1, rtol=1e-6)
    np.testing.assert_allclose(pool, special.softmax(np.log(block).mean(axis=0), axis=1))
    alone = Views(FOUR, how="logit")(model, images())
    np.testing.assert_allclose(alone, formulas.logit(block.copy(), shares), rtol=1e-5)


def test_sure_predictions_stay_finite() -> None:
    sure = iter([torch.tensor([[0.0, 1.0]]), torch.tensor([[1.0, 0.0]])] * 2)
    two = [View.same(), View.same()]
    for how in ("geometric", "logit"):
        found = Views(two, how=how)(lambda inputs: next(sure), None)  # type: ignore[arg-type]
        torch.testing.assert_close(found, torch.full((1, 2), 0.5))


@pytest.mark.parametrize(
    "view",
    [View.same(), View.flip(), View.flip(-2), View.turn(1), View.turn(2), View.turn(3)],
    ids=["same", "flip", "flip over", "turn", "turn twice", "turn back"],
)
def test_a_spatial_view_is_undone(view: View) -> None:
    """A model that marks each pixel by itself sees no difference between views once they are undone."""
    x = torch.rand(3, 1, 4, 6)
    assert view.undo is not None
    assert torch.equal(view.undo(view.change(x)), x)
    torch.testing.assert_close(Views([view], spatial=True)(torch.square, x), x.square())


@torch.no_grad()
def test_masks_of_views_equal_those_undone_and_averaged_by_hand() -> None:
    torch.manual_seed(3)
    model = nn.Conv2d(2, 1, 3, padding=1)
    x = images()
    turned = model(x.rot90(1, (2, 3))).rot90(3, (2, 3))
    wanted = (model(x) + model(x.flip(3)).flip(3) + model(x.flip(2)).flip(2) + turned) / 4
    torch.testing.assert_close(Views(FOUR, spatial=True)(model, x), wanted)


def test_outputs_in_half_precision_are_averaged_in_float32() -> None:
    outputs = iter([torch.ones(2, dtype=torch.bfloat16), torch.full((2,), 1.0078125, dtype=torch.bfloat16)])
    found = Views([View.same(), View.flip()])(lambda inputs: next(outputs), torch.zeros(2, 1))
    assert found.dtype == torch.float32
    assert found.tolist() == [1.00390625] * 2  # bfloat16 has no number between 1 and 1.0078125


def test_views_can_be_pickled_to_travel_with_an_experiment() -> None:
    again = pickle.loads(pickle.dumps(Views(FOUR)))
    assert torch.equal(again(torch.square, images()), Views(FOUR)(torch.square, images()))


@dataclass(kw_only=True)
class Seen(bt.Experiment):
    """Predicts the mean of two views."""

    metric = bt.Metric.accuracy()
    views = Views([View.same(), View.flip()])

    def predict_step(self, model: nn.Module, inputs: Tensor) -> Tensor:
        return self.views(model, inputs)


def test_an_experiment_that_asks_for_views_has_them_in_all_its_predictions() -> None:
    model = classifier()
    loader = Loader(images(), batch_size=2, labelled=False)
    found = predict(Seen(), model, loader, Device.pick("cpu"))
    with torch.no_grad():
        wanted = (model(images()) + model(images().flip(3))) / 2
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


def own_undo_missing() -> Any:
    return Views([View.same(), View(torch.square)], spatial=True)


def test_views_that_cannot_be_averaged_are_refused() -> None:
    with pytest.raises(UsageError, match=r"at least one view, such as View\.same\(\)"):
        Views([])
    with pytest.raises(UsageError, match="how must be 'mean', 'geometric' or 'logit', got 'max'"):
        Views(FOUR, how="max")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="outputs are spatial, and view 2 has no undo"):
        own_undo_missing()
    with pytest.raises(UsageError, match=r"view 2 gave outputs \(1, 1, 3, 2\), the views before it \(1, 1, 2, 3\)"):
        Views([View.same(), View.turn(1)])(torch.square, torch.zeros(1, 1, 2, 3))
    with pytest.raises(UsageError, match=r"need classes along axis 1, got outputs \(4,\); .* how='logit'"):
        Views(FOUR, how="geometric")(lambda inputs: torch.ones(4), torch.zeros(4, 1, 2, 2))
