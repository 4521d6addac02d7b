"""The guard: nothing that is NaN or infinite gets into weights, optimizer, averages, means or checkpoints."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

import batteries as bt
from batteries.errors import NonFiniteError
from batteries.experiment import load_experiment
from batteries.prepare.seed import derive_seed
from batteries.train.checkpoint import Checkpoints
from batteries.train.device import Device
from batteries.train.guard import Guard
from batteries.train.loaders import Loader
from batteries.train.log import read_metrics
from batteries.train.loop import Epoch, train
from batteries.train.run import train_run
from batteries.train.samplers import Shuffled
from batteries.train.state import TrainState

CPU = Device.pick("cpu")
ROWS, BATCH, SEED = 53, 8, 11
UPDATES = 7


class Poison(torch.autograd.Function):
    """Passes values on; its gradient is multiplied."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return values.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return gradients[0] * ctx.factor, None


@dataclass(kw_only=True)
class Poisoned(bt.Experiment):
    """A classifier whose batches number `at`, from 0, are not finite in some way."""

    at: tuple[int, ...] = ()
    kind: str = "input"
    sgd: bool = False
    dtype: torch.dtype = torch.float32
    calls: list[int] = field(default_factory=list)
    log_every: ClassVar[int] = 0
    metric = bt.Metric.accuracy()

    def model(self) -> nn.Module:
        torch.manual_seed(5)
        layers = (nn.Linear(4, 16), nn.BatchNorm1d(16, momentum=None), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 3))
        return nn.Sequential(*layers).to(self.dtype)

    def training_step(self, model: nn.Module, batch: bt.Batch) -> Any:
        bad = len(self.calls) in self.at
        self.calls.append(batch.size)
        inputs = batch.inputs * float("nan") if bad and self.kind == "input" else batch.inputs
        outputs = model(inputs)
        if bad and self.kind.startswith("gradient"):
            outputs = Poison.apply(outputs, float(self.kind.split()[1]))
        loss = nn.functional.cross_entropy(outputs, batch.targets)
        if bad and self.kind == "root":  # the derivative of a square root at 0, times 0
            loss = loss + (0 * outputs.sum()).square().sqrt()
        if bad and self.kind == "infinite loss":  # and a gradient that is finite
            loss = loss + float("inf")
        return {"loss": loss, "seven": 7.0, "size": torch.tensor(float(batch.size))}

    def optimizer(self, parameters: list[dict[str, Any]], stage: bt.Stage) -> torch.optim.Optimizer:
        if self.sgd:
            return torch.optim.SGD(parameters, lr=stage.lr, momentum=0.9)
        return super().optimizer(parameters, stage)


KINDS = ["input", "gradient nan", "gradient inf", "gradient -inf", "root", "infinite loss"]


