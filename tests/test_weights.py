"""Weights: from anything that holds them, all or none unless asked; under other names; nothing is executed."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from batteries.errors import CorruptError, WeightsError
from batteries.experiment import Metric
from batteries.train.checkpoint import Checkpoints
from batteries.train.weights import LoadReport, load_weights


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


class Evil:
    """What a pickle can do to whoever loads it."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.mark,))


@pytest.mark.parametrize("name", ["evil.pt", "evil.pth", "evil.bin", "evil.safetensors"])
def test_nothing_in_a_file_is_executed(tmp_path: Path, name: str) -> None:
    mark, model = tmp_path / "executed", net()
    before = copied(model)
    data = {**copied(net()), "extra": Evil(mark)}
    torch.save(data, tmp_path / name)
    with pytest.raises(CorruptError, match=f"{name}: is not a file of weights"):
        load_weights(model, tmp_path / name, partial=True)
    (tmp_path / name).write_bytes(pickle.dumps(data))
    with pytest.raises(CorruptError, match=f"{name}: is not a file of weights"):
        load_weights(model, tmp_path / name, partial=True)
    assert not mark.exists()
    assert equal(model, before)
    pickle.loads(pickle.dumps(Evil(mark)))
    assert mark.exists(), "where it is trusted, such a file does what it is meant to do"


def test_weights_of_a_part_of_another_model_are_taken_by_their_prefix() -> None:
    backbone, model = net(), net()
    whole = {f"backbone.{name}": tensor for name, tensor in copied(backbone).items()}
    whole |= {"head.weight": torch.ones(9, 1), "0.weight": torch.ones(7)}
    report = load_weights(model, whole, prefix="backbone.")
    assert equal(model, copied(backbone))
    assert (report.missing, report.unexpected, report.other_shape) == ((), (), ())
    for wrapped in ("module.backbone.", "backbone.module.", "_orig_mod.backbone."):
        model = net()
        load_weights(
            model, {f"{wrapped}{name}": tensor for name, tensor in copied(backbone).items()}, prefix="backbone."
        )
        assert equal(model, copied(backbone))


def test_a_prefix_of_a_wrapper_may_be_given_too() -> None:
    wanted, model = copied(net()), net()
    load_weights(model, {f"module.{name}": tensor for name, tensor in wanted.items()}, prefix="module.")
    assert equal(model, wanted)


def test_a_prefix_that_no_name_has_is_refused_with_the_names() -> None:
    with pytest.raises(
        WeightsError, match=r"no name in the given dict begins with 'encoder.'; it has 0.weight, 0.bias"
    ):
        load_weights(net(), copied(net()), prefix="encoder.")


def test_names_are_changed_by_regular_expressions_one_after_the_other() -> None:
    wanted, model = copied(net()), net()
    theirs = {"module.stem." + name.replace("weight", "kernel"): tensor for name, tensor in wanted.items()}
    load_weights(model, theirs, rename={r"^stem\.": "", r"(\d+)\.kernel$": r"\1.weight"})
    assert equal(model, wanted)


@pytest.mark.parametrize(
    ("rename", "message"),
    [
        ({r"\.weight$": ".bias"}, r"0\.weight and 0\.bias of the given dict would both become 0\.bias"),
        ({r"^fc": "3"}, r"rename '\^fc' matches no name in the given dict; it has 0\.weight, 0\.bias, .*, \.\.\."),
        ({"(": ""}, r"rename '\(' to '': missing \), unterminated subpattern"),
        ({"0": r"\1"}, r"rename '0' to '.*': invalid group reference 1"),
        ({"0": r"\g<layer>"}, r"rename '0' to '.*': unknown group name 'layer'"),
    ],
)
def test_a_rename_that_cannot_be_meant_is_refused(rename: dict[str, str], message: str) -> None:
    model = net()
    before = copied(model)
    for partial in (False, True):
        with pytest.raises(WeightsError, match=message):
            load_weights(model, copied(net()), rename=rename, partial=partial)
    assert equal(model, before)


def test_a_name_with_and_without_the_prefix_of_a_wrapper_is_no_choice_of_ours() -> None:
    weights = copied(net())
    with pytest.raises(
        WeightsError, match=r"0\.weight and module\.0\.weight of the given dict would both become 0\.weight"
    ):
        load_weights(net(), weights | {"module.0.weight": torch.zeros(3, 2)})


