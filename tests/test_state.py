"""State: what a checkpoint must bring back for training to go on as if never stopped."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from batteries.errors import ConfigError, ResumeError
from batteries.experiment import Stage
from batteries.train.checkpoint import Checkpoints
from batteries.train.device import Device
from batteries.train.loaders import Loader
from batteries.train.loop import train
from batteries.train.state import TrainState
from toy import Toy

CPU = Device.pick("cpu")
TOY = Toy()


def begun(stage: Stage, *, width: int = 8) -> TrainState:
    torch.manual_seed(3)
    toy = Toy(width=width)
    return TrainState.begin(toy, stage, toy.model(), CPU)


def trained(stage: Stage) -> TrainState:
    state = begun(stage)
    table = TOY.table()
    list(train(TOY, stage, state, Loader(TOY.dataset(table, training=True), batch_size=16), CPU))
    return state


@pytest.mark.parametrize(
    "stage",
    [
        Stage("raw", epochs=1),
        Stage("ema", epochs=1, average="ema"),
        Stage("swa", epochs=2, average="swa", precision="bf16"),
        Stage("scaled", epochs=1, precision="fp16"),
    ],
)
def test_all_of_it_goes_through_a_file_and_comes_back(tmp_path: Path, stage: Stage) -> None:
    state = trained(stage)
    saved = Checkpoints(tmp_path, metric=TOY.metric).save(state.state_dict())
    drawn = random.random(), np.random.rand(), torch.rand(2).tolist()
    other = begun(stage)
    other.load_state_dict(saved.load())
    assert (random.random(), np.random.rand(), torch.rand(2).tolist()) == drawn
    assert plain(other.state_dict(), skip="random") == plain(state.state_dict(), skip="random")
    assert other.base_lrs == state.base_lrs == [stage.lr, stage.lr]


def plain(value: Any, *, skip: str = "") -> Any:
    if isinstance(value, torch.Tensor):
        return value.dtype, value.tolist()
    if isinstance(value, dict):
        return {key: plain(part) for key, part in value.items() if key != skip}
    return [plain(part) for part in value] if isinstance(value, list | tuple) else value


@pytest.mark.parametrize(
    ("then", "now", "width"),
    [
        (Stage("a", epochs=1), Stage("a", epochs=1), 9),
        (Stage("a", epochs=1), Stage("a", epochs=1, freeze="0.*"), 8),
        (Stage("a", epochs=1), Stage("a", epochs=1, average="ema"), 8),
        (Stage("a", epochs=1), Stage("a", epochs=1, precision="fp16"), 8),
    ],
)
def test_a_state_of_another_model_or_stage_is_refused(then: Stage, now: Stage, width: int) -> None:
    saved = trained(then).state_dict()
    with pytest.raises(ResumeError, match="the checkpoint is of another model, optimizer or stage: "):
        begun(now, width=width).load_state_dict(saved)


def test_the_scored_weights_are_the_averaged_ones_where_there_are_any() -> None:
    raw, ema = trained(Stage("a", epochs=1)), trained(Stage("a", epochs=1, average="ema"))
    assert raw.scored is raw.model
    assert ema.averaged is not None
    assert ema.scored is ema.averaged.module
    assert not torch.equal(ema.scored.state_dict()["0.weight"], ema.model.state_dict()["0.weight"])


def test_what_is_no_optimizer_of_the_given_parameters_is_refused() -> None:
    class Other(Toy):
        def optimizer(self, parameters: list[dict[str, Any]], stage: Stage) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.model().parameters(), lr=stage.lr)

    class Nothing(Toy):
        def optimizer(self, parameters: list[dict[str, Any]], stage: Stage) -> Any:
            return None

    for toy, said in (
        (Other(), r"6 of the 6 parameters in the SGD are not among those given to optimizer\(parameters, stage\)"),
        (Nothing(), r"optimizer must return a torch\.optim\.Optimizer, got NoneType"),
    ):
        with pytest.raises(ConfigError, match=said):
            TrainState.begin(toy, Stage("a", epochs=1), toy.model(), CPU)


def test_a_state_begins_frozen_as_declared() -> None:
    state = begun(Stage("a", epochs=1, freeze=("0.*", "1.*")))
    assert [name for name, p in state.model.named_parameters() if p.requires_grad] == ["4.weight", "4.bias"]
    assert sum(len(group["params"]) for group in state.optimizer.param_groups) == 2
    with pytest.raises(ConfigError, match=r"stage 'a': freeze 'backbone\.\*' matches no parameter"):
        begun(Stage("a", epochs=1, freeze="backbone.*"))