def data(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    inputs = torch.randn(ROWS, 4, generator=torch.Generator().manual_seed(2))
    return inputs.to(dtype), (inputs[:, :3] * 3).argmax(dim=1)


def begun(stage: bt.Stage, experiment: Poisoned) -> TrainState:
    state = TrainState.begin(experiment, stage, experiment.model(), CPU)
    torch.manual_seed(9)
    return state


def go_on(
    state: TrainState,
    stage: bt.Stage,
    experiment: Poisoned,
    after_update: Callable[[], object] = bool,
    restore: Callable[[], object] | None = None,
) -> list[Epoch]:
    loader = Loader(data(experiment.dtype), batch_size=BATCH, seed=SEED, sampler=Shuffled())
    return list(train(experiment, stage, state, loader, CPU, after_update=after_update, restore=restore))


def copied(state: TrainState) -> dict[str, Any]:
    return deepcopy(state.state_dict())


def plain(value: Any) -> Any:
    """Tensors as their bytes, so that NaN equals itself."""
    if isinstance(value, Tensor):
        return str(value.dtype), tuple(value.shape), value.contiguous().view(-1).view(torch.uint8).tolist()
    if isinstance(value, dict):
        return {str(key): plain(part) for key, part in value.items()}
    return [plain(part) for part in value] if isinstance(value, list | tuple) else value


def bare(epochs: int, skipped: tuple[int, ...], *, lr: float = 0.02) -> tuple[nn.Module, list[float]]:
    """A loop by hand that leaves these updates out, and what their batches did to the buffers."""
    model = Poisoned().model()
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    others = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": 0.01}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=lr, fused=True)
    inputs, targets = data()
    losses, step = [], 0
    torch.manual_seed(9)
    for epoch in range(epochs):
        model.train()
        total, count = 0.0, 0
        order = torch.randperm(ROWS, generator=torch.Generator().manual_seed(derive_seed(SEED, "shuffle", epoch)))
        for rows in order.split(BATCH):
            for group in optimizer.param_groups:
                group["lr"] = lr * 0.5 * (1 + math.cos(math.pi * step / (epochs * UPDATES)))
            before = {name: buffer.clone() for name, buffer in model.named_buffers()}
            loss = nn.functional.cross_entropy(model(inputs[rows]), targets[rows])
            if step in skipped:
                for name, buffer in model.named_buffers():
                    buffer.copy_(before[name])
            else:
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                total, count = total + loss.item() * len(rows), count + len(rows)
            step += 1
        losses.append(total / count)
    return model, losses


def assert_same(left: nn.Module, right: nn.Module) -> None:
    one, two = left.state_dict(), right.state_dict()
    assert [name for name in one if not torch.equal(one[name], two[name])] == []


# --- stop


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "how", [{}, {"clip": 0.1}, {"clip_value": 0.1}, {"precision": "bf16"}, {"average": "ema"}, {"accumulate": 3}]
)
def test_stop_leaves_weights_optimizer_average_means_and_position_as_before(kind: str, how: dict[str, Any]) -> None:
    stage = bt.Stage("all", epochs=3, lr=0.02, **how)
    experiment = Poisoned(at=(UPDATES + 3,), kind=kind)
    state = begun(stage, experiment)
    states: list[dict[str, Any]] = []
    with pytest.raises(NonFiniteError, match=r"in epoch 2, update \d; the weights are those before it") as caught:
        go_on(state, stage, experiment, lambda: states.append(copied(state)))
    assert caught.value.exit_code == 7
    now, before = copied(state), states[-1]
    for name in before["model"]:
        if "running" in name or "num_batches" in name:  # spoiled; nothing saves them
            now["model"][name] = before["model"][name]
    now["processes"] = before["processes"]  # dropout has drawn
    for group, other in zip(now["optimizer"]["param_groups"], before["optimizer"]["param_groups"], strict=True):
        group["lr"] = other["lr"]  # set again before every update
    assert plain(now) == plain(before)


@pytest.mark.parametrize("sgd", [False, True])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_models_of_other_types_and_other_optimizers_are_guarded_too(dtype: torch.dtype, sgd: bool) -> None:
    stage = bt.Stage("all", epochs=1, lr=0.02)
    experiment = Poisoned(at=(4,), kind="gradient nan", dtype=dtype, sgd=sgd)
    state = begun(stage, experiment)
    with pytest.raises(NonFiniteError, match="epoch 1, update 5"):
        go_on(state, stage, experiment)
    assert all(bool(p.isfinite().all()) for p in state.model.parameters())