def test_a_partial_load_takes_what_fits_and_reports_the_rest() -> None:
    model = net()
    before, theirs = copied(model), copied(net())
    theirs |= {"1.running_mean": torch.full((3,), 5.0), "3.weight": torch.ones(7, 3), "extra": torch.ones(1)}
    del theirs["3.bias"]
    report = load_weights(model, theirs, partial=True)
    fitting = {name: tensor for name, tensor in theirs.items() if name not in ("3.weight", "extra")}
    assert equal(model, {**before, **fitting})
    assert report == LoadReport(
        loaded=tuple(fitting), missing=("3.bias",), unexpected=("extra",), other_shape=(("3.weight", (7, 3), (1, 3)),)
    )
    assert str(report) == (
        "loaded 7 of 9 tensors; 3.bias is missing; extra is not in the model;"
        " 3.weight is (7, 3) in the file, (1, 3) in the model"
    )


def test_a_full_load_reports_that_all_went_in() -> None:
    report = load_weights(net(), copied(net()))
    assert report == LoadReport(loaded=tuple(net().state_dict()))
    assert str(report) == "loaded 9 of 9 tensors"


def test_a_report_lists_five_differences() -> None:
    report = LoadReport(loaded=("a",), missing=tuple("bcdefgh"))
    assert str(report).endswith("; f is missing, and 2 more")


def test_a_partial_load_in_which_no_parameter_fits_is_refused() -> None:
    model = net()
    before = copied(model)
    for weights in (
        {"head.weight": torch.ones(3)},
        {"1.running_mean": torch.ones(3), "1.num_batches_tracked": torch.tensor(3)},
        {name: torch.ones(11) for name in before},
    ):
        with pytest.raises(WeightsError, match=r"the weights of the given dict hold no parameter of Sequential: "):
            load_weights(model, weights, partial=True)
    assert equal(model, before)


def test_weights_of_another_type_are_converted_and_the_report_says_so() -> None:
    model, theirs = net(), {name: tensor.half() for name, tensor in copied(net()).items()}
    report = load_weights(model, theirs)
    assert equal(model, {name: tensor.to(model.state_dict()[name].dtype) for name, tensor in theirs.items()})
    assert len(report.other_type) == 9
    assert report.other_type[0] == ("0.weight", torch.float16, torch.float32)
    assert str(report) == "loaded 9 of 9 tensors; 9 converted (float16 to float32, float16 to int64)"


@pytest.mark.parametrize("partial", [False, True])
def test_a_tensor_that_cannot_be_copied_leaves_the_model_as_it_was(partial: bool) -> None:
    model = net()
    before = copied(model)
    for bad in (torch.zeros(1, 3).to_sparse(), torch.empty(1, 3, device="meta")):
        with pytest.raises(WeightsError, match=r"3\.weight of the given dict cannot be copied into the model \("):
            load_weights(model, copied(net()) | {"3.weight": bad}, partial=partial)
    assert equal(model, before)


def test_what_is_no_tensor_among_the_weights_is_named() -> None:
    with pytest.raises(WeightsError, match=r"the given dict: 'step' of 'model' is int, not a named tensor"):
        load_weights(net(), {"model": {**copied(net()), "step": 3}})
    with pytest.raises(WeightsError, match=r"holds no 'model' weights; it has 0$"):
        load_weights(net(), {0: torch.ones(1)})  # type: ignore[dict-item]


def test_weights_in_another_part_of_a_file_are_pointed_out(tmp_path: Path) -> None:
    source, model = net(), net()
    torch.save({"epoch": 3, "state_dict": source.state_dict()}, tmp_path / "theirs.pt")
    with pytest.raises(
        WeightsError, match=r"holds no 'model' weights; it has epoch, state_dict; give part='state_dict'$"
    ):
        load_weights(model, tmp_path / "theirs.pt")
    load_weights(model, tmp_path / "theirs.pt", part="state_dict")
    assert equal(model, copied(source))


def test_tied_weights_load_under_both_names() -> None:
    model = nn.ModuleDict({"embedding": nn.Embedding(4, 3), "head": nn.Linear(3, 4, bias=False)})
    model["head"].weight = model["embedding"].weight
    load_weights(model, {"embedding.weight": torch.ones(4, 3), "head.weight": torch.ones(4, 3)})
    assert torch.equal(model["head"].weight, torch.ones(4, 3))
    report = load_weights(model, {"head.weight": torch.zeros(4, 3)}, partial=True)
    assert report.missing == ("embedding.weight",)
    assert torch.equal(model["embedding"].weight, torch.zeros(4, 3))
