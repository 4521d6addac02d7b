"""The loop: updates of whole groups, exact losses, stopping anywhere, errors before any weight is changed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import batteries as bt
from batteries.errors import ExperimentError, NonFiniteError
from batteries.train.device import Device
from batteries.train.loaders import Loader
from batteries.train.loop import predict, train
from batteries.train.samplers import Shuffled
from batteries.train.state import TrainState

CPU = Device.pick("cpu")
ROWS = 22


@dataclass(kw_only=True)
class Line(bt.Experiment):
    """y = w x; every loss is known by hand."""

    metric = bt.Metric.rmse()

    def model(self) -> nn.Module:
        return nn.Linear(1, 1, bias=False)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs[:, 0] - targets).square().mean()


def begun(stage: bt.Stage, experiment: bt.Experiment | None = None) -> TrainState:
    experiment = experiment or Line()
    torch.manual_seed(0)
    return TrainState.begin(experiment, stage, experiment.model(), CPU)


def numbers(targets: Tensor | None = None) -> tuple[Tensor, Tensor]:
    inputs = torch.linspace(-1, 1, ROWS)
    return inputs[:, None], 3 * inputs + 1 if targets is None else targets


def loader(**options: Any) -> Loader:
    return Loader(numbers(), **{"batch_size": 4, "seed": 1, "sampler": Shuffled(), **options})


def test_the_loss_of_an_epoch_is_the_mean_over_its_samples() -> None:
    class Still(Line):
        def training_step(self, model: nn.Module, batch: bt.Batch) -> Tensor:
            return batch.rows.double().mean() + 0 * model(batch.inputs).sum()

    for accumulate in (1, 4):
        stage = bt.Stage("a", epochs=2, accumulate=accumulate)
        losses = [epoch.loss for epoch in train(Still(), stage, begun(stage), loader(), CPU)]
        assert losses == pytest.approx([(ROWS - 1) / 2] * 2, rel=1e-6)


def test_epochs_count_from_one_and_tell_the_learning_rate_of_their_last_update() -> None:
    stage = bt.Stage("a", epochs=2, lr=0.5, schedule="linear")
    epochs = list(train(Line(), stage, begun(stage), loader(), CPU))
    assert [(epoch.number, epoch.lr) for epoch in epochs] == [(1, 0.5 * (1 - 5 / 12)), (2, 0.5 * (1 - 11 / 12))]


def test_a_group_may_be_short_and_no_batch_is_left_behind() -> None:
    seen: list[int] = []

    class Seen(Line):
        def augment(self, batch: bt.Batch, random: bt.SampleRandom) -> bt.Batch:
            seen.extend(batch.rows.tolist())
            return batch

    stage = bt.Stage("a", epochs=1, accumulate=4)
    state = begun(stage)
    list(train(Seen(), stage, state, loader(), CPU))
    assert state.step == 2
    assert sorted(seen) == list(range(ROWS))


def test_stopping_early_is_a_break_and_the_state_can_go_on() -> None:
    stage = bt.Stage("a", epochs=5)
    whole, broken = begun(stage), begun(stage)
    list(train(Line(), stage, whole, loader(), CPU))
    for epoch in train(Line(), stage, broken, loader(), CPU):
        if epoch.number == 2:
            break
    assert (broken.epoch, broken.update, broken.step) == (2, 0, 12)
    assert [epoch.number for epoch in train(Line(), stage, broken, loader(), CPU)] == [3, 4, 5]
    assert torch.equal(broken.model.weight, whole.model.weight)


class Stop(Exception):
    """Raised between two updates."""


@pytest.mark.parametrize("moment", [1, 4, 6, 7, 18])
def test_what_is_raised_after_an_update_leaves_a_state_that_goes_on_exactly(moment: int) -> None:
    stage = bt.Stage("a", epochs=3, average="ema")
    whole, stopped = begun(stage), begun(stage)
    losses = [epoch.loss for epoch in train(Line(), stage, whole, loader(), CPU)]

    def after_update() -> None:
        if stopped.step == moment:
            raise Stop

    got = []
    with pytest.raises(Stop):  # noqa: PT012 - the epochs before it count
        for epoch in train(Line(), stage, stopped, loader(), CPU, after_update=after_update):
            got.append(epoch.loss)  # noqa: PERF401
    got += [epoch.loss for epoch in train(Line(), stage, stopped, loader(), CPU)]
    assert got == losses
    assert torch.equal(stopped.model.weight, whole.model.weight)
    assert torch.equal(stopped.scored.state_dict()["weight"], whole.scored.state_dict()["weight"])


def test_a_loss_that_is_not_finite_stops_before_any_weight_is_changed() -> None:
    targets = numbers()[1].clone()
    targets[7] = float("nan")
    stage = bt.Stage("late", epochs=2, lr=0.25, accumulate=2)
    state, data = begun(stage), Loader(numbers(targets), batch_size=4)
    before = state.model.weight.clone()
    with pytest.raises(NonFiniteError) as caught:
        list(train(Line(), stage, state, data, CPU))
    assert str(caught.value) == (
        "stage 'late': the loss or its gradient became NaN or infinite in epoch 1, update 1; the weights are those"
        " before it. Finished epochs are saved. Lower lr (0.25), set clip=1.0, look at the data of that batch, or go on"
        " without such updates: on_nan='skip'"
    )
    assert torch.equal(state.model.weight, before)
    assert state.step == 0
    assert not state.optimizer.state


@pytest.mark.parametrize("loss", [lambda o, t: (o[:, 0] - t).square(), lambda o, t: 0.5, lambda o, t: o.sum()[None]])
def test_a_loss_that_is_no_scalar_is_refused_with_its_shape(loss: Any) -> None:
    class Wrong(Line):
        def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
            return loss(outputs, targets)  # type: ignore[no-any-return]

    stage = bt.Stage("a", epochs=1)
    with pytest.raises(ExperimentError, match=r"loss must return one number, .* got (shape \(\d,\)|float)"):
        list(train(Wrong(), stage, begun(stage), loader(), CPU))


@dataclass(kw_only=True)
class Echo(bt.Experiment):
    """Predicts its inputs, in whatever form is asked."""

    metric = bt.Metric.rmse()
    columns: int = 0

    def predict_step(self, model: nn.Module, inputs: Tensor) -> Tensor:
        return inputs[:, 0].double() if not self.columns else inputs.expand(-1, self.columns)


@pytest.mark.parametrize(("columns", "shape"), [(0, (ROWS,)), (1, (ROWS,)), (3, (ROWS, 3))])
def test_predictions_come_in_the_order_of_the_rows_whatever_that_of_the_batches(
    columns: int, shape: tuple[int, ...]
) -> None:
    predicted = predict(Echo(columns=columns), nn.Identity(), loader(), CPU)
    assert (predicted.shape, predicted.dtype) == (shape, np.float32)
    assert np.array_equal(predicted.reshape(ROWS, -1)[:, 0], numbers()[0][:, 0].numpy())


@pytest.mark.parametrize("wrong", [lambda x: x.mean(), lambda x: x[:1], lambda x: x[:, None], lambda x: x.tolist()])
def test_predictions_of_another_shape_are_refused(wrong: Any) -> None:
    class Wrong(Echo):
        def predict_step(self, model: nn.Module, inputs: Tensor) -> Tensor:
            return wrong(inputs)  # type: ignore[no-any-return]

    with pytest.raises(ExperimentError, match=r"must return \(4,\) or \(4, columns\) for 4 samples, got"):
        predict(Wrong(), nn.Identity(), loader(), CPU)


def test_a_model_that_keeps_a_tensor_while_predicting_can_be_trained_afterwards() -> None:
    class Caching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(1))
            self.table: Tensor | None = None

        def forward(self, inputs: Tensor) -> Tensor:
            if self.table is None:
                self.table = torch.arange(3.0)[:1]
            return inputs * self.weight * (self.table + 1)

    class Cached(Line):
        def model(self) -> nn.Module:
            return Caching()

    stage = bt.Stage("a", epochs=1)
    state = begun(stage, Cached())
    predict(Cached(), state.model, loader(), CPU)
    list(train(Cached(), stage, state, loader(), CPU))
    assert state.step == 6


def test_predicting_trains_nothing_and_drops_nothing_out() -> None:
    model = nn.Sequential(nn.Linear(1, 4), nn.BatchNorm1d(4), nn.Dropout(0.9), nn.Linear(4, 1))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    first, second = (predict(Line(), model, loader(), CPU) for _ in range(2))
    assert np.array_equal(first, second)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