@pytest.mark.parametrize("bad", ["single", "wide", "table", "wave", None])
def test_gradients_of_any_type_are_looked_at_sparse_and_complex_ones_too_and_parameters_may_have_none(
    bad: str | None,
) -> None:
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.single = nn.Linear(4, 4)
            self.wide = nn.Linear(4, 4).double()
            self.table = nn.Embedding(5, 4, sparse=True)
            self.wave = nn.Parameter(torch.ones(4, dtype=torch.complex64))
            self.unused = nn.Linear(9, 9)

        def forward(self, inputs: Tensor) -> Tensor:
            parts = {
                "single": self.single(inputs),
                "wide": self.wide(inputs.double()),
                "table": self.table(torch.arange(len(inputs)) % 5),
                "wave": (inputs * self.wave).real,
            }
            return sum(Poison.apply(part, math.nan if name == bad else 1.0).sum() for name, part in parts.items())  # type: ignore[no-any-return]

    class Kinds(Poisoned):
        def model(self) -> nn.Module:
            return Mixed()

        def training_step(self, model: nn.Module, batch: bt.Batch) -> Any:
            return model(batch.inputs)

        def optimizer(self, parameters: list[dict[str, Any]], stage: bt.Stage) -> torch.optim.Optimizer:
            return torch.optim.SGD(parameters, lr=stage.lr)

    stage = bt.Stage("all", epochs=1, lr=0.02, weight_decay=0.0)
    state = begun(stage, Kinds())
    before = {name: p.detach().clone() for name, p in state.model.named_parameters()}
    if bad is None:
        go_on(state, stage, Kinds())
        changed = {name.split(".")[0] for name, p in state.model.named_parameters() if not torch.equal(p, before[name])}
        assert changed == {"single", "wide", "table", "wave"}
        return
    with pytest.raises(NonFiniteError, match="epoch 1, update 1;"):
        go_on(state, stage, Kinds())
    assert all(torch.equal(p, before[name]) for name, p in state.model.named_parameters())


# --- skip


@pytest.mark.parametrize("kind", ["input", "gradient nan", "infinite loss"])
def test_skip_leaves_the_update_out_as_a_loop_by_hand_would_bit_for_bit(kind: str) -> None:
    """The norms here average over all batches, so that a counter that went on would show."""
    at = (2, 3, 9, 20)
    stage = bt.Stage("all", epochs=3, lr=0.02, on_nan="skip", average="ema")
    experiment = Poisoned(at=at, kind=kind)
    state = begun(stage, experiment)
    epochs = go_on(state, stage, experiment)
    model, losses = bare(3, at)
    assert_same(state.model, model)
    assert [epoch.loss for epoch in epochs] == pytest.approx(losses, rel=1e-6)
    assert [epoch.means["seven"] for epoch in epochs] == pytest.approx([7.0] * 3, rel=1e-6)
    assert (state.not_finite, state.step) == (4, 21)
    assert all(bool(value.isfinite().all()) for value in state.scored.state_dict().values())
    assert state.averaged is not None
    assert state.averaged.count == 17


def test_too_many_skips_end_with_the_count() -> None:
    stage = bt.Stage("all", epochs=3, lr=0.02, on_nan="skip", nan_limit=2)
    experiment = Poisoned(at=(1, 5, 9), kind="gradient nan")
    with pytest.raises(NonFiniteError) as caught:
        go_on(begun(stage, experiment), stage, experiment)
    assert str(caught.value) == (
        "stage 'all': the loss or its gradient became NaN or infinite in epoch 2, update 3; 3 updates of this stage"
        " were not finite, nan_limit=2. Lower lr (0.02) or set clip=1.0"
    )


@pytest.mark.parametrize("moment", [3, 4, 7, 10])
def test_a_stage_that_skipped_goes_on_bit_for_bit_from_a_saved_state(moment: int) -> None:
    stage = bt.Stage("all", epochs=3, lr=0.02, on_nan="skip", nan_limit=3, average="ema")
    whole_experiment, experiment = Poisoned(at=(2, 6, 9)), Poisoned(at=(2, 6, 9))
    whole, state = begun(stage, whole_experiment), begun(stage, experiment)
    wanted = go_on(whole, stage, whole_experiment)
    whole_ends = copied(whole)
    torch.manual_seed(9)  # as `begun` did
    saved: list[dict[str, Any]] = []
    go_on(state, stage, experiment, lambda: saved.append(copied(state)) if state.step == moment else None)
    assert plain(copied(state)) == plain(whole_ends)
    resumed, rest = begun(stage, experiment), Poisoned(at=tuple(n - moment for n in (2, 6, 9)))
    resumed.load_state_dict(saved[0])
    epochs = go_on(resumed, stage, rest)
    assert plain(copied(resumed)) == plain(whole_ends)
    assert [epoch.loss for epoch in epochs] == [epoch.loss for epoch in wanted[-len(epochs) :]]


