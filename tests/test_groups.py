"""Groups: which parameters learn, how fast, with how much decay."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from batteries.errors import ConfigError
from batteries.train.groups import freeze, layers, parameter_groups, training_mode


def net(width: int = 3) -> nn.Sequential:
    return nn.Sequential(nn.Linear(2, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, 1))


class Backbone(nn.Module):
    """As vision transformers are made: parameters of its own, a stem, blocks, a norm."""

    def __init__(self) -> None:
        super().__init__()
        self.position = nn.Parameter(torch.zeros(1, 4, 8))
        self.stem = nn.Linear(2, 8)
        self.blocks = nn.ModuleList(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True) for _ in range(3))
        self.norm = nn.LayerNorm(8)


class Wrapped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = Backbone()
        self.head = nn.Linear(8, 2)


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(5, 4)
        self.middle = nn.Linear(4, 4)
        self.head = nn.Linear(4, 5, bias=False)
        self.head.weight = self.embedding.weight


def rates(model: nn.Module, **options: object) -> dict[str, float]:
    """The learning rate of every parameter, by name."""
    groups = parameter_groups(model, 0.1, lr=1.0, **options)  # type: ignore[arg-type]
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {names[id(p)]: group["lr"] for group in groups for p in group["params"]}


def named(model: nn.Module) -> list[list[str]]:
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return [[names[id(parameter)] for parameter in layer] for layer in layers(model)]


def test_freeze_stops_what_matches_and_leaves_the_rest_as_the_model_made_it() -> None:
    model = net()
    model[3].bias.requires_grad_(False)
    freeze(model, ["0.*", "1.weight"])
    learning = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert learning == ["1.bias", "3.weight"]


def test_freezing_nothing_or_everything_is_refused_with_the_names() -> None:
    with pytest.raises(ConfigError, match=r"freeze 'head.\*' matches no parameter; the model has 0.weight, 0.bias"):
        freeze(net(), ["head.*"])
    with pytest.raises(ConfigError, match=r"freeze '\*' leaves nothing to train"):
        freeze(net(), ["*"])


def test_a_tied_parameter_is_frozen_under_its_second_name_too() -> None:
    model = Tied()
    freeze(model, ["head.*"])
    assert not model.embedding.weight.requires_grad


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


def test_norms_and_biases_of_two_dimensions_are_not_decayed_either() -> None:
    model = nn.Module()
    model.norm = nn.LayerNorm((2, 3))
    model.scores_bias = nn.Parameter(torch.zeros(2, 3))
    model.table = nn.Parameter(torch.zeros(2, 3))
    decayed, plain = parameter_groups(model, 0.1)
    assert [id(p) for p in decayed["params"]] == [id(model.table)]
    assert {id(p) for p in plain["params"]} == {id(p) for p in (model.norm.weight, model.norm.bias, model.scores_bias)}


def test_without_decay_there_is_one_group() -> None:
    model = net()
    (group,) = parameter_groups(model, 0.0)
    assert [id(p) for p in group["params"]] == [id(p) for p in model.parameters()]


def test_groups_have_a_rate_of_their_own_only_where_one_is_asked_for() -> None:
    assert all("lr" not in group for group in parameter_groups(net(), 0.1, lr=0.5))
    optimizer = torch.optim.SGD(parameter_groups(net(), 0.1, lr=0.5, lr_of={"3.*": 0.1}), lr=7.0)
    assert [group["lr"] for group in optimizer.param_groups] == [0.5, 0.5, 0.05, 0.05]
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.1, 0.0, 0.1, 0.0]
    with pytest.raises(ConfigError, match="layer_decay and lr_of multiply the learning rate; give lr"):
        parameter_groups(net(), 0.1, layer_decay=0.5)


def test_each_layer_learns_at_a_share_of_the_rate_of_the_one_after_it() -> None:
    assert rates(net(), layer_decay=0.5) == {
        "3.weight": 1.0,
        "3.bias": 1.0,
        "1.weight": 0.5,
        "1.bias": 0.5,
        "0.weight": 0.25,
        "0.bias": 0.25,
    }


def test_a_decay_of_one_is_no_decay() -> None:
    model = net()
    ones, without = parameter_groups(model, 0.1, lr=0.3, layer_decay=1.0), parameter_groups(model, 0.1)
    assert [[id(p) for p in group["params"]] for group in ones] == [[id(p) for p in g["params"]] for g in without]
    assert {group["lr"] for group in ones} == {0.3}


def test_the_models_own_parameters_are_the_first_layer_and_containers_are_expanded() -> None:
    model = Backbone()
    assert [layer[0] for layer in named(model)] == [
        "position",
        "stem.weight",
        "blocks.0.self_attn.in_proj_weight",
        "blocks.1.self_attn.in_proj_weight",
        "blocks.2.self_attn.in_proj_weight",
        "norm.weight",
    ]
    assert len(named(model)[2]) == len(list(model.blocks[0].parameters()))


def test_the_backbone_in_a_wrapper_is_expanded_and_a_block_is_not() -> None:
    found = named(Wrapped())
    assert [layer[0].removeprefix("backbone.") for layer in found[:-1]] == [layer[0] for layer in named(Backbone())]
    assert found[-1] == ["head.weight", "head.bias"]
    assert rates(Wrapped(), layer_decay=0.5)["backbone.blocks.2.linear1.weight"] == 0.25


def test_nested_containers_are_expanded() -> None:
    model = nn.Sequential(nn.Sequential(nn.Linear(1, 1), nn.ReLU()), nn.ModuleDict({"a": nn.Linear(1, 1)}))
    assert named(model) == [["0.0.weight", "0.0.bias"], ["1.a.weight", "1.a.bias"]]


def test_a_model_of_one_layer_has_no_layers_to_decay_over() -> None:
    with pytest.raises(ConfigError, match=r"layer_decay 0\.5: Linear has a single layer; use lr_of"):
        parameter_groups(nn.Linear(2, 1), 0.1, lr=1.0, layer_decay=0.5)


def test_frozen_layers_keep_their_place_in_the_count() -> None:
    model = nn.Sequential(*[nn.Linear(1, 1) for _ in range(3)])
    freeze(model, ["1.*"])
    assert rates(model, layer_decay=0.5) == {"0.weight": 0.25, "0.bias": 0.25, "2.weight": 1.0, "2.bias": 1.0}


def test_a_tied_parameter_is_in_one_group_and_in_the_layer_that_has_it_first() -> None:
    model = Tied()
    assert named(model) == [["embedding.weight"], ["middle.weight", "middle.bias"]]
    assert rates(model, layer_decay=0.5) == {"embedding.weight": 0.5, "middle.weight": 1.0, "middle.bias": 1.0}
    assert rates(model, lr_of={"head.*": 0.1})["embedding.weight"] == 0.1


def test_rates_by_name_multiply_each_other_and_those_by_layer_whatever_their_order() -> None:
    patterns = {"0.*": 0.5, "*.bias": 0.1, "*.weight": 1.0}
    wanted = {"3.weight": 1.0, "3.bias": 0.1, "1.weight": 0.5, "1.bias": 0.05, "0.weight": 0.125, "0.bias": 0.0125}
    assert rates(net(), layer_decay=0.5, lr_of=patterns) == pytest.approx(wanted)
    assert rates(net(), layer_decay=0.5, lr_of=dict(reversed(patterns.items()))) == pytest.approx(wanted)


def test_a_pattern_that_matches_nothing_is_refused_with_the_names() -> None:
    with pytest.raises(ConfigError, match=r"lr_of 'head.\*' matches no parameter; the model has 0.weight, 0.bias"):
        parameter_groups(net(), 0.1, lr=1.0, lr_of={"head.*": 0.1})


def test_a_multiplier_of_zero_keeps_the_parameters_as_they_are() -> None:
    model = net()
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    optimizer = torch.optim.AdamW(parameter_groups(model, 0.5, lr=0.1, lr_of={"0.*": 0}), lr=0.1)
    for _ in range(3):
        model(torch.randn(8, 2)).square().sum().backward()
        optimizer.step()
    changed = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}
    assert changed == {"1.weight", "1.bias", "3.weight", "3.bias"}
    assert sum(len(group["params"]) for group in optimizer.param_groups) == 6


def test_training_with_groups_is_training_with_an_optimizer_for_each_rate() -> None:
    inputs: Tensor = torch.randn(8, 2)
    model, other = net(), net()
    other.load_state_dict(model.state_dict())
    grouped = torch.optim.SGD(parameter_groups(model, 0.0, lr=0.1, layer_decay=0.5), lr=9.9)
    each = [torch.optim.SGD(other[i].parameters(), lr=0.1 * 0.5**k) for i, k in ((0, 2), (1, 1), (3, 0))]
    for _ in range(3):
        model(inputs).square().mean().backward()
        other(inputs).square().mean().backward()
        for optimizer in (grouped, *each):
            optimizer.step()
            optimizer.zero_grad()
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))


PATTERNS = ["*", "0.*", "*.weight", "[13].*", "1.bias"]


@settings(deadline=None)
@given(
    weight_decay=st.sampled_from([0.0, 0.1]),
    layer_decay=st.none() | st.sampled_from([1.0, 0.75, 0.5]),
    lr_of=st.dictionaries(st.sampled_from(PATTERNS), st.sampled_from([0.0, 0.1, 1.0, 2.0])),
    frozen=st.sampled_from([[], ["0.*"], ["*.bias"]]),
)
def test_every_learning_parameter_is_in_one_group_and_no_two_groups_are_alike(
    weight_decay: float, layer_decay: float | None, lr_of: Mapping[str, float], frozen: list[str]
) -> None:
    model = net()
    freeze(model, frozen)
    groups = parameter_groups(model, weight_decay, lr=0.3, layer_decay=layer_decay, lr_of=lr_of)
    parameters = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(parameters) == sorted(id(p) for p in model.parameters() if p.requires_grad)
    kinds = [(group.get("lr"), group["weight_decay"]) for group in groups]
    assert len(set(kinds)) == len(kinds)
    assert kinds == sorted(kinds, key=lambda kind: (-(kind[0] or 0.0), -kind[1]))
    assert len(torch.optim.SGD(groups, lr=0.3).param_groups) == len(groups)
