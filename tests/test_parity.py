"""Parity: our loop against bare PyTorch loops written here. Equal bits where nothing but the author differs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, update_bn

import batteries as bt
from batteries.prepare.seed import derive_seed
from batteries.train.average import recompute_batch_norm
from batteries.train.device import Device
from batteries.train.loaders import Loader
from batteries.train.loop import predict, train
from batteries.train.samplers import Shuffled
from batteries.train.state import TrainState

CPU = Device.pick("cpu")
SEED = 11
ROWS = 53  # batches of 8 leave a last one of 5


@dataclass(kw_only=True)
class Plain(bt.Experiment):
    """A classifier with nothing special about it."""

    dtype: torch.dtype = torch.float32
    norm: bool = True
    metric = bt.Metric.accuracy()

    def model(self) -> nn.Module:
        torch.manual_seed(5)
        norm = nn.BatchNorm1d(16) if self.norm else nn.Tanh()
        dropout = nn.Dropout(0.3 if self.norm else 0.0)
        layers = (nn.Linear(4, 16), norm, nn.ReLU(), dropout, nn.Linear(16, 3))
        return nn.Sequential(*layers).to(self.dtype)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return nn.functional.cross_entropy(outputs, targets)


def data(rows: int = ROWS, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    inputs = torch.randn(rows, 4, generator=generator)
    return inputs.to(dtype), (inputs[:, :3] * 3).argmax(dim=1)


def ours(stage: bt.Stage, experiment: Plain | None = None, *, batch_size: int = 8, rows: int = ROWS) -> TrainState:
    """The state after our loop; dropout draws from the global generator, seeded just before."""
    experiment = experiment or Plain()
    state = TrainState.begin(experiment, stage, experiment.model(), CPU)
    loader = Loader(data(rows, experiment.dtype), batch_size=batch_size, seed=SEED, sampler=Shuffled())
    torch.manual_seed(9)
    list(train(experiment, stage, state, loader, CPU))
    return state


def order(epoch: int, rows: int = ROWS) -> Tensor:
    generator = torch.Generator().manual_seed(derive_seed(SEED, "shuffle", epoch))
    return torch.randperm(rows, generator=generator)


def adamw(model: nn.Module, lr: float) -> torch.optim.Optimizer:
    matrices = [p for p in model.parameters() if p.ndim >= 2 and p.requires_grad]
    others = [p for p in model.parameters() if p.ndim < 2 and p.requires_grad]
    groups = [{"params": matrices, "weight_decay": 0.01}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=lr, fused=True)


def bare(epochs: int, *, lr: float, clip: float | None = None, after: Any = lambda model: None) -> nn.Module:
    """What anybody would write: AdamW, cosine set by hand, one batch an update."""
    model = Plain().model()
    optimizer = adamw(model, lr)
    inputs, targets = data()
    total = epochs * math.ceil(ROWS / 8)
    step = 0
    torch.manual_seed(9)
    for epoch in range(epochs):
        model.train()
        for rows in order(epoch).split(8):
            for group in optimizer.param_groups:
                group["lr"] = lr * 0.5 * (1 + math.cos(math.pi * step / total))
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(inputs[rows]), targets[rows]).backward()
            if clip is not None:
                nn.utils.clip_grad_norm_(model.parameters(), clip)
            optimizer.step()
            step += 1
            after(model)
    return model


def assert_same(left: nn.Module, right: nn.Module) -> None:
    one, two = left.state_dict(), right.state_dict()
    assert [name for name in one if not torch.equal(one[name], two[name])] == []
    assert one.keys() == two.keys()


def mean_loss(model: nn.Module) -> float:
    inputs, targets = data()
    model.eval()
    with torch.no_grad():
        return float(nn.functional.cross_entropy(model(inputs), targets))


def test_weights_equal_those_of_a_bare_loop_bit_for_bit() -> None:
    assert_same(ours(bt.Stage("all", epochs=4, lr=0.02)).model, bare(4, lr=0.02))


def test_clipping_equals_a_bare_loop_bit_for_bit() -> None:
    assert_same(ours(bt.Stage("all", epochs=2, lr=0.02, clip=0.1)).model, bare(2, lr=0.02, clip=0.1))


# --- each of the stage's words beside a loop that spells it out


@dataclass(kw_only=True)
class Pictures(Plain):
    """Small images, for what is done to convolutions; the optimizer is the user's."""

    sgd: bool = False
    fused: bool = True

    def model(self) -> nn.Module:
        torch.manual_seed(5)
        return nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.2), nn.Flatten(), nn.Linear(8 * 16, 3)
        )

    def optimizer(self, parameters: list[dict[str, Any]], stage: bt.Stage) -> torch.optim.Optimizer:
        if self.sgd:
            return torch.optim.SGD(parameters, lr=stage.lr, momentum=0.9, nesterov=True)
        return torch.optim.AdamW(parameters, lr=stage.lr, fused=self.fused)


def pictures() -> tuple[Tensor, Tensor]:
    inputs = torch.randn(ROWS, 3, 6, 6, generator=torch.Generator().manual_seed(2))
    return inputs, inputs.mean(dim=(2, 3)).argmax(dim=1)