def test_an_epoch_in_which_everything_is_skipped_has_no_mean_and_ruins_none() -> None:
    stage = bt.Stage("all", epochs=2, lr=0.02, on_nan="skip", nan_limit=7)
    experiment = Poisoned(at=tuple(range(UPDATES)))
    epochs = go_on(begun(stage, experiment), stage, experiment)
    assert math.isnan(epochs[0].loss)
    assert math.isfinite(epochs[1].loss)


# --- as on an accelerator, where the flag is read one update later


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fused optimizer takes the flag, and nobody looks at it before the next update."""
    begin = Guard.__init__

    def made(self: Guard, *arguments: Any, **named: Any) -> None:
        begin(self, *arguments, **named)
        self.later = True

    monkeypatch.setattr(Guard, "__init__", made)
    monkeypatch.setattr(Guard, "_read_later", lambda self: (self.state.update + 1, self.found.clone(), None))


@pytest.mark.usefixtures("later")
@pytest.mark.parametrize("at", [(2, 3, 9), (6, 13, 20), (0,)])
def test_read_later_it_is_the_same_run_and_the_last_update_of_an_epoch_counts(at: tuple[int, ...]) -> None:
    stage = bt.Stage("all", epochs=3, lr=0.02, on_nan="skip")
    experiment = Poisoned(at=at)
    state = begun(stage, experiment)
    epochs = go_on(state, stage, experiment)
    model, losses = bare(3, at)
    assert_same(state.model, model)
    assert [epoch.loss for epoch in epochs] == pytest.approx(losses, rel=1e-6)
    assert [epoch.means["seven"] for epoch in epochs] == pytest.approx([7.0] * 3, rel=1e-6)
    assert state.not_finite == len(at)


@pytest.mark.usefixtures("later")
@pytest.mark.parametrize("at", [3, 6, 20])
def test_read_later_stop_names_the_update_and_weights_are_finite(at: int) -> None:
    stage = bt.Stage("all", epochs=3, lr=0.02)
    experiment = Poisoned(at=(at,), kind="gradient nan")
    state = begun(stage, experiment)
    with pytest.raises(NonFiniteError, match=f"in epoch {at // 7 + 1}, update {at % 7 + 1};"):
        go_on(state, stage, experiment)
    assert all(bool(p.isfinite().all()) for p in state.model.parameters())


@pytest.mark.usefixtures("later")
@pytest.mark.parametrize("moment", [3, 4, 7])
def test_read_later_a_saved_state_knows_what_nobody_has_read_yet(moment: int) -> None:
    stage = bt.Stage("all", epochs=2, lr=0.02, on_nan="skip")
    experiment = Poisoned(at=(2, 6))
    state = begun(stage, experiment)
    saved: list[dict[str, Any]] = []
    wanted = go_on(state, stage, experiment, lambda: saved.append(copied(state)) if state.step == moment else None)
    resumed, rest = begun(stage, experiment), Poisoned(at=tuple(n - moment for n in (2, 6)))
    resumed.load_state_dict(saved[0])
    epochs = go_on(resumed, stage, rest)
    assert plain(copied(resumed)) == plain(copied(state))
    assert [epoch.loss for epoch in epochs] == [epoch.loss for epoch in wanted[-len(epochs) :]]
    assert resumed.not_finite == 2


# --- an optimizer that leaves out its own first update


class Momentum(Poisoned):
    """Learns by PyTorch's fused SGD, which allocates its momentum even where it leaves the update out."""

    def optimizer(self, parameters: list[dict[str, Any]], stage: bt.Stage) -> torch.optim.Optimizer:
        spoiled = [torch.full_like(p, 1e9) for group in parameters for p in group["params"]]
        del spoiled  # what memory may hold
        return torch.optim.SGD(parameters, lr=stage.lr, momentum=0.9, dampening=0.5, fused=True)


