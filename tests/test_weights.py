"""Weights: from anything that holds them, all or none; which of them learn."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from batteries.errors import ConfigError, CorruptError, WeightsError
from batteries.experiment import Metric
from batteries.train.checkpoint import Checkpoints
from batteries.train.weights import freeze, load_weights, parameter_groups, training_mode


def net(width: int = 3) -> nn.Sequential:
    return nn.Sequential(nn.Linear(2, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, 1))


def equal(model: nn.Module, weights: dict[str, Tensor]) -> bool:
    own = model.state_dict()
    return own.keys() == weights.keys() and all(torch.equal(own[name], weights[name]) for name in own)


def copied(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
def test_prefixes_of_wrappers_are_dropped(prefix: str) -> None:
    wanted, model = copied(net()), net()
    load_weights(model, {prefix + name: tensor for name, tensor in wanted.items()})
    assert equal(model, wanted)


@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_model_with_a_part_called_module_keeps_its_names(prefix: str) -> None:
    model = nn.ModuleDict({"module": nn.Linear(2, 1)})
    wanted = {"module.weight": torch.ones(1, 2), "module.bias": torch.zeros(1)}
    load_weights(model, {prefix + name: tensor for name, tensor in wanted.items()})
    assert equal(model, wanted)


def test_weights_come_from_a_checkpoint_a_plain_file_and_safetensors(tmp_path: Path) -> None:
    source = net()
    wanted = copied(source)
    torch.save(source.state_dict(), tmp_path / "plain.pth")
    save_file(source.state_dict(), tmp_path / "net.safetensors")
    saved = Checkpoints(tmp_path / "ours", metric=Metric("loss", higher_is_better=False)).save({"model": source})
    for place in (saved, saved.path, str(saved.path), tmp_path / "plain.pth", tmp_path / "net.safetensors"):
        model = net()
        load_weights(model, place)
        assert equal(model, wanted), place


def test_the_averaged_weights_of_a_checkpoint_are_asked_for_by_name(tmp_path: Path) -> None:
    raw, mean, model = net(), net(), net()
    checkpoints = Checkpoints(tmp_path, metric=Metric("loss", higher_is_better=False))
    saved = checkpoints.save({"model": raw, "average": mean})
    load_weights(model, saved, part="average")
    assert equal(model, copied(mean))
    with pytest.raises(WeightsError, match=r"holds no 'ema' weights; it has model, average"):
        load_weights(model, saved, part="ema")


def test_differences_are_listed_up_to_five_and_the_model_stays_as_it_was() -> None:
    model = net()
    before = copied(model)
    weights = {**copied(net()), "extra": torch.ones(1), "0.weight": torch.ones(7, 2)}
    del weights["3.bias"]
    with pytest.raises(WeightsError) as caught:
        load_weights(model, weights)
    assert str(caught.value) == (
        "the weights of the given dict do not fit Sequential: 3.bias is missing; extra is not in the model;"
        " 0.weight is (7, 2) in the file, (3, 2) in the model"
    )
    with pytest.raises(WeightsError, match=r"; [^;]*, and 4 more$") as caught:
        load_weights(model, copied(net(width=4)) | {f"extra{i}": torch.ones(1) for i in range(2)})
    assert str(caught.value).count(";") == 4
    assert equal(model, before)


def test_files_that_hold_no_weights_are_refused(tmp_path: Path) -> None:
    torch.save([torch.ones(1)], tmp_path / "list.pt")
    torch.save({"lr": 0.1, "epoch": 3}, tmp_path / "numbers.pt")
    for name in ("text.pt", "text.safetensors"):
        (tmp_path / name).write_text("no weights")
    with pytest.raises(CorruptError, match="holds list, not a dict"):
        load_weights(net(), tmp_path / "list.pt")
    with pytest.raises(WeightsError, match=r"holds no 'model' weights; it has lr, epoch"):
        load_weights(net(), tmp_path / "numbers.pt")
    for name in ("text.pt", "text.safetensors", "missing.pt", "missing.safetensors"):
        with pytest.raises(CorruptError, match=name):
            load_weights(net(), tmp_path / name)


def test_a_file_of_another_tool_with_a_json_beside_it_loads(tmp_path: Path) -> None:
    torch.save(net().state_dict(), tmp_path / "net.pt")
    (tmp_path / "net.json").write_text('{"width": 3}')
    load_weights(net(), tmp_path / "net.pt")


def test_freeze_stops_what_matches_and_leaves_the_rest_as_the_model_made_it() -> None:
    model = net()
    model[3].bias.requires_grad_(False)
    freeze(model, ["0.*", "1.weight"])
    learning = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert learning == ["1.bias", "3.weight"]


def test_freezing_nothing_or_everything_is_refused_with_the_names() -> None:
    with pytest.raises(ConfigError, match=r"freeze 'head.\*' matches no parameter; the model has 0.weight, 0.bias"):
        freeze(net(), ["head.*"])
    with pytest.raises(ConfigError, match=r"freeze \* leaves nothing to train"):
        freeze(net(), ["*"])


def test_frozen_batch_norms_stand_still_and_others_train() -> None:
    model = nn.Sequential(nn.BatchNorm1d(2), nn.BatchNorm1d(2, affine=False), nn.BatchNorm1d(2), nn.Dropout())
    freeze(model, ["0.*"])
    training_mode(model, ["0.*"])
    assert [module.training for module in model] == [False, True, True, True]
    training_mode(model, ["0.*", "1.*"])
    assert [module.training for module in model] == [False, False, True, True]


def test_norms_and_biases_are_not_decayed_and_frozen_parameters_are_left_out() -> None:
    model = net()
    freeze(model, ["0.*"])
    decayed, plain = parameter_groups(model, 0.1)
    assert decayed["params"] == [model[3].weight]
    assert decayed["weight_decay"] == 0.1
    assert [id(p) for p in plain["params"]] == [id(p) for p in (model[1].weight, model[1].bias, model[3].bias)]
    assert plain["weight_decay"] == 0.0