def spelled_out(
    experiment: Pictures,
    *,
    lr: float = 0.02,
    accumulate: int = 1,
    before: Callable[[nn.Module], object] = bool,
    clip: Callable[[nn.Module], object] = bool,
    scheduler: Callable[[torch.optim.Optimizer, int], Any] | None = None,
    autocast: bool = False,
) -> nn.Module:
    """Two epochs as PyTorch's tutorials write them; batches of a group have one size but for the last group."""
    model = experiment.model()
    before(model)
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    others = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": 0.01}, {"params": others, "weight_decay": 0.0}]
    optimizer = experiment.optimizer(groups, bt.Stage("bare", epochs=1, lr=lr))
    inputs, targets = pictures()
    batches = ROWS // 8  # the ragged end is left out: dividing by `accumulate` would be wrong there
    total = 2 * -(-batches // accumulate)
    stepping = None if scheduler is None else scheduler(optimizer, total)
    torch.manual_seed(9)
    for epoch in range(2):
        model.train()
        for number, rows in enumerate(order(epoch, 8 * batches).split(8), 1):
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
                loss = nn.functional.cross_entropy(model(inputs[rows]), targets[rows])
            (loss / accumulate).backward()
            if number % accumulate == 0:
                clip(model)
                optimizer.step()
                optimizer.zero_grad()
                if stepping is not None:
                    stepping.step()
    return model


def in_our_words(experiment: Pictures, **how: Any) -> nn.Module:
    stage = bt.Stage("all", **{"epochs": 2, "lr": 0.02, "schedule": "constant", **how})
    state = TrainState.begin(experiment, stage, experiment.model(), CPU)
    whole = [part[: ROWS // 8 * 8] for part in pictures()]
    torch.manual_seed(9)
    list(train(experiment, stage, state, Loader(tuple(whole), batch_size=8, seed=SEED, sampler=Shuffled()), CPU))
    return state.model


def by_value(model: nn.Module) -> None:
    nn.utils.clip_grad_value_(model.parameters(), 0.01)


def by_norm(model: nn.Module) -> None:
    nn.utils.clip_grad_norm_(model.parameters(), 0.05)


def by_both(model: nn.Module) -> None:
    by_value(model)
    by_norm(model)


def channels_last(model: nn.Module) -> None:
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def one_cycle(optimizer: torch.optim.Optimizer, total: int) -> Any:
    return torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.02, total_steps=total, cycle_momentum=False)


def cosine(optimizer: torch.optim.Optimizer, total: int) -> Any:
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5 * (1 + math.cos(math.pi * step / total)))


def linear(optimizer: torch.optim.Optimizer, total: int) -> Any:
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - min(1.0, step / total))


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ({}, {}),
        ({"clip": 0.05}, {"clip": by_norm}),
        ({"clip_value": 0.01}, {"clip": by_value}),
        ({"clip_value": 0.01, "clip": 0.05}, {"clip": by_both}),
        ({"accumulate": 3}, {"accumulate": 3}),
        ({"accumulate": 2, "clip": 0.05}, {"accumulate": 2, "clip": by_norm}),
        ({"precision": "bf16", "channels_last": False}, {"autocast": True, "before": bool}),
        ({"precision": "bf16"}, {"autocast": True}),
        ({"channels_last": False}, {"before": bool}),
        ({"channels_last": True}, {}),
        ({"schedule": "cosine"}, {"scheduler": cosine}),
        ({"schedule": "linear", "accumulate": 2}, {"scheduler": linear, "accumulate": 2}),
    ],
    ids=lambda words: ",".join(words) or "plain",  # functions in texts have addresses, other ones in each process
)
@pytest.mark.parametrize("optimizer", [{}, {"sgd": True}, {"fused": False}], ids=["fused", "sgd", "foreach"])
def test_every_word_of_a_stage_equals_a_loop_that_spells_it_out_bit_for_bit(
    ours: dict[str, Any], theirs: dict[str, Any], optimizer: dict[str, Any]
) -> None:
    theirs = {"before": channels_last, **theirs}  # as ours is by itself, for convolutions with batch norms
    assert_same(in_our_words(Pictures(**optimizer), **ours), spelled_out(Pictures(**optimizer), **theirs))