def assert_momentum_begins_with_the_first_gradient(stage: bt.Stage, kind: str) -> None:
    experiment = Momentum(at=(0, 1), kind=kind)
    state = begun(stage, experiment)
    begun_with: list[dict[str, Any]] = []
    go_on(state, stage, experiment, lambda: begun_with.append(copied(state)["optimizer"]["state"]))
    assert [len(each) for each in begun_with[:3]] == [0, 0, len(list(state.model.parameters()))]
    assert all(float(p.detach().abs().max()) < 100 for p in state.model.parameters())


def test_with_fp16_momentum_begins_with_the_first_update_that_is_made() -> None:
    assert_momentum_begins_with_the_first_gradient(bt.Stage("all", epochs=1, lr=0.02, precision="fp16"), "gradient inf")


@pytest.mark.usefixtures("later")
def test_read_later_momentum_begins_with_the_first_update_that_is_made() -> None:
    assert_momentum_begins_with_the_first_gradient(bt.Stage("all", epochs=1, lr=0.02, on_nan="skip"), "gradient nan")


def test_buffers_that_a_module_replaces_are_put_back() -> None:
    model = nn.Linear(2, 1)
    model.register_buffer("center", torch.ones(2))
    model.register_buffer("none", None)
    stage = bt.Stage("all", epochs=1, on_nan="skip")
    state = TrainState.begin(Poisoned(), stage, model, CPU)
    guard = Guard(state, CPU, keep_buffers=True)
    for value, good in ((2.0, True), (math.nan, False)):
        guard.begin()
        model.center = torch.full((2,), value)
        guard.see(torch.tensor(value))
        assert guard.check([]) is good
    assert model.center.tolist() == [2.0, 2.0]


# --- fp16


def test_with_fp16_an_infinite_gradient_lowers_the_scale_and_is_no_error() -> None:
    stage = bt.Stage("all", epochs=2, lr=0.02, precision="fp16", clip=1.0)
    experiment = Poisoned(at=(3, 4), kind="gradient inf")
    state = begun(stage, experiment)
    epochs = go_on(state, stage, experiment)
    assert state.scaler.get_scale() == 2.0**14
    assert (state.not_finite, state.step) == (0, 14)
    assert all(math.isfinite(epoch.loss) for epoch in epochs)
    assert all(bool(p.isfinite().all()) for p in state.model.parameters())


def test_with_fp16_gradients_that_are_never_finite_end_with_what_to_do() -> None:
    stage = bt.Stage("half", epochs=9, lr=0.02, precision="fp16")
    experiment = Poisoned(at=tuple(range(999)), kind="gradient nan")
    state = begun(stage, experiment)
    with pytest.raises(NonFiniteError) as caught:
        go_on(state, stage, experiment)
    assert str(caught.value) == (
        "stage 'half': with fp16 no gradient was finite for so long that the loss scale fell to 1.49012e-08;"
        " use precision='bf16' or 'fp32', or lower lr (0.02)"
    )
    assert_same(state.model, begun_with_statistics_of(state))


def begun_with_statistics_of(state: TrainState) -> nn.Module:
    """A new model with the buffers of a trained one."""
    model = Poisoned().model()
    buffers = dict(state.model.named_buffers())
    model.load_state_dict({**model.state_dict(), **buffers})
    return model


