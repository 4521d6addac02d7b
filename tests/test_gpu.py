"""On a GPU: what only one can show. Streams, late flags, pinned copies, memory that really runs out, NCCL.

Skipped where there is none. Runs that are killed and go on are in test_resume.py, which takes a GPU where one is.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import batteries as bt
from batteries.errors import NonFiniteError
from batteries.experiment import load_experiment
from batteries.prepare.seed import derive_seed
from batteries.train.checkpoint import Checkpoints
from batteries.train.device import DataParallel, Device
from batteries.train.loaders import Loader
from batteries.train.loop import Epoch, predict, train
from batteries.train.run import train_run
from batteries.train.samplers import Shuffled
from batteries.train.state import TrainState
from device_suite import PROMISES
from toy import Toy

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")

ROWS, BATCH, SEED, UPDATES = 53, 8, 11, 7


@pytest.fixture
def gpu() -> Device:
    return Device.pick("cuda")


@dataclass(kw_only=True)
class Spoiled(bt.Experiment):
    """A classifier whose updates number `at`, from 0, have a gradient that is NaN."""

    at: tuple[int, ...] = ()
    calls: list[int] = field(default_factory=list)
    log_every: ClassVar[int] = 0
    metric = bt.Metric.accuracy()

    def model(self) -> nn.Module:
        torch.manual_seed(5)
        return nn.Sequential(nn.Linear(4, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 3))

    def training_step(self, model: nn.Module, batch: bt.Batch) -> Any:
        bad = len(self.calls) in self.at
        self.calls.append(batch.size)
        loss = nn.functional.cross_entropy(model(batch.inputs), batch.targets)
        return {"loss": loss * float("nan") if bad else loss, "seven": 7.0}


def data() -> tuple[Tensor, Tensor]:
    inputs = torch.randn(ROWS, 4, generator=torch.Generator().manual_seed(2))
    return inputs, (inputs[:, :3] * 3).argmax(dim=1)


def ours(
    gpu: Device, stage: bt.Stage, at: tuple[int, ...] = (), after: Callable[[], object] = bool
) -> tuple[TrainState, list[Epoch]]:
    experiment = Spoiled(at=at)
    state = TrainState.begin(experiment, stage, experiment.model(), gpu)
    loader = Loader(data(), batch_size=BATCH, seed=SEED, sampler=Shuffled())
    return state, list(train(experiment, stage, state, loader, gpu, after_update=after))


def bare(epochs: int, skipped: tuple[int, ...] = (), precision: torch.dtype | None = None) -> tuple[nn.Module, float]:
    """A loop by hand on the GPU that leaves these updates out, and its last epoch's mean loss."""
    model = Spoiled().model().cuda()
    groups = [
        {"params": [p for p in model.parameters() if p.ndim >= 2], "weight_decay": 0.01},
        {"params": [p for p in model.parameters() if p.ndim < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=0.02, fused=True)
    scaler = torch.amp.GradScaler("cuda", enabled=precision is torch.float16)
    inputs, targets = (tensor.cuda() for tensor in data())
    step, total, count = 0, 0.0, 0
    for epoch in range(epochs):
        total, count = 0.0, 0
        order = torch.randperm(ROWS, generator=torch.Generator().manual_seed(derive_seed(SEED, "shuffle", epoch)))
        for rows in order.split(BATCH):
            before = {name: buffer.clone() for name, buffer in model.named_buffers()}
            with torch.autocast("cuda", dtype=precision or torch.float32, enabled=precision is not None):
                loss = nn.functional.cross_entropy(model(inputs[rows.cuda()]), targets[rows.cuda()])
            if step in skipped:
                for name, buffer in model.named_buffers():
                    buffer.copy_(before[name])
            else:
                optimizer.zero_grad()
                scaler.scale(loss).backward()
                scaler.step(optimizer)
                scaler.update()
                total, count = total + loss.item() * len(rows), count + len(rows)
            step += 1
    return model, total / count


def assert_same(left: nn.Module, right: nn.Module) -> None:
    one, two = left.state_dict(), right.state_dict()
    assert [name for name in one if not torch.equal(one[name], two[name])] == []


PLAIN: dict[str, Any] = {"epochs": 3, "lr": 0.02, "schedule": "constant"}


# --- the loop


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", None), ("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_the_loop_equals_a_bare_one_bit_for_bit(gpu: Device, precision: Any, dtype: torch.dtype | None) -> None:
    state, epochs = ours(gpu, bt.Stage("all", precision=precision, **PLAIN))
    model, loss = bare(3, precision=dtype)
    assert_same(state.model, model)
    assert epochs[-1].loss == pytest.approx(loss, rel=1e-6)


@pytest.mark.parametrize("promise", PROMISES, ids=lambda promise: promise.__name__)
@pytest.mark.parametrize("kind", [Device, DataParallel])
def test_a_gpu_keeps_every_promise_of_a_device(kind: type[Device], promise: Callable[[Device], None]) -> None:
    promise(kind(torch.device("cuda:0")))


@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype")
def test_no_update_waits_for_the_device_once_the_first_is_made(gpu: Device) -> None:
    """`set_sync_debug_mode` raises where a call waits; a batch's way to the device and the guard must not."""
    made = 0

    def strict() -> None:
        nonlocal made
        made += 1
        torch.cuda.set_sync_debug_mode("error" if 2 <= made < UPDATES - 1 else "default")

    try:
        ours(gpu, bt.Stage("all", average="ema", clip=1.0, epochs=1, lr=0.02), after=strict)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert made == UPDATES


def test_batches_arrive_whole_and_in_order_however_slow_the_computing_is(gpu: Device) -> None:
    rows = 24
    inputs = torch.arange(rows, dtype=torch.float32)[:, None].expand(rows, 1 << 20).contiguous()
    seen = []
    for batch in gpu.placed(Loader((inputs, torch.arange(rows)), batch_size=2).epoch(0)):
        torch.cuda._sleep(20_000_000)  # memory given back too early would be filled by the next copies meanwhile
        seen.append((batch.inputs.amin(dim=1), batch.inputs.amax(dim=1), batch.targets))
    least, most, targets = (torch.cat(part).cpu() for part in zip(*seen, strict=True))
    assert torch.equal(least, most)
    assert torch.equal(least.long(), targets)
    assert targets.tolist() == list(range(rows))


def test_predictions_are_those_of_the_cpu_up_to_rounding(gpu: Device) -> None:
    model, loader = Spoiled().model(), Loader(data(), batch_size=BATCH)
    on_cpu = predict(Spoiled(), model, loader, Device.pick("cpu"))
    np.testing.assert_allclose(predict(Spoiled(), model.cuda(), loader, gpu), on_cpu, rtol=1e-3, atol=1e-4)


# --- what is not finite


def test_skip_leaves_updates_out_as_a_loop_by_hand_would_bit_for_bit_though_nobody_waits(gpu: Device) -> None:
    at = (2, 3, 9, 20)
    state, epochs = ours(gpu, bt.Stage("all", on_nan="skip", average="ema", **PLAIN), at)
    model, loss = bare(3, at)
    assert_same(state.model, model)
    assert (state.not_finite, state.step) == (4, 3 * UPDATES)
    assert epochs[-1].loss == pytest.approx(loss, rel=1e-6)
    assert epochs[-1].means["seven"] == pytest.approx(7.0)
    assert all(bool(value.isfinite().all()) for value in state.scored.state_dict().values())


@pytest.mark.parametrize("at", [0, 4, UPDATES - 1])
def test_stop_names_the_update_and_keeps_every_weight_finite(gpu: Device, at: int) -> None:
    with pytest.raises(NonFiniteError, match=f"in epoch 1, update {at + 1};"):
        ours(gpu, bt.Stage("all", **PLAIN), (at,))


def test_an_fp16_scale_that_is_too_large_costs_updates_and_nothing_else(gpu: Device) -> None:
    state, _ = ours(gpu, bt.Stage("all", precision="fp16", **PLAIN))
    assert all(bool(value.isfinite().all()) for value in state.model.state_dict().values())
    assert state.scaler.get_scale() > 1


# --- memory


class Hungry(Spoiled):
    """Each sample needs 64 MB while it is trained on."""

    def training_step(self, model: nn.Module, batch: bt.Batch) -> Tensor:
        ballast = batch.inputs.new_ones(batch.size, 16 << 20)
        return super().training_step(model, batch)["loss"] + 0 * ballast.sum() / ballast.numel()


def test_memory_that_runs_out_halves_the_pieces_and_keeps_the_batch(gpu: Device) -> None:
    stage, experiment = bt.Stage("all", **{**PLAIN, "epochs": 1}), Hungry()
    loader = Loader(data(), batch_size=BATCH, seed=SEED, sampler=Shuffled())
    state = TrainState.begin(experiment, stage, nn.Sequential(nn.Linear(4, 3)), gpu)
    whole = TrainState.begin(experiment, stage, nn.Sequential(nn.Linear(4, 3)), gpu)
    whole.model.load_state_dict(state.model.state_dict())
    list(train(experiment, stage, whole, loader, gpu))
    torch.cuda.empty_cache()
    free = torch.cuda.memory_allocated() + (300 << 20)
    torch.cuda.set_per_process_memory_fraction(free / torch.cuda.get_device_properties(0).total_memory)
    try:
        list(train(experiment, stage, state, loader, gpu))
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert (whole.split, state.split) == (1, 2)
    for name, value in state.model.state_dict().items():
        torch.testing.assert_close(value, whole.model.state_dict()[name], rtol=1e-4, atol=1e-5)


# --- checkpoints


def test_a_checkpoint_holds_the_state_at_the_call_though_it_changes_at_once(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, metric=bt.Metric.accuracy())
    weights = torch.zeros(64 << 20, device="cuda")
    for number in range(1, 4):
        weights.fill_(number)
        saving = checkpoints.save_soon({"weights": weights})
        weights.add_(100)
        state = saving.result().load()
        assert (state["weights"].min(), state["weights"].max()) == (number, number)


def test_weights_of_a_gpu_load_on_the_cpu_and_the_other_way_round(gpu: Device, tmp_path: Path) -> None:
    state, _ = ours(gpu, bt.Stage("all", average="ema", **PLAIN))
    saved = Checkpoints(tmp_path, metric=bt.Metric.accuracy()).save(state.state_dict())
    stage = bt.Stage("all", average="ema", **PLAIN)
    for name in ("cpu", "cuda"):
        other = TrainState.begin(Spoiled(), stage, Spoiled().model(), Device.pick(name))
        other.load_state_dict(saved.load())
        assert {p.device.type for p in other.model.parameters()} == {name}
        assert {v.device.type for s in other.optimizer.state.values() for v in s.values()} == {name}
        for key, value in other.model.state_dict().items():
            assert torch.equal(value.cpu(), state.model.state_dict()[key].cpu())


def test_a_run_of_the_gpu_goes_on_on_the_cpu(toy_folder: Path) -> None:
    experiment = load_experiment(toy_folder)
    run = train_run(experiment, toy_folder / "runs", device="cuda", folds=[0], progress=False)
    again = train_run(experiment, toy_folder / "runs", device="cpu", folds=[1], progress=False)
    assert run.name == again.name
    assert again.finished_folds() == [0, 1]


# --- several of them


def predicted(folder: Path, *words: str) -> np.ndarray:
    """What `batteries train` in a copy of the toy predicts for the rows of fold 0; `words` come before or after it."""
    launcher = words[:-1] if words[-1:] == ("train",) else ()
    folder.mkdir()
    shutil.copy(Path(__file__).parent / "toy.py", folder / "experiment.py")
    command = [sys.executable, *launcher, "-m", "batteries", "train", "--fold", "0", *(() if launcher else words)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return bt.Predictions.load(folder / "runs" / "toy-001" / "fold0" / "oof.parquet").values


def test_dataparallel_and_nccl_on_one_card_predict_as_one_device_does(tmp_path: Path) -> None:
    """Over several cards it has not been seen."""
    one = predicted(tmp_path / "one")
    assert np.array_equal(predicted(tmp_path / "dp", "--dp"), one)
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "1")
    assert np.array_equal(predicted(tmp_path / "nccl", *torchrun, "train"), one)


@dataclass(kw_only=True)
class Precise(Toy):
    """The toy in a precision."""

    precision: Any = "fp32"

    def stages(self) -> list[bt.Stage]:
        return [bt.Stage("all", epochs=8, lr=0.05, precision=self.precision, average="ema")]


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_the_toy_learns_in_every_precision(tmp_path: Path, precision: str) -> None:
    run = train_run(Precise(precision=precision), tmp_path, device="cuda", folds=[0], progress=False)
    assert run.fold_result(0)["scores"]["accuracy"] > 0.9