@pytest.mark.parametrize("accumulate", [1, 2])
def test_one_cycle_equals_training_with_pytorchs_scheduler_stepped_at_every_update(accumulate: int) -> None:
    ours = in_our_words(Pictures(sgd=True), schedule="one-cycle", accumulate=accumulate)
    theirs = spelled_out(Pictures(sgd=True), before=channels_last, scheduler=one_cycle, accumulate=accumulate)
    for name, tensor in ours.state_dict().items():  # the same cosine, written in another order: last digits differ
        torch.testing.assert_close(tensor, theirs.state_dict()[name], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("clip", [None, 0.05])
def test_four_batches_of_eight_equal_one_of_thirty_two_up_to_the_ragged_end(clip: float | None) -> None:
    """53 rows are 7 batches of 8: a group of 4, then a group of 3 whose last batch has 5 rows."""
    wide = Plain(dtype=torch.float64, norm=False)
    small = ours(bt.Stage("all", epochs=3, lr=0.02, accumulate=4, clip=clip), wide)
    large = ours(bt.Stage("all", epochs=3, lr=0.02, clip=clip), wide, batch_size=32)
    assert small.step == large.step == 6
    for name, tensor in small.model.state_dict().items():
        # the same sum in another order: only float64's last digits may differ
        torch.testing.assert_close(tensor, large.model.state_dict()[name], rtol=0, atol=1e-10)


def test_the_gradient_is_clipped_once_an_update_and_not_for_every_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    clip = torch.nn.utils.clip_grad_norm_

    def counted(parameters: Iterable[Tensor], norm: float) -> Tensor:
        calls.append(norm)
        return clip(parameters, norm)

    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", counted)
    state = ours(bt.Stage("all", epochs=2, accumulate=4, clip=0.5))
    assert calls == [0.5] * state.step == [0.5] * 4


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_lower_precision_learns_and_keeps_float32_weights(precision: Any) -> None:
    start = mean_loss(Plain().model())
    state = ours(bt.Stage("all", epochs=15, lr=0.02, precision=precision, clip=5.0, accumulate=2))
    assert mean_loss(state.model) < start / 2
    assert {tensor.dtype for tensor in state.model.state_dict().values()} == {torch.float32, torch.int64}


def test_fp16_equals_a_bare_loop_with_a_scaler_bit_for_bit() -> None:
    model = Plain().model()
    optimizer, scaler = adamw(model, 0.02), torch.amp.GradScaler("cpu")
    inputs, targets = data()
    torch.manual_seed(9)
    for step, rows in enumerate(order(0).split(8)):
        for group in optimizer.param_groups:
            group["lr"] = 0.02 * 0.5 * (1 + math.cos(math.pi * step / 7))
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.float16):
            loss = nn.functional.cross_entropy(model(inputs[rows]), targets[rows])
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        scaler.step(optimizer)
        scaler.update()
    assert_same(ours(bt.Stage("all", epochs=1, lr=0.02, precision="fp16", clip=1.0)).model, model)


def test_what_is_frozen_keeps_every_bit_batch_norm_statistics_too() -> None:
    fresh = Plain().model().state_dict()
    trained = ours(bt.Stage("head", epochs=3, lr=0.02, freeze=("0.*", "1.*"))).model.state_dict()
    changed = {name for name in fresh if not torch.equal(fresh[name], trained[name])}
    assert changed == {"4.weight", "4.bias"}


def test_ema_equals_one_kept_beside_a_bare_loop_bit_for_bit() -> None:
    mean: dict[str, Tensor] = {}
    count = 0

    def average(model: nn.Module) -> None:
        nonlocal count
        decay = min(0.9, (1 + count) / (10 + count))
        for name, tensor in model.state_dict().items():
            whole = count == 0 or not tensor.is_floating_point()
            mean[name] = tensor.clone() if whole else torch.lerp(mean[name], tensor, 1 - decay)
        count += 1

    model = bare(3, lr=0.02, after=average)
    state = ours(bt.Stage("all", epochs=3, lr=0.02, average="ema", decay=0.9))
    assert_same(state.model, model)
    assert [name for name, tensor in state.scored.state_dict().items() if not torch.equal(tensor, mean[name])] == []


def test_swa_equals_pytorchs_averaged_model_updated_after_every_epoch() -> None:
    updates = 0
    theirs = AveragedModel(Plain().model())

    def average(model: nn.Module) -> None:
        nonlocal updates
        updates += 1
        if updates % 7 == 0:
            theirs.update_parameters(model)

    bare(4, lr=0.02, after=average)
    state = ours(bt.Stage("all", epochs=4, lr=0.02, average="swa"))
    assert_same(state.scored, theirs.module)


def test_statistics_of_equal_batches_are_near_pytorchs_update_bn_and_of_ragged_ones_are_exact() -> None:
    inputs, _ = data()
    model, theirs = nn.Sequential(nn.BatchNorm1d(4)), nn.Sequential(nn.BatchNorm1d(4))
    recompute_batch_norm(model, inputs.split(8))
    update_bn(inputs.split(8), theirs)
    exact = inputs.double().mean(dim=0)
    torch.testing.assert_close(model[0].running_mean.double(), exact, rtol=1e-6, atol=1e-7)
    assert (theirs[0].running_mean - exact).abs().max() > 1e-3  # a short batch weighs there as a whole one


def test_predictions_equal_those_of_one_pass_over_all_rows() -> None:
    model = ours(bt.Stage("all", epochs=1)).model
    inputs, targets = data()
    predicted = predict(Plain(), model, Loader((inputs, targets), batch_size=8, sampler=Shuffled()), CPU)
    with torch.no_grad():
        whole = model.eval()(inputs)
    # a matrix product of 8 rows may add in another order than one of 53
    torch.testing.assert_close(torch.from_numpy(predicted), whole, rtol=1e-5, atol=1e-6)