@pytest.mark.parametrize("clip", [None, 1.0])
@pytest.mark.parametrize("kind", ["input", "infinite loss"])
def test_with_fp16_a_bad_loss_makes_no_update_though_its_gradient_may_be_finite(kind: str, clip: float | None) -> None:
    stop = bt.Stage("all", epochs=1, lr=0.02, precision="fp16", clip=clip)
    experiment = Poisoned(at=(3,), kind=kind)
    state = begun(stop, experiment)
    states: list[dict[str, Any]] = []
    with pytest.raises(NonFiniteError, match="epoch 1, update 4;"):
        go_on(state, stop, experiment, lambda: states.append(copied(state)))
    assert plain(copied(state)["optimizer"]["state"]) == plain(states[-1]["optimizer"]["state"])
    assert all(torch.equal(p, states[-1]["model"][name]) for name, p in state.model.named_parameters())
    skip = bt.Stage("all", epochs=2, lr=0.02, precision="fp16", clip=clip, on_nan="skip", average="ema")
    experiment = Poisoned(at=(3, 4, 8), kind=kind)
    state = begun(skip, experiment)
    go_on(state, skip, experiment)
    assert state.not_finite == 3
    assert all(bool(value.isfinite().all()) for value in state.scored.state_dict().values())


# --- restore, and whole runs


def test_restore_is_called_and_the_position_goes_on() -> None:
    stage = bt.Stage("all", epochs=2, lr=0.02, on_nan="restore")
    experiment = Poisoned(at=(9,), kind="gradient nan")
    state = begun(stage, experiment)
    saved: list[dict[str, Any]] = []
    models: list[Any] = []

    def restore() -> None:
        state.load_weights_of(saved[0])
        models.append(plain(state.model.state_dict()))
        assert (state.epoch, state.update, state.step) == (1, 3, 10)

    go_on(state, stage, experiment, lambda: saved.append(copied(state)) if state.step == 7 else None, restore)
    assert models == [plain(saved[0]["model"])]
    assert (state.step, state.not_finite) == (14, 1)


def test_restore_without_anything_to_restore_says_what_to_give() -> None:
    stage = bt.Stage("all", epochs=1, lr=0.02, on_nan="restore")
    experiment = Poisoned(at=(1,))
    with pytest.raises(NonFiniteError, match="update 2; there is no checkpoint to restore: give `restore`"):
        go_on(begun(stage, experiment), stage, experiment)


SPOILED = '''    def training_step(self, model, batch):
        """Some rows are NaN whenever they come after the first epochs of a stage."""
        import os

        Toy.steps = getattr(Toy, "steps", 0) + 1
        if Toy.steps in Toy.spoiled:
            batch = batch._replace(inputs=batch.inputs * float("nan"))
        if Toy.steps == Toy.crash:
            raise ZeroDivisionError
        return super().training_step(model, batch)

    def model('''


@pytest.fixture
def spoiled(toy_folder: Path) -> Any:
    """Train fold 0 of the toy: `spoiled(on_nan="skip", at=(9,), crash=0)` with NaN inputs in some of the batches."""
    text = (toy_folder / "experiment.py").read_text()
    text = text.replace("    def model(", SPOILED, 1).replace("accumulate=self.accumulate)", "**self.how)")
    text = text.replace("    accumulate: int = 1\n", "    how: dict[str, str] = field(default_factory=dict)\n")
    text = text.replace("import dataclass", "import dataclass, field")
    (toy_folder / "experiment.py").write_text(text)

    def trained(
        root: str, on_nan: str, *, at: tuple[int, ...], save_every: float = 600.0, crash: int = 0, steps: int = 0
    ) -> bt.Run:
        sys.modules.pop("experiment", None)
        experiment = load_experiment(toy_folder, values={"how": {"on_nan": on_nan}})
        cls: Any = type(experiment)
        cls.spoiled, cls.crash, cls.save_every, cls.steps = at, crash, save_every, steps
        cls.keep = 1
        return train_run(experiment, toy_folder / root, device="cpu", folds=[0], progress=False)

    return trained


