"""Updates: groups equal one large batch, memory that runs out, what training_step returns, gradient norms."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import batteries as bt
from batteries.errors import ExperimentError, ResourceError
from batteries.train.device import Device
from batteries.train.loaders import Loader
from batteries.train.loop import Epoch, train
from batteries.train.samplers import Shuffled
from batteries.train.state import TrainState

CPU = Device.pick("cpu")


@dataclass(kw_only=True)
class Wide(bt.Experiment):
    """A small classifier in float64, where only the order of sums makes a difference."""

    sgd: bool = False
    log_every: ClassVar[int] = 0
    metric = bt.Metric.accuracy()

    def model(self) -> nn.Module:
        torch.manual_seed(5)
        return nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 3)).double()

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return nn.functional.cross_entropy(outputs, targets)

    def optimizer(self, parameters: list[dict[str, Any]], stage: bt.Stage) -> torch.optim.Optimizer:
        if self.sgd:
            return torch.optim.SGD(parameters, lr=stage.lr, momentum=0.9)
        return super().optimizer(parameters, stage)


def data(rows: int) -> tuple[Tensor, Tensor]:
    inputs = torch.randn(rows, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    return inputs, (inputs[:, :3] * 3).argmax(dim=1)


def trained(
    stage: bt.Stage,
    experiment: bt.Experiment,
    *,
    rows: int = 21,
    batch_size: int = 8,
    state: TrainState | None = None,
    dataset: Any = None,
    after_update: Callable[[TrainState], object] = bool,
) -> tuple[TrainState, list[Epoch]]:
    state = state or TrainState.begin(experiment, stage, experiment.model(), CPU)
    loader = Loader(data(rows) if dataset is None else dataset, batch_size=batch_size, seed=11, sampler=Shuffled())
    torch.manual_seed(9)
    return state, list(train(experiment, stage, state, loader, CPU, after_update=lambda: after_update(state)))


def assert_near(left: nn.Module, right: nn.Module, *, rtol: float, atol: float = 0.0) -> None:
    other = right.state_dict()
    for name, tensor in left.state_dict().items():
        torch.testing.assert_close(tensor, other[name], rtol=rtol, atol=atol)


# --- groups


@pytest.mark.parametrize("sgd", [False, True])
@pytest.mark.parametrize(
    ("rows", "batch_size", "accumulate"),
    [
        (53, 8, 4),  # a group of 4, then one of 3 whose last batch has 5 rows
        (33, 8, 4),  # the last group is a single batch of a single row
        (50, 7, 7),  # the same, odd sizes
        (10, 8, 4),  # not even one whole group
        (28, 4, 4),  # 7 batches by 4: groups of 4 and 3
        (53, 1, 10),  # single samples
    ],
)
def test_small_batches_equal_one_large_one_after_three_epochs(
    rows: int, batch_size: int, accumulate: int, sgd: bool
) -> None:
    experiment = Wide(sgd=sgd)
    stage = bt.Stage("all", epochs=3, lr=0.02, clip=0.5)
    small, losses = trained(
        bt.Stage("all", epochs=3, lr=0.02, clip=0.5, accumulate=accumulate),
        experiment,
        rows=rows,
        batch_size=batch_size,
    )
    large, wanted = trained(stage, experiment, rows=rows, batch_size=batch_size * accumulate)
    assert small.step == large.step == 3 * -(-rows // (batch_size * accumulate))
    assert_near(small.model, large.model, rtol=1e-6, atol=1e-12)
    assert [epoch.loss for epoch in losses] == pytest.approx([epoch.loss for epoch in wanted], rel=1e-9)


# --- memory that runs out

RUN_OUT: dict[str, Callable[[], Exception]] = {
    "accelerator": lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
    "python": MemoryError,
    "cpu": lambda: RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: not enough memory: you tried"),
}


@dataclass(kw_only=True)
class Hungry(Wide):
    """Runs out of memory above `limit` samples."""

    limit: int = 99
    kind: str = "accelerator"
    tried: list[int] = field(default_factory=list)

    def training_step(self, model: nn.Module, batch: bt.Batch) -> Any:
        self.tried.append(batch.size)
        if batch.size > self.limit:
            raise RUN_OUT[self.kind]()
        outputs = model(batch.inputs)
        right = (outputs.argmax(dim=1) == batch.targets).double().mean()
        return {"loss": self.loss(outputs, batch.targets), "accuracy": right}


@pytest.mark.parametrize("kind", RUN_OUT)
@pytest.mark.parametrize(("limit", "split"), [(5, 2), (2, 4), (1, 8)])
def test_when_memory_runs_out_batches_are_cut_and_the_effective_batch_stays(kind: str, limit: int, split: int) -> None:
    stage = bt.Stage("all", epochs=2, lr=0.02, accumulate=2, clip=0.5, average="ema")
    hungry = Hungry(limit=limit, kind=kind)
    state, epochs = trained(stage, hungry)
    whole, wanted = trained(stage, Hungry())
    assert (state.split, state.step) == (split, whole.step)
    assert_near(state.model, whole.model, rtol=0, atol=1e-12)
    assert_near(state.scored, whole.scored, rtol=0, atol=1e-12)
    for epoch, other in zip(epochs, wanted, strict=True):  # nothing is counted twice
        assert epoch.loss == pytest.approx(other.loss, rel=1e-12)
        assert epoch.means == pytest.approx(other.means, rel=1e-12)
    refused = [size for size in hungry.tried if size > limit]
    assert len(refused) == {2: 1, 4: 2, 8: 3}[split], "a size that failed is not tried again"


def test_an_update_that_failed_half_way_is_begun_anew() -> None:
    class Once(Hungry):
        def training_step(self, model: nn.Module, batch: bt.Batch) -> Any:
            result = super().training_step(model, batch)
            if len(self.tried) == 3:  # the gradients of two batches are there already
                raise RUN_OUT[self.kind]()
            return result

    stage = bt.Stage("all", epochs=1, lr=0.02, accumulate=3)
    once, epochs = trained(stage, Once())
    whole, wanted = trained(stage, Hungry())
    assert once.split == 2
    assert_near(once.model, whole.model, rtol=0, atol=1e-12)
    assert epochs[0].loss == pytest.approx(wanted[0].loss, rel=1e-12)


def test_a_batch_is_augmented_once_also_when_it_is_computed_again() -> None:
    class Shifted(Hungry):
        def augment(self, batch: bt.Batch, random: bt.SampleRandom) -> bt.Batch:
            batch.inputs.add_(0.1 * random.uniform(4))  # in place, as anybody may
            self.tried.append(0)
            return batch

    stage = bt.Stage("all", epochs=1, lr=0.02, accumulate=3)
    hungry = Shifted(limit=3)
    state, _ = trained(stage, hungry)
    whole, _ = trained(stage, Shifted())
    assert hungry.tried.count(0) == 3
    assert_near(state.model, whole.model, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("rows", "batch_size", "pieces"), [(21, 8, 8), (5, 5, 8), (1, 1, 1)])
def test_it_ends_with_6_only_when_single_samples_do_not_fit(rows: int, batch_size: int, pieces: int) -> None:
    hungry = Hungry(limit=0)
    with pytest.raises(ResourceError) as caught:
        trained(bt.Stage("big", epochs=1), hungry, rows=rows, batch_size=batch_size)
    assert caught.value.exit_code == 6
    assert hungry.tried[-1] == 1
    assert str(caught.value) == (
        f"stage 'big': memory ran out on {batch_size} samples in {pieces} pieces (CUDA out of memory. Tried to allocate"
        " 2 GiB). A smaller model, smaller inputs, or recompute (activation checkpointing) would help"
    )


def test_other_errors_of_the_model_come_as_they_are() -> None:
    class Broken(Wide):
        def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
            raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        trained(bt.Stage("a", epochs=1), Broken())


def test_the_number_of_pieces_is_saved_and_a_resumed_stage_runs_out_no_more() -> None:
    stage = bt.Stage("all", epochs=2, lr=0.02)
    first, second = Hungry(limit=3), Hungry(limit=3)
    state = TrainState.begin(first, stage, first.model(), CPU)
    saved: list[dict[str, Any]] = []

    def save(state: TrainState) -> None:
        if state.step == 2:
            saved.append({**state.state_dict(), "model": {k: v.clone() for k, v in state.model.state_dict().items()}})

    trained(stage, first, state=state, after_update=save)
    resumed = TrainState.begin(second, stage, second.model(), CPU)
    resumed.load_state_dict(saved[0])
    assert resumed.split == 4
    trained(stage, second, state=resumed)
    assert max(second.tried) <= 3


def test_nested_inputs_are_cut_by_their_samples_and_what_all_share_stays_whole() -> None:
    class Nested(Hungry):
        def training_step(self, model: nn.Module, batch: bt.Batch) -> Any:
            assert len(batch.inputs["pair"][0]) == len(batch.inputs["pair"][1]) == len(batch.targets) == batch.size
            assert batch.inputs["scale"].shape == (3, 4)
            inputs = batch.inputs["pair"][0] * batch.inputs["scale"][0]
            return super().training_step(model, batch._replace(inputs=inputs))

        def augment(self, batch: bt.Batch, random: bt.SampleRandom) -> bt.Batch:
            pair = (batch.inputs, batch.inputs[:, :1])
            return batch._replace(inputs={"pair": pair, "scale": 2 * torch.ones(3, 4, dtype=torch.float64)})

    stage = bt.Stage("all", epochs=1, lr=0.02)
    state, _ = trained(stage, Nested(limit=4))
    assert state.split == 2
    assert_near(state.model, trained(stage, Nested())[0].model, rtol=0, atol=1e-12)


def test_lists_of_one_item_a_sample_are_cut_too() -> None:
    class Listed(Hungry):
        def training_step(self, model: nn.Module, batch: bt.Batch) -> Any:
            assert [len(part) for part in (batch.inputs["texts"], batch.inputs["images"])] == [batch.size] * 2
            assert all(image.shape == (1, 4) for image in batch.inputs["images"])
            return super().training_step(model, batch._replace(inputs=torch.cat(batch.inputs["images"])))

        def augment(self, batch: bt.Batch, random: bt.SampleRandom) -> bt.Batch:
            texts = [str(row) for row in batch.rows.tolist()]
            return batch._replace(inputs={"texts": texts, "images": tuple(batch.inputs[:, None])})

    stage = bt.Stage("all", epochs=1, lr=0.02)
    state, _ = trained(stage, Listed(limit=4))
    assert state.split == 2
    assert_near(state.model, trained(stage, Hungry())[0].model, rtol=0, atol=1e-12)


# --- what training_step returns


@pytest.mark.parametrize("accumulate", [1, 2])
def test_values_beside_the_loss_are_means_over_the_samples_however_ragged_the_batches(accumulate: int) -> None:
    class Told(Wide):
        def training_step(self, model: nn.Module, batch: bt.Batch) -> Any:
            rows = batch.rows.double()
            loss = rows.mean() + 0 * model(batch.inputs).sum()
            single = np.float32(rows.square().mean().item())
            return {"loss": loss, "rows": rows.mean(), "squares": single, "seven": 7, "samples": rows.mean()}

    stage = bt.Stage("all", epochs=2, accumulate=accumulate)
    _, epochs = trained(stage, Told(), rows=21, batch_size=8)
    for epoch in epochs:
        wanted = {"rows": 10.0, "squares": sum(n * n for n in range(21)) / 21, "seven": 7.0, "samples": 10.0}
        assert epoch.means == pytest.approx(wanted, rel=1e-6)
        assert epoch.loss == pytest.approx(10.0, rel=1e-12)


def test_a_dict_without_a_loss_is_refused_with_what_it_has() -> None:
    class Lossless(Wide):
        def training_step(self, model: nn.Module, batch: bt.Batch) -> Any:
            return {"mse": torch.ones(()), "accuracy": 1.0}

    with pytest.raises(ExperimentError, match=r"^training_step returned a dict without 'loss'; it has mse, accuracy$"):
        trained(bt.Stage("a", epochs=1), Lossless())


@pytest.mark.parametrize(("value", "got"), [(torch.ones(8), r"shape \(8,\)"), ("high", "str"), (None, "NoneType")])
def test_a_value_that_is_no_number_is_refused_by_name(value: Any, got: str) -> None:
    class Odd(Wide):
        def training_step(self, model: nn.Module, batch: bt.Batch) -> Any:
            return {"loss": model(batch.inputs).sum(), "odd": value}

    with pytest.raises(ExperimentError, match=f"^training_step returned 'odd', {got}; give one number, the mean"):
        trained(bt.Stage("a", epochs=1), Odd())


# --- windows and gradient norms


def test_a_window_is_the_mean_over_its_own_samples_across_ragged_batches() -> None:
    class Told(Wide):
        def training_step(self, model: nn.Module, batch: bt.Batch) -> Any:
            seen.append(batch.rows.tolist())
            return {"loss": batch.rows.double().mean() + 0 * model(batch.inputs).sum(), "samples": batch.rows.sum() * 0}

    seen: list[list[int]] = []
    windows: list[tuple[float, float]] = []

    def read(state: TrainState) -> None:
        if state.step % 2 == 0:
            rows = [row for batch in seen for row in batch]
            windows.append((state.means(window=True)["loss"], sum(rows) / len(rows)))
            seen.clear()
        if state.update == 5:
            seen.clear()  # a window ends with its epoch

    trained(bt.Stage("all", epochs=2), Told(), rows=37, batch_size=8, after_update=read)
    assert len(windows) == 5
    assert [got for got, _ in windows] == pytest.approx([wanted for _, wanted in windows], rel=1e-12)


@pytest.mark.parametrize("clip", [None, 0.05])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_the_gradient_norm_is_pytorchs_before_clipping_and_without_the_loss_scale(
    clip: float | None, precision: Any
) -> None:
    class Often(Wide):
        log_every: ClassVar[int] = 2

        def model(self) -> nn.Module:
            return super().model().float()

        def training_step(self, model: nn.Module, batch: bt.Batch) -> Tensor:
            loss = self.loss(model(batch.inputs.float()), batch.targets)
            gradients = torch.autograd.grad(loss, [*model.parameters()], retain_graph=True)
            norms.append(float(torch.cat([gradient.flatten() for gradient in gradients]).norm()))
            return loss

    norms: list[float] = []
    got: list[float] = []

    def read(state: TrainState) -> None:
        if state.step % 2 == 0:
            assert state.grad_norm is not None
            got.append(float(state.grad_norm))

    trained(bt.Stage("all", epochs=2, lr=0.02, clip=clip, precision=precision), Often(), rows=32, after_update=read)
    assert len(got) == 4
    # fp16: the scaled gradients are rounded to other half-precision numbers
    assert got == pytest.approx(norms[1::2], rel=1e-6 if precision == "fp32" else 5e-3)


def test_a_loss_that_no_parameter_leads_to_is_refused() -> None:
    class Detached(Wide):
        def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
            return super().loss(outputs, targets).detach()

    experiment, stage = Detached(), bt.Stage("a", epochs=1)
    data = (torch.zeros(4, 4, dtype=torch.float64), torch.zeros(4, dtype=torch.int64))
    state = TrainState.begin(experiment, stage, experiment.model(), CPU)
    with pytest.raises(ExperimentError, match="the loss depends on no parameter that learns"):
        list(train(experiment, stage, state, Loader(data, batch_size=4), CPU))