def outcome(run: bt.Run) -> dict[str, Any]:
    folder = run.fold_folder(0)
    result: dict[str, Any] = {name: (folder / name).read_bytes() for name in ("oof.parquet", "metrics.jsonl")}
    for stage in ("head", "all"):
        last = Checkpoints(run.stage_folder(0, stage), metric=bt.Metric.accuracy()).last
        assert last is not None
        result[stage] = plain(last.load())
    return result


@pytest.mark.parametrize("on_nan", ["skip", "restore"])
def test_a_run_that_skips_or_restores_ends_the_same_with_saves_within_epochs_and_after_a_crash(
    spoiled: Any, on_nan: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four batches an epoch; batches 11 and 14 are bad. So many saves push ends of epochs out."""
    at = (11, 14)
    wanted = outcome(spoiled("whole", on_nan, at=at))
    assert outcome(spoiled("saving", on_nan, at=at, save_every=0.0)) == wanted
    with pytest.raises(ZeroDivisionError):
        spoiled("crashed", on_nan, at=at, save_every=0.0, crash=13)
    assert outcome(spoiled("crashed", on_nan, at=at, steps=12)) == wanted
    rows = read_metrics(Path("whole") / "toy-001/fold0/metrics.jsonl")
    assert all(row.get("train/loss", row.get("step/loss")) is not None for row in rows)


def test_restore_goes_back_to_the_end_of_the_epoch_before_and_tells(spoiled: Any) -> None:
    run = spoiled("runs", "restore", at=(11,))
    log = (run.folder / "train.log").read_text()
    assert log.count("fold 0 head: an update was not finite; weights are those of epoch 2") == 1


def test_a_run_tells_once_an_epoch_how_many_updates_it_left_out(spoiled: Any) -> None:
    run = spoiled("runs", "skip", at=(9, 10, 14))
    log = (run.folder / "train.log").read_text().splitlines()
    assert [line.partition("  ")[2] for line in log if "left out" in line] == [
        "fold 0 head, epoch 3: updates left out so far, not finite: 2",
        "fold 0 head, epoch 4: updates left out so far, not finite: 3",
    ]


def test_restore_in_the_first_epoch_ends_with_7_since_there_is_nothing_to_go_back_to(spoiled: Any) -> None:
    with pytest.raises(NonFiniteError, match="fold 0 head: an update was not finite, and no epoch with a") as caught:
        spoiled("runs", "restore", at=(2,))
    assert caught.value.exit_code == 7


@pytest.mark.parametrize("on_nan", ["stop", "skip", "restore"])
def test_no_checkpoint_ever_holds_what_is_not_finite(
    spoiled: Any, on_nan: str, monkeypatch: pytest.MonkeyPatch, toy_folder: Path
) -> None:
    monkeypatch.setattr(Checkpoints, "_forget", lambda self: None)  # all that was ever written stays
    if on_nan == "stop":
        with pytest.raises(NonFiniteError):
            spoiled("runs", on_nan, at=(11,), save_every=0.0)
    else:
        spoiled("runs", on_nan, at=(11, 15, 22), save_every=0.0)
    files = list((toy_folder / "runs").rglob("checkpoint-*.pt"))
    assert len(files) >= 10
    for file in files:
        assert not_finite(torch.load(file, weights_only=True)) == []


def not_finite(value: Any, name: str = "") -> list[str]:
    if isinstance(value, Tensor):
        return [] if not value.is_floating_point() or bool(value.isfinite().all()) else [name]
    if isinstance(value, dict):
        return [bad for key, part in value.items() for bad in not_finite(part, f"{name}.{key}")]
    if isinstance(value, list | tuple):
        return [bad for part in value for bad in not_finite(part, name)]
    return [name] if isinstance(value, float) and not math.isfinite(value) else []
